"""Calibration: the temperature of logits, and the spread of a sentiment's value."""

from __future__ import annotations

import math
from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

COLDEST, HOTTEST = 0.25, 4.0
NARROWEST, WIDEST = 0.8, 1.5
SPREAD_TOLERANCE = 0.001
"""Relative fall of the mean absolute error that a spread must bring."""
TOLERANCE = 0.005
"""Gain in mean log-likelihood, in nats, that a temperature must bring."""


def fit_spread(values: Float[Tensor, " row"], labels: Float[Tensor, " row"]) -> float:
    """The factor with the least mean absolute error; 1 if that gains less than ``SPREAD_TOLERANCE`` of it.

    Args:
        values: (rows,), predictions minus the labels' mean.
        labels: (rows,), likewise.
    """
    made, truth = values.double(), labels.double()

    def loss(factor: float) -> float:
        return float((factor * made - truth).abs().mean())

    factor = _least(loss, NARROWEST, WIDEST)
    return factor if loss(factor) < (1 - SPREAD_TOLERANCE) * loss(1.0) else 1.0


def fit_temperature(outputs: Float[Tensor, "row name"], classes: Int[Tensor, " row"]) -> float:
    """The temperature with the least mean cross-entropy; 1 if that gains less than ``TOLERANCE``.

    The loss is convex in the inverse of the temperature.

    Args:
        outputs: (rows, classes), logits.
        classes: (rows,), the true ones.
    """
    logits, truth = outputs.double(), classes.long()

    def loss(inverse: float) -> float:
        return float(F.cross_entropy(logits * inverse, truth))

    inverse = _least(loss, 1 / HOTTEST, 1 / COLDEST)
    return 1 / inverse if loss(1.0) - loss(inverse) > TOLERANCE else 1.0


def _least(loss: Callable[[float], float], low: float, high: float) -> float:
    """The minimum of a convex function, by golden-section search."""
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        one, other = high - golden * (high - low), low + golden * (high - low)
        if loss(one) < loss(other):
            high = other
        else:
            low = one
    return (low + high) / 2
