"""Ablations and sensitivity: variants of the method by name, trained and measured like the method itself."""
