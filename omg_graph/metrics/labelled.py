"""Truths and predictions side by side, for the samples whose truth is known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omg_graph.errors import DataError

Numbers = npt.NDArray[np.float64]
ClassIndexes = npt.NDArray[np.int64]
Scores = dict[str, float | None]
"""Metric to value; None where a metric is undefined, as a correlation with a constant is."""


def labelled_numbers(truth: npt.ArrayLike, prediction: npt.ArrayLike) -> tuple[Numbers, Numbers]:
    """Both as (labelled,) numbers, without the samples whose truth is NaN.

    Args:
        truth: (samples,), NaN where a sample has no label.
        prediction: (samples,), in the label's units.

    Raises:
        DataError: if the two don't match, or a sample with a label has no finite prediction.
    """
    truths = np.asarray(truth, np.float64)
    predictions = np.asarray(prediction, np.float64)
    if truths.ndim != 1 or truths.shape != predictions.shape:
        raise DataError(
            "one prediction for each truth was expected, "
            f"shapes {predictions.shape} and {truths.shape} came: score the samples that were predicted"
        )
    known = ~np.isnan(truths)
    truths, predictions = truths[known], predictions[known]
    broken = int(np.count_nonzero(~np.isfinite(predictions)))
    if broken:
        raise DataError(
            f"finite predictions were expected, {broken} of {len(predictions)} are not: predict anew"
        )
    return truths, predictions


def class_indexes(numbers: npt.ArrayLike, classes: int | None = None) -> ClassIndexes:
    """(samples,) class indexes from whole numbers of any type.

    Raises:
        DataError: if one is negative, not whole, or not below ``classes``.
    """
    values = np.asarray(numbers, np.float64)
    wrong = ~(values >= 0) | (values != np.floor(values))
    if classes is not None:
        wrong |= values >= classes
    if wrong.any():
        limit = "" if classes is None else f" below {classes}"
        raise DataError(
            f"class indexes from 0{limit} were expected, {values[wrong][0]:g} came: index the class names"
        )
    return values.astype(np.int64)
