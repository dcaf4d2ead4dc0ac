"""Two trajectories of one sample side by side: what differs in plan, evidence and output."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import Field

from omg_graph.errors import DataError
from omg_graph.record.artifacts import Array, ArrayRef
from omg_graph.record.trajectory import (
    EvidenceEntry,
    Plan,
    Prediction,
    Record,
    Trajectory,
)

Get = Callable[[ArrayRef], Array | None]
"""An array by its reference; None where it isn't there."""


class FieldChange(Record):
    """One constraint of the plan that says something else."""

    field: str
    before: str | None
    after: str | None


class PlanComparison(Record):
    """The chosen plans."""

    before: str
    after: str
    changed: tuple[FieldChange, ...]
    chosen_by: tuple[str, str]
    log_probability: tuple[float | None, float | None]
    semantic_cost: tuple[float | None, float | None]
    score: tuple[float | None, float | None]

    @property
    def figures(self) -> dict[str, tuple[float | None, float | None]]:
        """The terms of Eq. 5, before and after, by their symbols."""
        return {"log p": self.log_probability, "C_sem": self.semantic_cost, "score": self.score}


class WeightChange(Record):
    """An entry that serves in one of the two, or in both."""

    id: str
    text: str
    source: str
    before: float | None = Field(description="Its weight; null where it doesn't serve.")
    after: float | None

    @property
    def change(self) -> str:
        """``new``, ``gone``, or nothing where it serves in both."""
        return "new" if self.before is None else "gone" if self.after is None else ""


class EvidenceComparison(Record):
    """The evidence for one modality."""

    entries: tuple[WeightChange, ...] = Field(description="The heaviest of either first.")
    moved: float = Field(description="Half the sum of the weights' changes: 0 the same, 1 nothing shared.")
    cost: tuple[float | None, float | None] = Field(description="C_evi (Eq. 9).")


class OutputComparison(Record):
    """What was reconstructed of one modality."""

    distance: float | None = Field(
        description="Root mean squared difference, each feature in deviations of the training data; null "
        "where arrays or deviations aren't there."
    )
    from_mean: float | None = Field(
        description="How far the first one is from the training mean, by the same measure: what the "
        "distance is to be compared with."
    )
    nmse: tuple[float | None, float | None] = Field(description="Against the hidden truth, if it is known.")


class TrajectoryComparison(Record):
    """One sample, before and after."""

    id: str
    same_input: bool = Field(description="Whether the same modalities were observed and missing.")
    plan: PlanComparison | None
    evidence: dict[str, EvidenceComparison]
    output: dict[str, OutputComparison]
    prediction: tuple[Prediction | None, Prediction | None]
    utility: tuple[float | None, float | None]
    notes: tuple[tuple[str, ...], tuple[str, ...]] = Field(description="Notes that only one of them has.")


def compare(
    before: Trajectory,
    after: Trajectory,
    arrays: tuple[Get, Get],
    scales: Callable[[str], tuple[Array, Array] | None],
) -> TrajectoryComparison:
    """What differs between two trajectories of a sample.

    Args:
        before: The one.
        after: The other.
        arrays: The arrays of each.
        scales: A modality's training mean and deviation, each in the modality's shape or one for each
            feature, in the input's units; None where nobody knows.

    Raises:
        DataError: if they are of different samples.
    """
    if before.id != after.id:
        raise DataError(f"expected two runs of one sample, got {before.id!r} and {after.id!r}")
    names = [name for name in before.missing if name in after.missing]
    plans = before.plan, after.plan
    return TrajectoryComparison(
        id=before.id,
        same_input=(before.observed, before.missing) == (after.observed, after.missing),
        plan=None if plans[0] is None or plans[1] is None else _plans(plans[0], plans[1]),
        evidence={name: _evidence(before, after, name) for name in names},
        output={name: _output(before, after, name, arrays, scales(name)) for name in names},
        prediction=(before.prediction, after.prediction),
        utility=(_total(before), _total(after)),
        notes=(
            tuple(note for note in before.notes if note not in after.notes),
            tuple(note for note in after.notes if note not in before.notes),
        ),
    )


def _plans(before: Plan, after: Plan) -> PlanComparison:
    values = [{link.field: link.value for link in plan.constraints} for plan in (before, after)]
    fields = dict.fromkeys((*values[0], *values[1]))
    winners = before.candidates[before.chosen], after.candidates[after.chosen]

    def both(name: str) -> tuple[float | None, float | None]:
        return getattr(winners[0], name), getattr(winners[1], name)

    return PlanComparison(
        before=before.text,
        after=after.text,
        changed=tuple(
            FieldChange(field=field, before=values[0].get(field), after=values[1].get(field))
            for field in fields
            if values[0].get(field) != values[1].get(field)
        ),
        chosen_by=(before.chosen_by, after.chosen_by),
        log_probability=both("log_probability"),
        semantic_cost=both("semantic_cost"),
        score=both("score"),
    )


def _evidence(before: Trajectory, after: Trajectory, name: str) -> EvidenceComparison:
    entries: tuple[dict[str, EvidenceEntry], ...] = tuple(
        {entry.id: entry for entry in trajectory.evidence.get(name, ())} for trajectory in (before, after)
    )
    weights = [{key: entry.weight for key, entry in kept.items()} for kept in entries]
    ids = sorted(
        entries[0] | entries[1],
        key=lambda key: (-max(weights[0].get(key, 0.0), weights[1].get(key, 0.0)), key),
    )
    change = sum(abs(weights[0].get(key, 0.0) - weights[1].get(key, 0.0)) for key in ids)
    return EvidenceComparison(
        entries=tuple(
            WeightChange(
                id=key,
                text=(entries[0] | entries[1])[key].text,
                source=(entries[0] | entries[1])[key].source,
                before=weights[0].get(key),
                after=weights[1].get(key),
            )
            for key in ids
        ),
        moved=change / 2,
        cost=(before.evidence_cost.get(name), after.evidence_cost.get(name)),
    )


def _output(
    before: Trajectory,
    after: Trajectory,
    name: str,
    arrays: tuple[Get, Get],
    scale: tuple[Array, Array] | None,
) -> OutputComparison:
    errors = before.errors.get(name), after.errors.get(name)
    nmse = tuple(None if error is None else error.nmse for error in errors)
    first, second = (
        get(trajectory.reconstruction[name]) if name in trajectory.reconstruction else None
        for get, trajectory in zip(arrays, (before, after), strict=True)
    )
    distance = from_mean = None
    if first is not None and second is not None and scale is not None and first.shape == second.shape:
        frames = max(before.lengths.get(name, 0), after.lengths.get(name, 0))
        inside = slice(frames or None)
        mean, deviation = scale
        distance = _root_mean_square((second - first)[inside], deviation)
        from_mean = _root_mean_square((first - mean)[inside], deviation)
    return OutputComparison(distance=distance, from_mean=from_mean, nmse=(nmse[0], nmse[1]))


def _root_mean_square(difference: Array, deviation: Array) -> float:
    return float(np.sqrt(np.mean((difference.astype(np.float64) / deviation) ** 2)))


def _total(trajectory: Trajectory) -> float | None:
    return None if trajectory.utility is None else trajectory.utility.total
