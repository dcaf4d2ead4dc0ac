"""One method under one condition, sample by sample, with labels as the metrics count them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omg_graph.data.dataset import IntArray, Labels, Split
from omg_graph.errors import ConfigError, DataError, ModelError
from omg_graph.evaluation.outcomes import Outcomes, Pairs, Part, pooled_outcomes
from omg_graph.evaluation.protocols import Condition, Rate
from omg_graph.metrics.features import PooledRatio, mean_of_known
from omg_graph.metrics.labels import (
    LabelMetric,
    LabelPredictions,
    MetricFamily,
    Numbers,
    choose_family,
    divide,
    label_metrics,
    scores_of,
)
from omg_graph.model.model import Model
from omg_graph.predictor.task import TaskHeadConfig
from omg_graph.retriever.entries import KnowledgeBase


@dataclass(frozen=True)
class LabelTarget:
    """What predictions are scored against."""

    family: MetricFamily
    names: tuple[str, ...] = ()
    """Classes, the model's first, in its order; those that only the data know come after."""
    degrees: tuple[float, ...] | None = None
    """The number behind each probability, where the model has such degrees."""
    degree_names: tuple[str, ...] = ()
    """The degrees in words."""

    @property
    def is_classes(self) -> bool:
        """Whether labels are classes, and not numbers."""
        return self.family == "classes"

    def numbers(self, labels: Labels) -> Numbers:
        """(samples,): the labels as numbers, or as indexes into ``names``.

        NaN where there is none, or a class that isn't among the names.
        """
        if not self.is_classes:
            return labels.values.astype(np.float64)
        place = {name: float(index) for index, name in enumerate(self.names)}
        renumbered = np.array([place.get(name, np.nan) for name in labels.class_names], np.float64)
        out = np.full(len(labels.values), np.nan)
        known = np.isfinite(labels.values)
        out[known] = renumbered[labels.values[known].astype(np.int64)]
        return out

    def of_entries(self, kb: KnowledgeBase) -> Numbers:
        """(entries,): the labels of a knowledge base, as ``numbers`` has them."""
        if kb.labels is None or self.family == "none":
            return np.full(len(kb), np.nan)
        place = {name: float(index) for index, name in enumerate(self.names)}
        return np.array([self._entry(label, place) for label in kb.labels], np.float64)

    def _entry(self, label: str | None, place: dict[str, float]) -> float:
        if label is None:
            return np.nan
        if self.is_classes:
            return place.get(label, np.nan)
        try:
            return float(label)
        except ValueError:
            return np.nan

    def predictions(
        self,
        truth: Numbers,
        value: Numbers | None,
        label: IntArray | None,
        probabilities: Numbers | None,
    ) -> LabelPredictions:
        """Some predictions as the family's metrics count them."""
        if self.family == "none":
            nothing = np.full(len(truth), np.nan)
            return LabelPredictions(nothing, nothing, nothing, nothing)
        if probabilities is not None and self.is_classes:
            # A class that the model has never met gets no probability: a miss, and no error.
            unknown = len(self.names) - probabilities.shape[1]
            probabilities = np.pad(probabilities, ((0, 0), (0, unknown)))
        if not self.is_classes and self.degrees is None:
            probabilities = None
        return LabelPredictions.of(
            self.family, truth, value=value, label=label, probabilities=probabilities, degrees=self.degrees
        )


def choose_target(model: Model, labels: Labels | None, requested: str) -> LabelTarget:
    """The family that is asked for, else the one in the model's manifest, else the one the labels suggest.

    Args:
        model: who predicts.
        labels: of the samples.
        requested: ``auto`` or a family.

    Raises:
        ConfigError: if the family doesn't suit the labels.
        DataError: if the model predicts numbers and the labels are classes, or the other way round.
    """
    head = model.executor.task
    if head is None or labels is None or not np.isfinite(labels.values).any():
        if requested not in ("auto", "none"):
            lacking = "the model was trained without labels" if head is None else "the data hold no labels"
            raise ConfigError(f"--metrics {requested}: {lacking}: leave --metrics out")
        return LabelTarget("none")
    predicts = "classes" if head.config.kind == "classes" else "regression"
    if labels.kind != predicts:
        raise DataError(
            f"{labels.name}: expected labels of the kind that the model predicts ({predicts}), "
            f"got {labels.kind}: name the right field with --label"
        )
    suits = model.config.metrics if model.config.metrics != "none" else "auto"
    family = choose_family(labels, suits if requested == "auto" else requested)
    words = head.config.names if head.config.kind == "degrees" else ()
    return LabelTarget(family, _names(head.config, labels), head.config.degrees or None, words)


def _names(head: TaskHeadConfig, labels: Labels) -> tuple[str, ...]:
    if head.kind != "classes":
        return ()
    return tuple(dict.fromkeys((*head.names, *labels.class_names)))


@dataclass(frozen=True)
class SampleTable:
    """Results of one method under one condition, mask seed and model seed; NaN where nothing is known."""

    method: str
    family: MetricFamily
    protocol: str
    condition: str
    rate: Rate
    mask_seed: int | None
    model_seed: int
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    observed: tuple[tuple[str, ...], ...]
    truth: Numbers
    """(samples,): numbers, or indexes into ``names``."""
    value: Numbers
    label: Numbers
    """(samples,): indexes into ``names``."""
    probability: Numbers
    """(samples,): what the method gave the truth's class or degree."""
    confidence: Numbers
    """(samples,): the largest of the method's probabilities."""
    names: tuple[str, ...] = ()
    """Classes, or the degrees in words."""
    errors: dict[str, PooledRatio] = field(default_factory=dict)
    energy: dict[str, Numbers] = field(default_factory=dict)
    coverage: dict[str, PooledRatio] = field(default_factory=dict)
    floor_seed: int | None = None
    """Which training of a trained floor; None of everything else."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> LabelPredictions:
        """What label metrics are computed from."""
        predicted = self.label if self.family == "classes" else self.value
        return LabelPredictions(self.truth, predicted, self.probability, self.confidence)

    @property
    def place(self) -> tuple[str, int | None]:
        """What pairs it with another method's table: condition and mask seed."""
        return self.condition, self.mask_seed


def sample_table(
    outcomes: Outcomes,
    pairs: Pairs,
    condition: Condition,
    truth: Split,
    target: LabelTarget,
    model_seed: int,
) -> SampleTable:
    """A method's outcomes under one condition."""
    rows, index = condition.rows, pairs.index(condition)
    names = np.array(truth.names)
    predictions = target.predictions(
        labels_of(truth, target)[rows],
        None if outcomes.value is None else outcomes.value[index],
        None if outcomes.label is None else outcomes.label[index],
        None if outcomes.probabilities is None else outcomes.probabilities[index],
    )
    return SampleTable(
        method=outcomes.method,
        family=target.family,
        protocol=condition.protocol,
        condition=condition.name,
        rate=condition.rate,
        mask_seed=condition.mask_seed,
        model_seed=model_seed,
        ids=tuple(truth.ids[row] for row in rows),
        groups=tuple(truth.groups[row] for row in rows),
        observed=tuple(tuple(names[shown].tolist()) for shown in condition.visible[rows]),
        truth=predictions.truth,
        value=np.full(len(index), np.nan) if outcomes.value is None else outcomes.value[index],
        label=_labels(outcomes, index),
        probability=predictions.probability,
        confidence=predictions.confidence,
        names=target.names if target.is_classes else target.degree_names,
        errors={name: ratio.take(index) for name, ratio in outcomes.errors.items()},
        energy={name: scores[index] for name, scores in outcomes.energy.items()},
        coverage={name: ratio.take(index) for name, ratio in outcomes.coverage.items()},
        floor_seed=outcomes.floor_seed,
    )


def labels_of(truth: Split, target: LabelTarget) -> Numbers:
    """(samples,): labels as the target counts them, NaN where there is none or none is scored."""
    if truth.labels is None or target.family == "none":
        return np.full(len(truth), np.nan)
    return target.numbers(truth.labels)


def _labels(outcomes: Outcomes, index: IntArray) -> Numbers:
    """(samples,): the predicted class, or the most probable degree."""
    labels = outcomes.label
    if labels is None and outcomes.probabilities is not None:
        labels = outcomes.probabilities.argmax(axis=1)
    return np.full(len(index), np.nan) if labels is None else labels[index].astype(np.float64)


def result_row(
    table: SampleTable, outcomes: Outcomes, pairs: Pairs, condition: Condition, truth: Split
) -> dict[str, Any]:
    """One row of ``metrics.json``, from a method's table under a condition; None where undefined."""
    index = pairs.index(condition)
    observed, names = condition.observed, np.array(truth.names)
    row: dict[str, Any] = {
        "method": table.method,
        "protocol": condition.protocol,
        "condition": condition.name,
        "observed": None if observed is None else names[observed].tolist(),
        "missing": None if observed is None else names[~observed].tolist(),
        "rate": condition.rate,
        "realised_rate": condition.realised_rate,
        "n": len(table),
        "model_seed": table.model_seed,
        "floor_seed": table.floor_seed,
        "mask_seed": condition.mask_seed,
    }
    row |= scores_of(table.labels, table.family)
    row["nmse"] = _known({name: ratio.value for name, ratio in table.errors.items()})
    row["energy_score"] = _known({name: mean_of_known(scores) for name, scores in table.energy.items()})
    row["coverage90"] = _known({name: ratio.value for name, ratio in table.coverage.items()})
    for key, numbers in (
        ("c_sem", outcomes.semantic_cost),
        ("c_evi", outcomes.evidence_cost),
        ("same_polarity_share", outcomes.same_polarity),
        ("reranked_share", outcomes.reranked),
    ):
        row[key] = None if numbers is None else mean_of_known(numbers[index])
    return row


def _known(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class TableMetric:
    """A metric of a table, as a function of sums over its samples."""

    name: str
    parts: Callable[[SampleTable], Numbers]
    """(samples, parts): what is summed."""
    value: Callable[[Numbers], Numbers]
    """(..., parts) sums to (...) metrics, NaN where undefined."""
    lower_is_better: bool = False

    def of(self, table: SampleTable) -> float:
        """The metric of all samples of a table."""
        return float(self.value(self.parts(table).sum(axis=0)))


def metrics_of(tables: Sequence[SampleTable]) -> list[TableMetric]:
    """Every metric that is defined for some of these tables, in the order that results are shown in."""
    families = {table.family for table in tables}
    family = families.pop() if len(families) == 1 else "none"
    classes = max((len(table.names) for table in tables), default=0)
    modalities = list(dict.fromkeys(name for table in tables for name in table.errors))
    found = [_of_table(metric) for metric in label_metrics(family, classes)]
    found += [
        _mean_ratio("nmse", modalities, lambda table: table.errors, lower_is_better=True),
        _mean_ratio("energy_score", modalities, _energy_ratios, lower_is_better=True),
        _mean_ratio("coverage90", modalities, lambda table: table.coverage),
    ]
    return [metric for metric in found if any(not np.isnan(metric.of(table)) for table in tables)]


def _of_table(metric: LabelMetric) -> TableMetric:
    return TableMetric(
        metric.name, lambda table: metric.parts(table.labels), metric.value, metric.lower_is_better
    )


def _mean_ratio(
    name: str,
    modalities: Sequence[str],
    ratios_of: Callable[[SampleTable], Mapping[str, PooledRatio]],
    *,
    lower_is_better: bool = False,
) -> TableMetric:
    """A sum over a sum for each modality, averaged over the modalities where anything is scored."""

    def parts(table: SampleTable) -> Numbers:
        out, ratios = np.zeros((len(table), 2, len(modalities))), ratios_of(table)
        for column, modality in enumerate(modalities):
            if modality in ratios:
                out[:, 0, column] = ratios[modality].numerator
                out[:, 1, column] = ratios[modality].denominator
        return out.reshape(len(table), -1)

    def value(sums: Numbers) -> Numbers:
        above, below = np.split(sums, 2, axis=-1)
        ratios = divide(above, below)
        known = ~np.isnan(ratios)
        return divide(np.where(known, ratios, 0.0).sum(axis=-1), known.sum(axis=-1))

    return TableMetric(name, parts, value, lower_is_better)


def _energy_ratios(table: SampleTable) -> dict[str, PooledRatio]:
    """Scores over how many there are."""
    known = {name: ~np.isnan(scores) for name, scores in table.energy.items()}
    return {
        name: PooledRatio(np.where(known[name], scores, 0.0), known[name].astype(np.float64))
        for name, scores in table.energy.items()
    }


def conditions_in_order(tables: Sequence[SampleTable]) -> list[str]:
    """The conditions' names, as they come first."""
    return list(dict.fromkeys(table.condition for table in tables))


@dataclass(frozen=True)
class _Method:
    """What a method's parts are put together by."""

    floor: bool
    name: str
    floor_seed: int | None
    model_seed: int


@dataclass
class Results:
    """Of the model and of its floors, condition by condition."""

    truth: Split
    pairs: Pairs
    conditions: Sequence[Condition]
    rows: list[dict[str, Any]] = field(default_factory=list)
    floor_rows: list[dict[str, Any]] = field(default_factory=list)
    fold_rows: list[dict[str, Any]] = field(default_factory=list)
    """Each fold by itself; ``rows`` and ``floor_rows`` are over all of them."""
    tables: list[SampleTable] = field(default_factory=list)
    floor_tables: list[SampleTable] = field(default_factory=list)
    parts: dict[_Method, list[tuple[Part, Outcomes, LabelTarget]]] = field(default_factory=dict)

    def keep(
        self, outcomes: Outcomes, target: LabelTarget, seed: int, *, floor: bool, part: Part | None = None
    ) -> None:
        """Take in what a method made of all pairs, or of the part that a fold held out."""
        if part is None:
            self._keep_whole(outcomes, target, seed, floor=floor)
            return
        for condition in part.conditions:
            table = sample_table(outcomes, part.pairs, condition, self.truth, target, seed)
            row = result_row(table, outcomes, part.pairs, condition, self.truth)
            self.fold_rows.append(row | {"fold": part.fold})
        method = _Method(floor, outcomes.method, outcomes.floor_seed, seed)
        self.parts.setdefault(method, []).append((part, outcomes, target))

    def finish(self) -> None:
        """Put folds together.

        Raises:
            ModelError: if the parts of a method don't make up a whole.
        """
        for method, found in self.parts.items():
            target = found[0][2]
            if any(other != target for _, _, other in found):
                raise ModelError(
                    f"{method.name}: expected the same metrics in all folds, got others: name a "
                    "family with --metrics"
                )
            pooled = pooled_outcomes([(part, outcomes) for part, outcomes, _ in found], len(self.pairs))
            self._keep_whole(pooled, target, method.model_seed, floor=method.floor)
        self.parts.clear()

    def _keep_whole(self, outcomes: Outcomes, target: LabelTarget, seed: int, *, floor: bool) -> None:
        rows, tables = (self.floor_rows, self.floor_tables) if floor else (self.rows, self.tables)
        for condition in self.conditions:
            tables.append(sample_table(outcomes, self.pairs, condition, self.truth, target, seed))
            row = result_row(tables[-1], outcomes, self.pairs, condition, self.truth)
            rows.append(row | {"fold": None})
