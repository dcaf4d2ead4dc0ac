"""Metrics of predicted labels: by families, with calibration.

Each metric depends on its samples through sums alone. So it is written once, for the figure itself and for
the thousands of resamples of its interval, which cost one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from omg_graph.data.dataset import BoolArray, IntArray, Labels
from omg_graph.errors import ConfigError, DataError

Numbers = npt.NDArray[np.float64]
Scores = dict[str, float | None]
"""Metric to value; None where a metric is undefined, as a correlation with a constant is."""
MetricFamily = Literal["mosi", "sims", "classes", "number", "none"]

BINS = 15
"""Of confidence, for the calibration error."""
FLOOR = 1e-12
"""The smallest probability that enters a logarithm: one sure mistake costs 27.6 nats, not infinity."""
LIMIT = 3.0
"""Values are clipped to [-3, 3] before they are rounded to the seven degrees."""
CUT_POINTS: dict[int, tuple[float, ...]] = {
    2: (0.0,),
    3: (-0.1, 0.1),
    5: (-0.7, -0.1, 0.1, 0.7),
}
"""Number of classes of SIMS to the borders between them; a border belongs to the class below it."""


@dataclass(frozen=True)
class LabelPredictions:
    """What label metrics are computed from, sample by sample; NaN where nothing is known."""

    truth: Numbers
    """(samples,): numbers, or class indexes."""
    predicted: Numbers
    """(samples,): in the same units."""
    probability: Numbers
    """(samples,): what the truth's class or degree was given."""
    confidence: Numbers
    """(samples,): the largest probability."""

    @classmethod
    def of(
        cls,
        family: MetricFamily,
        truth: npt.ArrayLike,
        *,
        value: npt.ArrayLike | None = None,
        label: npt.ArrayLike | None = None,
        probabilities: npt.ArrayLike | None = None,
        degrees: Sequence[float] | None = None,
    ) -> LabelPredictions:
        """Check predictions of a family; the arguments are those of ``score``.

        Raises:
            ConfigError: if what the family needs isn't given.
            DataError: if shapes differ, or a sample with a label has no finite prediction.
        """
        given = None if probabilities is None else np.asarray(probabilities, np.float64)
        predicted = value
        if family == "classes":
            predicted = given.argmax(axis=1) if label is None and given is not None else label
        if predicted is None:
            needed = "labels or probabilities" if family == "classes" else "numbers"
            raise ConfigError(f"{family}: expected predicted {needed}, got none: give them")
        truths, predictions = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
        if truths.ndim != 1 or truths.shape != predictions.shape:
            raise DataError(
                "expected one prediction for each truth, "
                f"got shapes {predictions.shape} and {truths.shape}: score the samples that were predicted"
            )
        known = ~np.isnan(truths)
        broken = int(np.count_nonzero(~np.isfinite(predictions[known])))
        if broken:
            raise DataError(f"expected finite predictions, {broken} of {known.sum()} are not: predict anew")
        codes = truths
        if family == "classes":
            _check_classes(truths[known])
            _check_classes(predictions[known])
        elif given is not None:
            if degrees is None:
                raise ConfigError(
                    f"{family}: probabilities came without the numbers they stand for: give degrees"
                )
            if given.shape[1:] != (len(degrees),):
                raise DataError(
                    f"expected a probability for each of {len(degrees)} degrees, "
                    f"got shape {given.shape}: give a column for each"
                )
            codes = nearest_degrees(truths, degrees)
        return cls(truths, predictions, *_probability_and_confidence(codes, given))


def _check_classes(numbers: Numbers, classes: int | None = None) -> None:
    wrong = ~(numbers >= 0) | (numbers != np.floor(numbers))
    if classes is not None:
        wrong |= numbers >= classes
    if wrong.any():
        limit = "" if classes is None else f" below {classes}"
        raise DataError(
            f"expected class indexes from 0{limit}, got {numbers[wrong][0]:g}: index the class names"
        )


def _probability_and_confidence(codes: Numbers, probabilities: Numbers | None) -> tuple[Numbers, Numbers]:
    """(samples,) each: what the truth's class was given, and the largest that any was given."""
    probability = np.full(len(codes), np.nan)
    if probabilities is None:
        return probability, probability
    if probabilities.ndim != 2 or len(probabilities) != len(codes):
        raise DataError(
            f"expected probabilities of shape ({len(codes)}, classes), got {probabilities.shape}: "
            "give a row for each truth"
        )
    known = np.flatnonzero(~np.isnan(codes))
    rows = probabilities[known]
    # Float32 softmax over many classes misses 1 by a few parts in a million.
    wrong = ~(np.isfinite(rows).all(axis=1) & (rows >= 0).all(axis=1) & (np.abs(rows.sum(axis=1) - 1) < 1e-3))
    if wrong.any():
        raise DataError(
            f"expected probabilities that are non-negative and sum to 1, {int(wrong.sum())} of "
            f"{len(rows)} rows are not: normalise them"
        )
    _check_classes(codes[known], probabilities.shape[1])
    probability[known] = rows[np.arange(len(rows)), codes[known].astype(np.int64)]
    return probability, probabilities.max(axis=1)


@dataclass(frozen=True)
class LabelMetric:
    """A metric of labels, as a function of sums over samples."""

    name: str
    parts: Callable[[LabelPredictions], Numbers]
    """(samples, parts): what is summed."""
    value: Callable[[Numbers], Numbers]
    """(..., parts) sums to (...) metrics, NaN where undefined."""
    lower_is_better: bool = False

    def of(self, predictions: LabelPredictions) -> float:
        """The metric of all samples; NaN where undefined."""
        return float(self.value(self.parts(predictions).sum(axis=0)))


def label_metrics(family: MetricFamily, classes: int = 0) -> list[LabelMetric]:
    """Every metric of a family, in the order that results are shown in.

    - ``mosi``: ``acc2`` and ``f1`` are of positive against negative, on the samples whose label isn't 0;
      ``acc2_has0`` and ``f1_has0`` of non-negative against negative, on all samples; ``acc7`` is equality
      after clipping to [-3, 3] and ``np.round``, which takes halves to the even number.
    - ``sims``: truth and value are clipped to [-1, 1] first, for ``mae`` and ``corr`` too. The two classes
      of ``acc2`` and ``f1`` are [-1, 0] and (0, 1]: no sample is left out, and 0 counts as negative.
    - F1 of two sides is weighted by how often each is the **truth**: with truth and prediction swapped, a
      model that predicts one class only would look far better than it is. ``macro_f1`` is the plain mean
      over the classes that occur in truth or prediction.
    - ``nll`` is the mean of -log p(truth), in nats; ``ece`` is |accuracy - confidence| by bins of
      confidence, weighted by the samples in each (Guo et al., 2017).

    Args:
        family: of metrics.
        classes: how many there are, for ``classes``.
    """
    if family == "none":
        return []
    if family == "mosi":
        found = [
            _accuracy("acc2", _positive, polar=True),
            _f1("f1", _positive, 2, weighted=True, polar=True),
            _accuracy("acc2_has0", _not_negative),
            _f1("f1_has0", _not_negative, 2, weighted=True),
            _accuracy("acc7", _degree),
            _mae(None),
            _corr(None),
        ]
    elif family == "sims":
        found = [
            _accuracy("acc2", _sims_class(2)),
            _f1("f1", _sims_class(2), 2, weighted=True),
            _accuracy("acc3", _sims_class(3)),
            _accuracy("acc5", _sims_class(5)),
            _mae(1.0),
            _corr(1.0),
        ]
    elif family == "classes":
        found = [
            _accuracy("accuracy", lambda numbers: numbers),
            _f1("macro_f1", lambda numbers: numbers, classes, weighted=False),
        ]
    else:
        found = [_mae(None), _corr(None)]
    return [*found, ECE, LabelMetric("nll", _nll_parts, _quotient, lower_is_better=True)]


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
    found = LabelPredictions.of(
        family, truth, value=value, label=label, probabilities=probabilities, degrees=degrees
    )
    return scores_of(found, family)


def scores_of(predictions: LabelPredictions, family: MetricFamily) -> Scores:
    """All metrics of a family, None where one is undefined."""
    classes = 0
    if family == "classes":
        numbers = np.concatenate([predictions.truth, predictions.predicted])
        classes = int(np.max(numbers, initial=0.0, where=~np.isnan(numbers))) + 1
    found = {metric.name: metric.of(predictions) for metric in label_metrics(family, classes)}
    return {name: None if np.isnan(number) else number for name, number in found.items()}


Code = Callable[[Numbers], Numbers]
"""Numbers to classes."""


def _accuracy(name: str, code: Code, *, polar: bool = False) -> LabelMetric:
    """The share of samples of the right class; ``polar`` leaves out truths of 0."""

    def parts(predictions: LabelPredictions) -> Numbers:
        counted, truth, predicted = _labelled(predictions, polar=polar)
        return np.column_stack([counted & (code(truth) == code(predicted)), counted]).astype(np.float64)

    return LabelMetric(name, parts, _quotient)


def _f1(name: str, code: Code, classes: int, *, weighted: bool, polar: bool = False) -> LabelMetric:
    """The mean of every class's F1, weighted by how often it is the truth or over those that occur."""

    def parts(predictions: LabelPredictions) -> Numbers:
        counted, truth, predicted = _labelled(predictions, polar=polar)
        numbers = np.arange(classes)
        of_truth = (code(truth)[:, None] == numbers) & counted[:, None]
        of_prediction = (code(predicted)[:, None] == numbers) & counted[:, None]
        return np.concatenate([of_truth & of_prediction, of_truth, of_prediction], axis=1).astype(np.float64)

    def value(sums: Numbers) -> Numbers:
        hits, support, predicted = (sums[..., part * classes : (part + 1) * classes] for part in range(3))
        scores = divide(2.0 * hits, support + predicted)
        weights = support if weighted else (~np.isnan(scores)).astype(np.float64)
        return divide(np.nansum(scores * weights, axis=-1), weights.sum(axis=-1))

    return LabelMetric(name, parts, value)


def _mae(limit: float | None) -> LabelMetric:
    def parts(predictions: LabelPredictions) -> Numbers:
        counted, truth, predicted = _labelled(predictions, limit=limit)
        return np.column_stack([np.abs(predicted - truth) * counted, counted])

    return LabelMetric("mae", parts, _quotient, lower_is_better=True)


def _corr(limit: float | None) -> LabelMetric:
    def parts(predictions: LabelPredictions) -> Numbers:
        counted, truth, predicted = _labelled(predictions, limit=limit)
        t, v = _deviations(truth, counted), _deviations(predicted, counted)
        return np.column_stack([counted, t, v, t * t, v * v, t * v])

    def value(sums: Numbers) -> Numbers:
        n, t, v, tt, vv, tv = np.moveaxis(sums, -1, 0)
        n = np.maximum(n, 1.0)
        spread_t, spread_v = tt - t * t / n, vv - v * v / n
        # relative to the sums of squares: what is left of a constant is rounding
        undefined = (spread_t <= 1e-12 * tt) | (spread_v <= 1e-12 * vv)
        product = np.sqrt(np.where(undefined, 1.0, spread_t * spread_v))
        return np.where(undefined, np.nan, np.clip((tv - t * v / n) / product, -1.0, 1.0))

    return LabelMetric("corr", parts, value)


def _deviations(numbers: Numbers, counted: BoolArray) -> Numbers:
    """From the mean of those that count, scaled to a largest one of 1: squares of tiny ones would vanish."""
    if not counted.any() or np.ptp(numbers[counted]) == 0:
        return np.zeros(len(numbers))
    deviations = np.where(counted, numbers - numbers[counted].mean(), 0.0)
    return np.asarray(deviations / np.abs(deviations).max(), np.float64)


def _nll_parts(predictions: LabelPredictions) -> Numbers:
    known = ~np.isnan(predictions.probability) & ~np.isnan(predictions.truth)
    cost = -np.log(np.maximum(np.where(known, predictions.probability, 1.0), FLOOR))
    return np.column_stack([cost * known, known])


def _ece_parts(predictions: LabelPredictions) -> Numbers:
    """How far right answers exceed confidence, in the column of the bin, and who counts."""
    probability, confidence = predictions.probability, predictions.confidence
    known = ~np.isnan(confidence) & ~np.isnan(probability) & ~np.isnan(predictions.truth)
    sure = np.where(known, confidence, 1.0)
    # the top answer is right where the truth was given the largest probability
    gap = np.where(known, (probability >= sure).astype(np.float64) - sure, 0.0)
    bins = np.zeros((len(known), BINS))
    bins[np.arange(len(known)), bins_of(sure)] = gap
    return np.column_stack([bins, known])


ECE = LabelMetric(
    "ece",
    _ece_parts,
    lambda sums: divide(np.abs(sums[..., :-1]).sum(axis=-1), sums[..., -1]),
    lower_is_better=True,
)


def bins_of(confidence: Numbers, bins: int = BINS) -> IntArray:
    """(samples,): the bin of each confidence, of equal widths over (0, 1], the right border included."""
    return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)


def _labelled(
    predictions: LabelPredictions, *, polar: bool = False, limit: float | None = None
) -> tuple[BoolArray, Numbers, Numbers]:
    """Who counts, and truths and predictions with zeros for the rest."""
    counted = ~np.isnan(predictions.truth) & ~np.isnan(predictions.predicted)
    if polar:
        counted &= predictions.truth != 0
    truth = np.where(counted, predictions.truth, 0.0)
    predicted = np.where(counted, predictions.predicted, 0.0)
    if limit is not None:
        truth, predicted = np.clip(truth, -limit, limit), np.clip(predicted, -limit, limit)
    return counted, truth, predicted


def _quotient(sums: Numbers) -> Numbers:
    return divide(sums[..., 0], sums[..., 1])


def divide(above: Numbers, below: Numbers) -> Numbers:
    """Quotients, NaN where there is nothing below."""
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def _positive(numbers: Numbers) -> Numbers:
    return (numbers > 0).astype(np.float64)


def _not_negative(numbers: Numbers) -> Numbers:
    return (numbers >= 0).astype(np.float64)


def _degree(numbers: Numbers) -> Numbers:
    return np.asarray(np.round(np.clip(numbers, -LIMIT, LIMIT)), np.float64)


def _sims_class(classes: int) -> Code:
    """Which of 2, 3 or 5 ordered classes; in single precision, as MMSA has it: 0.1 is on the border."""
    borders = np.array(CUT_POINTS[classes], np.float32)
    return lambda numbers: np.searchsorted(
        borders, np.clip(numbers, -1.0, 1.0).astype(np.float32), side="left"
    ).astype(np.float64)


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


def _requested(labels: Labels, requested: str) -> MetricFamily:
    fitting = ("classes",) if labels.kind == "classes" else ("mosi", "sims", "number")
    for family in get_args(MetricFamily):
        if family == requested and (family in fitting or family == "none"):
            chosen: MetricFamily = family
            return chosen
    raise ConfigError(
        f"--metrics: expected auto or {' or '.join(fitting)} for {labels.name} ({labels.kind}), "
        f"got {requested!r}: choose one of them"
    )
