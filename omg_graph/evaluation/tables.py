"""One method under one condition, sample by sample: what is written, compared and resampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omg_graph.data.dataset import IntArray, Split
from omg_graph.evaluation.outcomes import Outcomes, Pairs
from omg_graph.evaluation.protocols import Condition, Rate
from omg_graph.evaluation.targets import LabelTarget
from omg_graph.metrics.calibration import nearest_degrees
from omg_graph.metrics.features import PooledRatio
from omg_graph.metrics.labelled import Numbers


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
