"""What the best possible method reaches on synthetic clips, for every pattern of missing modalities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from omg_graph.data.dataset import Split
from omg_graph.errors import DataError
from omg_graph.simulator.content import DEGREES, Float64Array
from omg_graph.simulator.inference import content_posterior, posterior_mean
from omg_graph.simulator.process import AffectSimulator


@dataclass(frozen=True)
class PatternBounds:
    """The exact posterior's figures where ``observed`` is seen and the rest is hidden."""

    observed: tuple[str, ...]
    accuracy2: float
    """Share of right signs, over clips with a label other than 0."""
    accuracy7: float
    """Share of right degrees."""
    mae: float
    """Mean absolute error of the posterior median degree."""
    polarity_explained: float
    """Share of the variance of the label that its posterior mean explains."""
    strength_explained: float
    """Share of the variance of the label's absolute value that its posterior mean explains."""
    nmse: dict[str, float]
    """Hidden modality to the normalised squared error of its posterior mean; predicting the mean gives 1."""


def every_pattern(simulator: AffectSimulator) -> list[tuple[str, ...]]:
    """All non-empty sets of observed modalities, the smallest first."""
    names = simulator.names
    return [observed for size in range(1, len(names) + 1) for observed in combinations(names, size)]


def measure_bounds(simulator: AffectSimulator, split: Split) -> list[PatternBounds]:
    """Measures the exact posterior on complete clips, one entry a pattern.

    Raises:
        DataError: if the clips have no labels or miss something.
    """
    if split.labels is None or not split.mask().all():
        raise DataError(
            "complete clips with labels were expected: give a split as AffectSimulator.sample makes it"
        )
    truth = split.labels.values
    return [_pattern(simulator, split, truth, observed) for observed in every_pattern(simulator)]


def _pattern(
    simulator: AffectSimulator, split: Split, truth: Float64Array, observed: Sequence[str]
) -> PatternBounds:
    missing = np.array([name not in observed for name in split.names])
    hidden = split.hide(np.tile(missing, (len(split), 1)))
    probabilities = content_posterior(simulator, hidden).degree_probabilities()
    positive = probabilities[:, DEGREES > 0].sum(axis=1) > probabilities[:, DEGREES < 0].sum(axis=1)
    signed = truth != 0
    median = DEGREES[(np.cumsum(probabilities, axis=1) < 0.5).sum(axis=1)]
    return PatternBounds(
        observed=tuple(observed),
        accuracy2=float((positive == (truth > 0))[signed].mean()),
        accuracy7=float((DEGREES[probabilities.argmax(axis=1)] == truth).mean()),
        mae=float(np.abs(median - truth).mean()),
        polarity_explained=_explained(probabilities @ DEGREES, truth),
        strength_explained=_explained(probabilities @ np.abs(DEGREES), np.abs(truth)),
        nmse={
            name: normalised_squared_error(
                simulator, name, posterior_mean(simulator, hidden, name), split.arrays[name]
            )
            for name in split.names
            if name not in observed
        },
    )


def normalised_squared_error(
    simulator: AffectSimulator,
    modality: str,
    estimate: Float64Array,
    truth: np.ndarray[tuple[int, ...], np.dtype[np.floating]],
) -> float:
    """Squared error over squared deviation from the mean, on features standardised by their exact moments.

    Args:
        simulator: which made the clips, for the moments.
        modality: whose features these are.
        estimate: (samples, features).
        truth: (samples, features).
    """
    mean, sd = simulator.moments[modality]
    varies = sd > 0
    error = ((estimate - truth)[:, varies] / sd[varies]) ** 2
    deviation = ((truth - mean)[:, varies] / sd[varies]) ** 2
    return float(error.sum() / deviation.sum())


def _explained(estimate: Float64Array, truth: Float64Array) -> float:
    return float(1 - ((estimate - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())
