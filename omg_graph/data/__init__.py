"""Samples and masks: reading data files, checking them, making them fit a model."""
