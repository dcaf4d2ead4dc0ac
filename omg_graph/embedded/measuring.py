"""A model on simulated clips beside the exact posterior, which no model can beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from omg_graph.model.model import Model
from omg_graph.samples.dataset import Split
from omg_graph.simulator import AffectSimulator, PatternBounds, measure_bounds
from omg_graph.training.validation import validate


@dataclass(frozen=True)
class Comparison:
    """One pattern of observed modalities: the model's figures, and the best possible ones."""

    observed: tuple[str, ...]
    nmse: dict[str, float]
    """Hidden modality to normalised squared error; 1 is the training mean's."""
    accuracy2: float
    """Share of right signs, over clips with a label other than 0."""
    accuracy7: float
    """Share of right degrees."""
    mae: float
    """Mean absolute error of the predicted value."""
    best: PatternBounds


def compare(model: Model, simulator: AffectSimulator, split: Split) -> list[Comparison]:
    """Measures the model and the exact posterior on the same complete clips, the smallest patterns first.

    Raises:
        DataError: if the clips aren't complete, or have no labels.
    """
    bounds = {frozenset(bound.observed): bound for bound in measure_bounds(simulator, split)}
    rows = validate(model, split, split, lambda *_: None)["rows"]
    made = [
        Comparison(
            observed=tuple(row["observed"]),
            nmse=dict(row["nmse"]),
            accuracy2=100 * float(row["acc2"]),
            accuracy7=100 * float(row["acc7"]),
            mae=float(row["mae"]),
            best=bounds[frozenset(row["observed"])],
        )
        for row in rows
    ]
    return sorted(made, key=lambda row: (len(row.observed), row.observed))


def table(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """The comparison as lines of a Markdown table: the model's figure, then the best possible one."""
    yield "| observed | ACC2 | ACC7 | MAE | error of what is missing |"
    yield "| --- | --- | --- | --- | --- |"
    for row in comparisons:
        errors = ", ".join(
            f"{name} {value:.2f} ({row.best.nmse[name]:.2f})" for name, value in row.nmse.items()
        )
        yield (
            f"| {', '.join(row.observed)} | {row.accuracy2:.1f} ({100 * row.best.accuracy2:.1f}) "
            f"| {row.accuracy7:.1f} ({100 * row.best.accuracy7:.1f}) "
            f"| {row.mae:.2f} ({row.best.mae:.2f}) | {errors or '-'} |"
        )


def plan_agreement(plans: Sequence[Sequence[str]], truths: Sequence[Sequence[str]]) -> list[float]:
    """Share of equal values, field by field."""
    return [float(np.mean([a == b for a, b in zip(x, y, strict=True)])) for x, y in zip(zip(*plans, strict=True), zip(*truths, strict=True), strict=True)]
