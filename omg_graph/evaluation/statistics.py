"""Metrics as functions of sums over samples, so that thousands of resamples cost one matrix product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from omg_graph.evaluation.tables import SampleTable
from omg_graph.metrics.features import PooledRatio
from omg_graph.metrics.labels import BINS, FLOOR, LIMIT, Numbers, bins_of, sims_classes

Parts = Callable[[SampleTable], Numbers]
"""(samples, parts): what is summed."""
Value = Callable[[Numbers], Numbers]
"""(..., parts) sums to (...) metrics, NaN where undefined."""


@dataclass(frozen=True)
class Statistic:
    """A metric that depends on its samples through sums alone."""

    name: str
    parts: Parts
    value: Value
    lower_is_better: bool = False

    def of(self, table: SampleTable) -> float:
        """The metric of all samples of a table."""
        return float(self.value(self.parts(table).sum(axis=0)))


def statistics_of(tables: Sequence[SampleTable]) -> list[Statistic]:
    """Every statistic that is defined for some of these tables, in the order that results are shown in."""
    families = {table.family for table in tables}
    modalities = list(dict.fromkeys(name for table in tables for name in table.errors))
    family = next(iter(families)) if len(families) == 1 else "none"
    classes = max((len(table.names) for table in tables), default=0)
    found = [
        *_OF_FAMILY.get(family, []),
        *([accuracy_statistic("accuracy", _as_is), _macro_f1(classes)] if family == "classes" else []),
        *([] if family == "none" else [ECE, NLL]),
        _mean_ratio("nmse", modalities, lambda table, name: _ratio(table.errors, name, len(table)), True),
        _mean_ratio("energy_score", modalities, _energy, True),
        _mean_ratio(
            "coverage90", modalities, lambda table, name: _ratio(table.coverage, name, len(table)), False
        ),
    ]
    return [statistic for statistic in found if any(not np.isnan(statistic.of(table)) for table in tables)]


def accuracy_statistic(name: str, code: Callable[[Numbers], Numbers], polar: bool = False) -> Statistic:
    """The share of samples whose truth and prediction have the same code.

    Args:
        name: of the metric.
        code: numbers to classes.
        polar: whether samples whose truth is 0 are left out.
    """

    def parts(table: SampleTable) -> Numbers:
        counted, truth, predicted = _labelled(table, polar)
        return np.column_stack([counted & (code(truth) == code(predicted)), counted]).astype(np.float64)

    return Statistic(name, parts, _quotient)


def weighted_f1_statistic(name: str, code: Callable[[Numbers], Numbers], polar: bool = False) -> Statistic:
    """F1 of the two sides, weighted by how often each is the truth."""

    def parts(table: SampleTable) -> Numbers:
        counted, truth, predicted = _labelled(table, polar)
        return _class_counts(counted, code(truth), code(predicted), 2)

    def value(sums: Numbers) -> Numbers:
        scores, support = _f1(sums, 2)
        return _divide(np.nansum(scores * support, axis=-1), support.sum(axis=-1))

    return Statistic(name, parts, value)


def _macro_f1(classes: int) -> Statistic:
    def parts(table: SampleTable) -> Numbers:
        counted, truth, predicted = _labelled(table, False)
        return _class_counts(counted, truth, predicted, classes)

    def value(sums: Numbers) -> Numbers:
        scores, _ = _f1(sums, classes)
        return _divide(np.nansum(scores, axis=-1), (~np.isnan(scores)).sum(axis=-1))

    return Statistic("macro_f1", parts, value)


def _mae(limit: float | None) -> Statistic:
    def parts(table: SampleTable) -> Numbers:
        counted, truth, predicted = _labelled(table, False, limit)
        return np.column_stack([np.abs(predicted - truth) * counted, counted])

    return Statistic("mae", parts, _quotient, lower_is_better=True)


def _corr(limit: float | None) -> Statistic:
    def parts(table: SampleTable) -> Numbers:
        counted, truth, predicted = _labelled(table, False, limit)
        if not counted.any():
            return np.zeros((len(table), 6))
        # deviations from the table's own means: sums of squares then lose nothing to rounding
        t = np.where(counted, truth - truth[counted].mean(), 0.0)
        v = np.where(counted, predicted - predicted[counted].mean(), 0.0)
        return np.column_stack([counted, t, v, t * t, v * v, t * v])

    def value(sums: Numbers) -> Numbers:
        n, t, v, tt, vv, tv = np.moveaxis(sums, -1, 0)
        n = np.maximum(n, 1.0)
        spread_t, spread_v = tt - t * t / n, vv - v * v / n
        undefined = (spread_t <= 1e-12 * np.maximum(tt, 1e-300)) | (
            spread_v <= 1e-12 * np.maximum(vv, 1e-300)
        )
        product = np.sqrt(np.where(undefined, 1.0, spread_t * spread_v))
        return np.where(undefined, np.nan, np.clip((tv - t * v / n) / product, -1.0, 1.0))

    return Statistic("corr", parts, value)


def _nll_parts(table: SampleTable) -> Numbers:
    known = ~np.isnan(table.probability) & ~np.isnan(table.truth)
    cost = -np.log(np.maximum(np.where(known, table.probability, 1.0), FLOOR))
    return np.column_stack([cost * known, known])


def _ece_parts(table: SampleTable) -> Numbers:
    """How far right answers exceed confidence, in the column of the bin, and who counts."""
    confidence = np.full(len(table), np.nan) if table.confidence is None else table.confidence
    known = ~np.isnan(confidence) & ~np.isnan(table.probability) & ~np.isnan(table.truth)
    sure = np.where(known, confidence, 1.0)
    # the top answer is right where the truth was given the largest probability
    gap = np.where(known, (table.probability >= sure).astype(np.float64) - sure, 0.0)
    bins = np.zeros((len(table), BINS))
    bins[np.arange(len(table)), bins_of(sure)] = gap
    return np.column_stack([bins, known])


def _ece(sums: Numbers) -> Numbers:
    return _divide(np.abs(sums[..., :-1]).sum(axis=-1), sums[..., -1])


def _mean_ratio(
    name: str,
    modalities: Sequence[str],
    pair: Callable[[SampleTable, str], tuple[Numbers, Numbers]],
    lower_is_better: bool,
) -> Statistic:
    """A sum over a sum for each modality, averaged over the modalities where anything is scored."""

    def parts(table: SampleTable) -> Numbers:
        columns = [column for modality in modalities for column in pair(table, modality)]
        return np.column_stack(columns) if columns else np.zeros((len(table), 0))

    def value(sums: Numbers) -> Numbers:
        ratios = _divide(sums[..., 0::2], sums[..., 1::2])
        known = ~np.isnan(ratios)
        return _divide(np.where(known, ratios, 0.0).sum(axis=-1), known.sum(axis=-1))

    return Statistic(name, parts, value, lower_is_better)


def _ratio(ratios: Mapping[str, PooledRatio], name: str, samples: int) -> tuple[Numbers, Numbers]:
    ratio = ratios.get(name)
    if ratio is None:
        return np.zeros(samples), np.zeros(samples)
    return ratio.numerator, ratio.denominator


def _energy(table: SampleTable, name: str) -> tuple[Numbers, Numbers]:
    scores = table.energy.get(name, np.full(len(table), np.nan))
    known = ~np.isnan(scores)
    return np.where(known, scores, 0.0), known.astype(np.float64)


def _labelled(
    table: SampleTable, polar: bool, limit: float | None = None
) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], Numbers, Numbers]:
    """Who counts, and truths and predictions with zeros for the rest."""
    predicted = table.label if table.family == "classes" else table.value
    counted = ~np.isnan(table.truth) & ~np.isnan(predicted)
    if polar:
        counted = counted & (table.truth != 0)
    truth, prediction = np.where(counted, table.truth, 0.0), np.where(counted, predicted, 0.0)
    if limit is not None:
        truth, prediction = np.clip(truth, -limit, limit), np.clip(prediction, -limit, limit)
    return counted, truth, prediction


def _class_counts(
    counted: np.ndarray[tuple[int], np.dtype[np.bool_]], truth: Numbers, predicted: Numbers, classes: int
) -> Numbers:
    """(samples, 3 classes): hits, truths and predictions of each class."""
    numbers = np.arange(classes)
    of_truth = (truth[:, None] == numbers) & counted[:, None]
    of_prediction = (predicted[:, None] == numbers) & counted[:, None]
    return np.concatenate([of_truth & of_prediction, of_truth, of_prediction], axis=1).astype(np.float64)


def _f1(sums: Numbers, classes: int) -> tuple[Numbers, Numbers]:
    """(..., classes): F1, NaN of a class that doesn't occur, and how often each is the truth."""
    hits, support, predicted = (sums[..., part * classes : (part + 1) * classes] for part in range(3))
    return _divide(2.0 * hits, support + predicted), support


def _quotient(sums: Numbers) -> Numbers:
    return _divide(sums[..., 0], sums[..., 1])


def _divide(above: Numbers, below: Numbers) -> Numbers:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


def _as_is(numbers: Numbers) -> Numbers:
    return numbers


def _positive(numbers: Numbers) -> Numbers:
    return (numbers > 0).astype(np.float64)


def _not_negative(numbers: Numbers) -> Numbers:
    return (numbers >= 0).astype(np.float64)


def _degree(numbers: Numbers) -> Numbers:
    return np.asarray(np.round(np.clip(numbers, -LIMIT, LIMIT)), np.float64)


def _sims(classes: int) -> Callable[[Numbers], Numbers]:
    return lambda numbers: sims_classes(np.clip(numbers, -1.0, 1.0), classes).astype(np.float64)


ECE = Statistic("ece", _ece_parts, _ece, lower_is_better=True)
NLL = Statistic("nll", _nll_parts, _quotient, lower_is_better=True)

_OF_FAMILY: dict[str, list[Statistic]] = {
    "mosi": [
        accuracy_statistic("acc2", _positive, polar=True),
        weighted_f1_statistic("f1", _positive, polar=True),
        accuracy_statistic("acc2_has0", _not_negative),
        weighted_f1_statistic("f1_has0", _not_negative),
        accuracy_statistic("acc7", _degree),
        _mae(None),
        _corr(None),
    ],
    "sims": [
        accuracy_statistic("acc2", _sims(2)),
        weighted_f1_statistic("f1", _sims(2)),
        accuracy_statistic("acc3", _sims(3)),
        accuracy_statistic("acc5", _sims(5)),
        _mae(1.0),
        _corr(1.0),
    ],
    "number": [_mae(None), _corr(None)],
}
