"""How far probabilities can be believed: expected calibration error and negative log-likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from omg_graph.errors import DataError
from omg_graph.metrics.labelled import ClassIndexes, Numbers, Scores, class_indexes

BINS = 15
FLOOR = 1e-12
"""The smallest probability that enters a logarithm: one sure mistake costs 27.6 nats, not infinity."""


def calibration_scores(truth: npt.ArrayLike, probabilities: npt.ArrayLike) -> Scores:
    """``ece`` and ``nll``.

    Args:
        truth: (samples,) class indexes, NaN where a sample has no label.
        probabilities: (samples, classes), each row summing to 1.

    Raises:
        DataError: if the two don't match, or the rows are no distributions.
    """
    indexes, rows = _labelled(truth, probabilities)
    return {
        "ece": expected_calibration_error(indexes, rows),
        "nll": negative_log_likelihood(indexes, rows),
    }


def expected_calibration_error(truth: ClassIndexes, probabilities: Numbers, bins: int = BINS) -> float | None:
    """|accuracy - confidence| by bins of confidence, weighted by the samples in each (Guo et al., 2017).

    Args:
        truth: (samples,) class indexes.
        probabilities: (samples, classes).
        bins: equal widths over (0, 1], the right border included.

    Returns:
        A number from 0 to 1; None of no samples.
    """
    if not len(truth):
        return None
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    gap = np.bincount(bins_of(confidence, bins), weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(truth))


def bins_of(confidence: Numbers, bins: int = BINS) -> ClassIndexes:
    """(samples,): the bin of each confidence, of equal widths over (0, 1], the right border included."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def negative_log_likelihood(truth: ClassIndexes, probabilities: Numbers) -> float | None:
    """Mean of -log p(truth), in nats; None of no samples."""
    if not len(truth):
        return None
    given = probabilities[np.arange(len(truth)), truth]
    return float(-np.mean(np.log(np.maximum(given, FLOOR))))


def nearest_degrees(truth: npt.ArrayLike, degrees: Sequence[float]) -> Numbers:
    """(samples,): the index of the degree nearest to each number, NaN where the number is.

    Half-way the degree an even number of steps from the middle one wins, as ``np.round`` does for the
    seven degrees of ``acc7``.

    Args:
        truth: (samples,), in the label's units.
        degrees: ascending.
    """
    values, steps = np.asarray(truth, np.float64), np.asarray(degrees, np.float64)
    distance = np.abs(values[:, None] - steps[None])
    nearest = distance.min(axis=1, keepdims=True)
    tied = distance <= nearest + 1e-9 * np.ptp(steps)
    even = (np.arange(len(steps)) - len(steps) // 2) % 2 == 0
    preference = tied.astype(np.int64) + (tied & even)
    return np.where(np.isnan(values), np.nan, preference.argmax(axis=1).astype(np.float64))


def _labelled(truth: npt.ArrayLike, probabilities: npt.ArrayLike) -> tuple[ClassIndexes, Numbers]:
    truths, rows = np.asarray(truth, np.float64), np.asarray(probabilities, np.float64)
    if rows.ndim != 2 or truths.shape != rows.shape[:1]:
        raise DataError(
            f"probabilities of shape ({truths.size}, classes) were expected, {rows.shape} came: "
            "give a row for each truth"
        )
    known = ~np.isnan(truths)
    truths, rows = truths[known], rows[known]
    # Float32 softmax over many classes misses 1 by a few parts in a million.
    wrong = ~(np.isfinite(rows).all(axis=1) & (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < 1e-3))
    if wrong.any():
        raise DataError(
            f"probabilities that are non-negative and sum to 1 were expected, {int(wrong.sum())} of "
            f"{len(rows)} rows are not: normalise them"
        )
    return class_indexes(truths, rows.shape[1]), rows
