"""Metrics of predicted labels: by families, with calibration; and the labels that they are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from omg_graph.data.dataset import Labels
from omg_graph.errors import ConfigError, DataError

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
            "expected one prediction for each truth, "
            f"got shapes {predictions.shape} and {truths.shape}: score the samples that were predicted"
        )
    known = ~np.isnan(truths)
    truths, predictions = truths[known], predictions[known]
    broken = int(np.count_nonzero(~np.isfinite(predictions)))
    if broken:
        raise DataError(f"expected finite predictions, {broken} of {len(predictions)} are not: predict anew")
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
            f"expected class indexes from 0{limit}, got {values[wrong][0]:g}: index the class names"
        )
    return values.astype(np.int64)


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
            f"expected one prediction for each truth, got shapes {prediction.shape} and {truth.shape}"
        )


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
            f"expected probabilities of shape ({truths.size}, classes), got {rows.shape}: "
            "give a row for each truth"
        )
    known = ~np.isnan(truths)
    truths, rows = truths[known], rows[known]
    # Float32 softmax over many classes misses 1 by a few parts in a million.
    wrong = ~(np.isfinite(rows).all(axis=1) & (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < 1e-3))
    if wrong.any():
        raise DataError(
            f"expected probabilities that are non-negative and sum to 1, {int(wrong.sum())} of "
            f"{len(rows)} rows are not: normalise them"
        )
    return class_indexes(truths, rows.shape[1]), rows


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


MetricFamily = Literal["mosi", "sims", "classes", "number", "none"]

_OF_NUMBERS = {"mosi": sentiment_scores, "sims": sims_scores, "number": number_scores}


def choose_family(labels: Labels | None, requested: str = "auto") -> MetricFamily:
    """The family that is asked for, else the one that the kind and range of the labels suggest.

    ``none`` where no sample has a label, whatever is asked for. Numbers on both sides of 0 are taken for
    sentiment: ``sims`` within [-1, 1], ``mosi`` within [-3, 3].

    Raises:
        ConfigError: if the family that is asked for is unknown, or isn't of the labels' kind.
    """
    known = None if labels is None else labels.values[~np.isnan(labels.values)]
    if labels is None or known is None or not len(known):
        return "none"
    if requested != "auto":
        return _requested(labels, requested)
    if labels.kind == "classes":
        return "classes"
    lowest, highest = float(known.min()), float(known.max())
    if not lowest < 0 < highest:
        return "number"
    reach = max(-lowest, highest)
    return "sims" if reach <= 1 else "mosi" if reach <= 3 else "number"


def score(
    family: MetricFamily,
    truth: npt.ArrayLike,
    *,
    value: npt.ArrayLike | None = None,
    label: npt.ArrayLike | None = None,
    probabilities: npt.ArrayLike | None = None,
    degrees: Sequence[float] | None = None,
) -> Scores:
    """All metrics of a family by the names used in results; samples without a label are left out.

    Args:
        family: ``mosi``: acc2, f1, acc2_has0, f1_has0, acc7, mae, corr; ``sims``: acc2, f1, acc3, acc5, mae,
            corr; ``number``: mae, corr; ``classes``: accuracy, macro_f1; and for each of them ece and nll,
            None without probabilities; ``none``: nothing.
        truth: (samples,) numbers, or class indexes for ``classes``; NaN where there is no label.
        value: (samples,) predicted numbers, for all families but ``classes``.
        label: (samples,) predicted class indexes; the most probable class by default.
        probabilities: (samples, classes).
        degrees: the number that each column of ``probabilities`` stands for, ascending, where the target is
            a number: the truth's class is then the nearest of them.

    Raises:
        ConfigError: if what the family needs isn't given.
        DataError: if shapes differ or predictions aren't finite.
    """
    if family == "none":
        return {}
    uncertain: Scores = {"ece": None, "nll": None}
    if family == "classes":
        if probabilities is not None:
            uncertain = calibration_scores(truth, probabilities)
            label = np.asarray(probabilities).argmax(axis=1) if label is None else label
        if label is None:
            raise ConfigError("classes: expected predicted labels or probabilities, got neither: give one")
        return class_scores(truth, label) | uncertain
    if value is None:
        raise ConfigError(f"{family}: expected predicted numbers, got none: give value")
    if probabilities is not None:
        if degrees is None:
            raise ConfigError(
                f"{family}: probabilities came without the numbers they stand for: give degrees"
            )
        if np.shape(probabilities)[1:] != (len(degrees),):
            raise DataError(
                f"expected a probability for each of {len(degrees)} degrees, "
                f"got shape {np.shape(probabilities)}: give a column for each"
            )
        uncertain = calibration_scores(nearest_degrees(truth, degrees), probabilities)
    return _OF_NUMBERS[family](truth, value) | uncertain


def _requested(labels: Labels, requested: str) -> MetricFamily:
    fitting = ("classes",) if labels.kind == "classes" else ("mosi", "sims", "number")
    for family in get_args(MetricFamily):
        if family == requested and (family in fitting or family == "none"):
            chosen: MetricFamily = family
            return chosen
    raise ConfigError(
        f"--metrics: auto, {' or '.join(fitting)} was expected for {labels.name} ({labels.kind}), "
        f"{requested!r} came"
    )
