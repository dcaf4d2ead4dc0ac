"""Prior and label estimates of every pair; those of training rows are out-of-fold or leave-group-out."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from omg_graph.data.dataset import Split
from omg_graph.predictor.label_regression import LabelRegression
from omg_graph.priors.prior import Examples, Prior

Estimates = dict[str, Tensor]
"""Modality to (pairs, latent)."""


def pair_estimates(prior: Prior, rows: Examples, *, training: bool) -> Estimates | None:
    """A prior's estimate of each pair's hidden modalities; None for a prior that is evaluated per batch.

    Args:
        prior: The fitted prior.
        rows: Rows of one split, with their pairs.
        training: Whether the prior was fitted on these rows. Then pairs of a fold are estimated by the prior
            refitted without the fold, unless its own estimates leave the group out already.
    """
    if prior.cross_fitting == "live":
        return None
    out = {name: torch.zeros(len(rows.pool), width) for name, width in rows.widths.items()}
    fold_of_pair = rows.folds[rows.pool.rows]
    folds = np.unique(rows.folds) if training and prior.cross_fitting == "folds" else [None]
    for fold in folds:
        fitted = prior if fold is None else prior.refit(rows.take(rows.folds != fold))
        pairs = rows.pool.everything if fold is None else np.flatnonzero(fold_of_pair == fold)
        for block in rows.pool.by_pattern(pairs):
            shown = rows.shown(block)
            for column, name in enumerate(rows.names):
                if not shown.observed[0, column]:
                    out[name][torch.from_numpy(block)] = fitted.predict(name, shown)
    return out


def label_pairs(regression: LabelRegression, rows: Examples, split: Split) -> Tensor:
    """The label estimates of each pair, (pairs, columns)."""
    out = torch.zeros(len(rows.pool), regression.width)
    for block in rows.pool.by_pattern():
        estimates = regression.predict(rows.shown(block), rows.pool.texts(split, block))
        out[torch.from_numpy(block)] = estimates
    return out
