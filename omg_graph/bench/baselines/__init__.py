"""Floors that are trained: networks, specialists and the cheap methods of the paper's list."""
