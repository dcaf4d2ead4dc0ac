"""Priors: what closed forms and evidence say of a missing modality before the executor draws."""
