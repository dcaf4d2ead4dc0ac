"""Metrics, in NumPy alone: of predictions, of reconstructed features and of their draws."""
