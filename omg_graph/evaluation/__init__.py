"""Measuring a model: masks drawn once, floors beside it, intervals over whole groups."""
