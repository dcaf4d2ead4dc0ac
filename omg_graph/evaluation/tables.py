"""One method under one condition, sample by sample, with labels as the metrics count them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omg_graph.data.dataset import IntArray, Labels, Split
from omg_graph.errors import ConfigError, DataError, ModelError
from omg_graph.evaluation.outcomes import Outcomes, Pairs, Part, pooled_outcomes
from omg_graph.evaluation.protocols import Condition, Rate
from omg_graph.metrics.features import PooledRatio
from omg_graph.metrics.labels import MetricFamily, Numbers, Scores, choose_family, nearest_degrees, score
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

    def scores(
        self,
        truth: Numbers,
        value: Numbers | None,
        label: IntArray | None,
        probabilities: Numbers | None,
    ) -> Scores:
        """The family's metrics of some predictions."""
        if probabilities is not None and self.is_classes:
            # A class that the model has never met gets no probability: a miss, and no error.
            unknown = len(self.names) - probabilities.shape[1]
            probabilities = np.pad(probabilities, ((0, 0), (0, unknown)))
        degrees = None if self.is_classes or probabilities is None else self.degrees
        return score(
            self.family, truth, value=value, label=label, probabilities=probabilities, degrees=degrees
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
    family: str
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
    names: tuple[str, ...] = ()
    """Classes, or the degrees in words."""
    errors: dict[str, PooledRatio] = field(default_factory=dict)
    energy: dict[str, Numbers] = field(default_factory=dict)
    coverage: dict[str, PooledRatio] = field(default_factory=dict)
    confidence: Numbers | None = None
    """(samples,): the largest of the method's probabilities."""
    floor_seed: int | None = None
    """Which training of a trained floor; None of everything else."""

    def __len__(self) -> int:
        return len(self.ids)

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
    truths = labels_of(truth, target)[rows]
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
        truth=truths,
        value=_taken(outcomes.value, index),
        label=_taken(_labels(outcomes, target), index),
        probability=_probability(outcomes, truths, target, index),
        names=target.names if target.is_classes else target.degree_names,
        errors={name: ratio.take(index) for name, ratio in outcomes.errors.items()},
        energy={name: scores[index] for name, scores in outcomes.energy.items()},
        coverage={name: ratio.take(index) for name, ratio in outcomes.coverage.items()},
        confidence=_taken(_confidence(outcomes), index),
        floor_seed=outcomes.floor_seed,
    )


def labels_of(truth: Split, target: LabelTarget) -> Numbers:
    """(samples,): labels as the target counts them, NaN where there is none or none is scored."""
    if truth.labels is None or target.family == "none":
        return np.full(len(truth), np.nan)
    return target.numbers(truth.labels)


def result_row(
    outcomes: Outcomes,
    pairs: Pairs,
    condition: Condition,
    truth: Split,
    target: LabelTarget,
    model_seed: int,
) -> dict[str, Any]:
    """One row of ``metrics.json``; None where a metric is undefined."""
    rows, index = condition.rows, pairs.index(condition)
    observed, names = condition.observed, np.array(truth.names)
    row: dict[str, Any] = {
        "method": outcomes.method,
        "protocol": condition.protocol,
        "condition": condition.name,
        "observed": None if observed is None else names[observed].tolist(),
        "missing": None if observed is None else names[~observed].tolist(),
        "rate": condition.rate,
        "realised_rate": condition.realised_rate,
        "n": len(rows),
        "model_seed": model_seed,
        "floor_seed": outcomes.floor_seed,
        "mask_seed": condition.mask_seed,
    }
    if target.family != "none":
        row |= target.scores(
            labels_of(truth, target)[rows],
            None if outcomes.value is None else outcomes.value[index],
            None if outcomes.label is None else outcomes.label[index],
            None if outcomes.probabilities is None else outcomes.probabilities[index],
        )
    row["nmse"] = _known({name: ratio.take(index).value for name, ratio in outcomes.errors.items()})
    row["energy_score"] = _known({name: mean(rows_[index]) for name, rows_ in outcomes.energy.items()})
    row["coverage90"] = _known({name: ratio.take(index).value for name, ratio in outcomes.coverage.items()})
    for key, numbers in (
        ("c_sem", outcomes.semantic_cost),
        ("c_evi", outcomes.evidence_cost),
        ("same_polarity_share", outcomes.same_polarity),
        ("reranked_share", outcomes.reranked),
    ):
        row[key] = None if numbers is None else mean(numbers[index])
    return row


def mean(numbers: Numbers) -> float | None:
    """Of what is known; None of nothing."""
    known = numbers[~np.isnan(numbers)]
    return float(known.mean()) if len(known) else None


def _known(values: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _taken(numbers: Numbers | None, index: IntArray) -> Numbers:
    return np.full(len(index), np.nan) if numbers is None else numbers[index]


def _labels(outcomes: Outcomes, target: LabelTarget) -> Numbers | None:
    if outcomes.label is not None:
        return outcomes.label.astype(np.float64)
    if outcomes.probabilities is None or target.is_classes:
        return None
    return np.asarray(outcomes.probabilities.argmax(axis=1), np.float64)


def _confidence(outcomes: Outcomes) -> Numbers | None:
    return None if outcomes.probabilities is None else outcomes.probabilities.max(axis=1)


def _probability(outcomes: Outcomes, truths: Numbers, target: LabelTarget, index: IntArray) -> Numbers:
    out = np.full(len(index), np.nan)
    if outcomes.probabilities is None:
        return out
    codes = truths
    if not target.is_classes:
        if target.degrees is None:
            return out
        codes = nearest_degrees(truths, target.degrees)
    known = np.flatnonzero(~np.isnan(codes))
    place = codes[known].astype(np.int64)
    met = place < outcomes.probabilities.shape[1]
    out[known] = 0.0  # a class that the model has never met
    out[known[met]] = outcomes.probabilities[index[known[met]], place[met]]
    return out


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
            row = result_row(outcomes, part.pairs, condition, self.truth, target, seed)
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
                    f"{method.name}: expected labels measured alike in all folds, they differ: name a "
                    "family with --metrics"
                )
            pooled = pooled_outcomes([(part, outcomes) for part, outcomes, _ in found], len(self.pairs))
            self._keep_whole(pooled, target, method.model_seed, floor=method.floor)
        self.parts.clear()

    def _keep_whole(self, outcomes: Outcomes, target: LabelTarget, seed: int, *, floor: bool) -> None:
        rows, tables = (self.floor_rows, self.floor_tables) if floor else (self.rows, self.tables)
        for condition in self.conditions:
            arguments = (outcomes, self.pairs, condition, self.truth, target, seed)
            rows.append(result_row(*arguments) | {"fold": None})
            tables.append(sample_table(*arguments))
