"""The embedded default: a small model trained on simulated data, labelled synthetic."""
