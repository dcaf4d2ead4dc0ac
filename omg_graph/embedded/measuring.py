"""A model on simulated clips beside the exact posterior, which no model can beat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from omg_graph.data.dataset import Split
from omg_graph.errors import DataError
from omg_graph.metrics.labels import score
from omg_graph.model.model import Model
from omg_graph.simulator import (
    AffectSimulator,
    content_posterior,
    normalised_squared_error,
    posterior_mean,
)
from omg_graph.training.validation import validate

SCORES = ("acc2", "acc7", "mae")


@dataclass(frozen=True)
class Figures:
    """Accuracy of label and hidden features in one pattern."""

    scores: dict[str, float]
    """``acc2``, ``acc7`` and ``mae`` of the predicted values."""
    nmse: dict[str, float]
    """Hidden modality to normalised squared error; 1 is the training mean's."""


@dataclass(frozen=True)
class Comparison:
    """One pattern of observed modalities."""

    observed: tuple[str, ...]
    model: Figures
    best: Figures
    """Of the exact posterior's means, which have the least squared error of all estimates."""


def compare(model: Model, simulator: AffectSimulator, split: Split) -> list[Comparison]:
    """Measures the model and the exact posterior on the same complete clips, the smallest patterns first.

    Both predict a value and are scored in the same way: the exact one's value is the mean degree.

    Raises:
        DataError: if the clips aren't complete, or have no labels.
    """
    if split.labels is None or not split.mask().all():
        raise DataError("expected complete clips with labels: give a split as the simulator makes it")
    made = []
    for row in validate(model, split, split, lambda *_: None)["rows"]:
        observed = tuple(row["observed"])
        figures = Figures({name: float(row[name]) for name in SCORES}, dict(row["nmse"]))
        made.append(Comparison(observed, figures, _best(simulator, split, observed)))
    return sorted(made, key=lambda row: (len(row.observed), row.observed))


def table(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """The comparison as lines of a Markdown table: the model's figure, then the best possible one."""
    yield "| observed | ACC2 | ACC7 | MAE | error of the missing modalities |"
    yield "| --- | --- | --- | --- | --- |"
    for row in comparisons:
        accuracies = [
            f"{100 * row.model.scores[name]:.1f} ({100 * row.best.scores[name]:.1f})" for name in SCORES[:2]
        ]
        mae = f"{row.model.scores['mae']:.2f} ({row.best.scores['mae']:.2f})"
        errors = ", ".join(
            f"{name} {value:.3f} ({row.best.nmse[name]:.3f})" for name, value in row.model.nmse.items()
        )
        yield f"| {', '.join(row.observed)} | {' | '.join(accuracies)} | {mae} | {errors or '-'} |"


def _best(simulator: AffectSimulator, split: Split, observed: Sequence[str]) -> Figures:
    missing = np.array([name not in observed for name in split.names])
    hidden = split.hide(np.tile(missing, (len(split), 1)))
    truth = np.zeros(0) if split.labels is None else split.labels.values
    scores = score("mosi", truth, value=content_posterior(simulator, hidden).expected_label())
    errors = {
        name: normalised_squared_error(
            simulator, name, posterior_mean(simulator, hidden, name), split.arrays[name]
        )
        for name in np.array(split.names)[missing].tolist()
    }
    return Figures({name: float(scores[name] or 0.0) for name in SCORES}, errors)
