"""Metrics of classes: accuracy, and F1 averaged over classes in two ways."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omg_graph.errors import DataError
from omg_graph.metrics.labelled import ClassIndexes, Numbers, Scores, class_indexes, labelled_numbers


def class_scores(truth: npt.ArrayLike, label: npt.ArrayLike) -> Scores:
    """``accuracy`` and ``macro_f1``.

    Args:
        truth: (samples,) class indexes, NaN where a sample has no label.
        label: (samples,) predicted class indexes.

    Raises:
        DataError: if the two don't match or hold anything but class indexes.
    """
    truths, predictions = (class_indexes(part) for part in labelled_numbers(truth, label))
    return {"accuracy": accuracy(truths, predictions), "macro_f1": macro_f1(truths, predictions)}


def accuracy(truth: npt.NDArray[np.generic], prediction: npt.NDArray[np.generic]) -> float | None:
    """The share of equal entries of two (samples,) arrays; None of no samples."""
    _same_length(truth, prediction)
    return float(np.mean(truth == prediction)) if len(truth) else None


def macro_f1(truth: npt.NDArray[np.generic], prediction: npt.NDArray[np.generic]) -> float | None:
    """The plain mean of every class's F1, over the classes that occur in truth or prediction."""
    scores, _ = _f1_by_class(truth, prediction)
    return float(scores.mean()) if len(scores) else None


def weighted_f1(truth: npt.NDArray[np.generic], prediction: npt.NDArray[np.generic]) -> float | None:
    """The mean of every class's F1, weighted by how often the class is the **truth**.

    Truth comes first: with the arguments swapped the weights are the predictions' own, and a model that
    predicts one class only looks far better than it is.
    """
    scores, support = _f1_by_class(truth, prediction)
    return float(scores @ support / support.sum()) if len(scores) else None


def _f1_by_class(
    truth: npt.NDArray[np.generic], prediction: npt.NDArray[np.generic]
) -> tuple[Numbers, ClassIndexes]:
    """F1 and support of each class that occurs."""
    _same_length(truth, prediction)
    classes = np.unique(np.concatenate([truth, prediction]))
    of_truth = truth[None] == classes[:, None]
    of_prediction = prediction[None] == classes[:, None]
    hits = np.count_nonzero(of_truth & of_prediction, axis=1)
    support = np.count_nonzero(of_truth, axis=1)
    # A class that occurs has a positive denominator: nothing to guard.
    scores = 2 * hits / (support + np.count_nonzero(of_prediction, axis=1))
    return np.asarray(scores, np.float64), support.astype(np.int64)


def _same_length(truth: npt.NDArray[np.generic], prediction: npt.NDArray[np.generic]) -> None:
    if truth.ndim != 1 or truth.shape != prediction.shape:
        raise DataError(
            f"one prediction for each truth was expected, shapes {prediction.shape} and {truth.shape} came"
        )
