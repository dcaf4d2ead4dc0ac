"""Priors: estimates of missing modalities, in closed form or from evidence, before the executor draws."""
