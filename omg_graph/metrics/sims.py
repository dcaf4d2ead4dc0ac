"""Metrics of CH-SIMS, whose labels lie in [-1, 1] and have cut points of their own, as MMSA defines them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omg_graph.metrics.classes import accuracy, weighted_f1
from omg_graph.metrics.labelled import ClassIndexes, Numbers, Scores, labelled_numbers
from omg_graph.metrics.numbers import mean_absolute_error, pearson

CUT_POINTS: dict[int, tuple[float, ...]] = {
    2: (0.0,),
    3: (-0.1, 0.1),
    5: (-0.7, -0.1, 0.1, 0.7),
}
"""Number of classes to the borders between them; a border belongs to the class below it."""


def sims_scores(truth: npt.ArrayLike, value: npt.ArrayLike) -> Scores:
    """``acc2``, ``f1``, ``acc3``, ``acc5``, ``mae`` and ``corr``.

    Truth and value are clipped to [-1, 1] first, for ``mae`` and ``corr`` too. The two classes of ``acc2``
    are [-1, 0] and (0, 1]: unlike MOSI's, no sample is left out, and 0 counts as negative. ``f1`` is of
    these two, weighted by the truth.

    Args:
        truth: (samples,), NaN where a sample has no label.
        value: (samples,) predictions, in the label's units.

    Raises:
        DataError: if the two don't match, or a sample with a label has no finite prediction.
    """
    truths, values = (np.clip(part, -1.0, 1.0) for part in labelled_numbers(truth, value))
    two, two_value = sims_classes(truths, 2), sims_classes(values, 2)
    return {
        "acc2": accuracy(two, two_value),
        "f1": weighted_f1(two, two_value),
        "acc3": accuracy(sims_classes(truths, 3), sims_classes(values, 3)),
        "acc5": accuracy(sims_classes(truths, 5), sims_classes(values, 5)),
        "mae": mean_absolute_error(truths, values),
        "corr": pearson(truths, values),
    }


def sims_classes(values: Numbers, classes: int) -> ClassIndexes:
    """(samples,): which of 2, 3 or 5 ordered classes each value falls into.

    In single precision, as MMSA has it: a label of 0.1 is on the border, however its digits were kept.
    """
    borders = np.array(CUT_POINTS[classes], np.float32)
    return np.searchsorted(borders, values.astype(np.float32), side="left").astype(np.int64)
