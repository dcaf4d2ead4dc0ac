"""Metrics of numbers: mean absolute error and Pearson's correlation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omg_graph.metrics.labelled import Numbers, Scores, labelled_numbers


def number_scores(truth: npt.ArrayLike, value: npt.ArrayLike) -> Scores:
    """``mae`` and ``corr``, for a target that is a number and nothing more.

    Args:
        truth: (samples,), NaN where a sample has no label.
        value: (samples,) predictions, in the label's units.

    Raises:
        DataError: if the two don't match, or a sample with a label has no finite prediction.
    """
    truths, values = labelled_numbers(truth, value)
    return {"mae": mean_absolute_error(truths, values), "corr": pearson(truths, values)}


def mean_absolute_error(truth: Numbers, value: Numbers) -> float | None:
    """In the label's units; None of no samples."""
    return float(np.mean(np.abs(value - truth))) if len(truth) else None


def pearson(truth: Numbers, value: Numbers) -> float | None:
    """Pearson's correlation; None where it is undefined: fewer than two samples, or a constant."""
    if len(truth) < 2 or np.ptp(truth) == 0 or np.ptp(value) == 0:
        return None
    left, right = _centred(truth), _centred(value)
    norm = np.sqrt((left @ left) * (right @ right))
    return float(np.clip(left @ right / norm, -1.0, 1.0))


def _centred(values: Numbers) -> Numbers:
    """Deviations from the mean, scaled to a largest one of 1: squares of tiny ones would vanish."""
    deviations = values - values.mean()
    return np.asarray(deviations / np.abs(deviations).max(), np.float64)
