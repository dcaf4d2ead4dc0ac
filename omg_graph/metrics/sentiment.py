"""Metrics of sentiment in [-3, 3], as the MMSA framework defines them for MOSI and MOSEI."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omg_graph.metrics.classes import accuracy, weighted_f1
from omg_graph.metrics.labelled import Scores, labelled_numbers
from omg_graph.metrics.numbers import mean_absolute_error, pearson

LIMIT = 3.0
"""Values are clipped to [-3, 3] before they are rounded to the seven degrees."""


def sentiment_scores(truth: npt.ArrayLike, value: npt.ArrayLike) -> Scores:
    """``acc2``, ``f1``, ``acc2_has0``, ``f1_has0``, ``acc7``, ``mae`` and ``corr``.

    - ``acc2`` and ``f1``: positive against negative, on the samples whose label isn't 0.
    - ``acc2_has0`` and ``f1_has0``: non-negative against negative, on all samples.
    - ``acc7``: equal after clipping to [-3, 3] and ``np.round``, which takes halves to the even number.
    - both F1s are weighted by the truth; ``mae`` and ``corr`` take the values as they are.

    Args:
        truth: (samples,), NaN where a sample has no label.
        value: (samples,) predictions, in the label's units.

    Raises:
        DataError: if the two don't match, or a sample with a label has no finite prediction.
    """
    truths, values = labelled_numbers(truth, value)
    polar = truths != 0
    positive, positive_value = truths[polar] > 0, values[polar] > 0
    degree, degree_value = (np.round(np.clip(part, -LIMIT, LIMIT)) for part in (truths, values))
    return {
        "acc2": accuracy(positive, positive_value),
        "f1": weighted_f1(positive, positive_value),
        "acc2_has0": accuracy(truths >= 0, values >= 0),
        "f1_has0": weighted_f1(truths >= 0, values >= 0),
        "acc7": accuracy(degree, degree_value),
        "mae": mean_absolute_error(truths, values),
        "corr": pearson(truths, values),
    }
