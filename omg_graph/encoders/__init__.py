"""Encoders: standard units, psi for observations and g for texts, in one shared space."""
