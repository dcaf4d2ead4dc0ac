"""Fit a floor and score it like the model: the same pairs, the same features, the same labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from omg_graph.data.dataset import Split
from omg_graph.evaluation.floor_data import Guess, Shown, TrainingRows
from omg_graph.evaluation.floors import Floor
from omg_graph.evaluation.outcomes import FeatureScorer, Outcomes, Pairs, gathered
from omg_graph.evaluation.targets import LabelTarget
from omg_graph.metrics.features import PooledRatio
from omg_graph.metrics.labelled import Numbers
from omg_graph.model.model import Model

BATCH = 256


def run_floor(
    floor: Floor,
    rows: TrainingRows,
    target: LabelTarget,
    *,
    model: Model,
    truth: Split,
    pairs: Pairs,
    evidence: dict[str, torch.Tensor],
    progress: Callable[[int, int], None] | None = None,
) -> Outcomes:
    """Fit a floor and score it on all pairs, exactly like the model."""
    floor.fit(rows, target)
    scorer = FeatureScorer(model.latent_space, truth)
    errors: dict[str, list[PooledRatio]] = {name: [] for name in model.names}
    energy: dict[str, list[Numbers]] = {name: [] for name in model.names}
    guesses: list[Guess] = []
    for part in pairs.batches(BATCH):
        shown = pairs.shown(truth, part)
        latents = model.latent_space.encode(shown)
        guess = floor.predict(
            Shown(
                latents={name: value.double().numpy() for name, value in latents.items()},
                visible=pairs.visible[part],
                ids=shown.ids,
                groups=shown.groups,
                evidence={name: value[part].double().numpy() for name, value in evidence.items()},
            )
        )
        for name in model.names:
            errors[name].append(_error(scorer, name, guess, pairs, part))
            energy[name].append(_energy(scorer, name, guess, pairs, part))
        guesses.append(guess)
        if progress is not None:
            progress(part.stop, len(pairs))
    return Outcomes(
        floor.name,
        value=_joined([guess.value for guess in guesses]),
        label=_joined([guess.label for guess in guesses]),
        probabilities=_joined([guess.probabilities for guess in guesses]),
        errors={name: gathered(parts) for name, parts in errors.items()},
        energy={name: np.concatenate(parts) for name, parts in energy.items()},
    )


def _error(scorer: FeatureScorer, name: str, guess: Guess, pairs: Pairs, part: slice) -> PooledRatio:
    """Squared error and deviation, 0 of 0 where a floor estimates no features."""
    if name not in guess.latents:
        zeros = np.zeros(part.stop - part.start)
        return PooledRatio(zeros, zeros.copy())
    return scorer.error(name, torch.from_numpy(guess.latents[name]).float(), pairs, part)


def _energy(scorer: FeatureScorer, name: str, guess: Guess, pairs: Pairs, part: slice) -> Numbers:
    """(pairs,): fair energy scores of a floor's draws, NaN where it has none."""
    scores = np.full(part.stop - part.start, np.nan)
    if name not in guess.draws:
        return scores
    drawn = guess.draws[name]
    chosen = np.flatnonzero(np.isfinite(drawn).all(axis=(0, 2)))
    few = Pairs(pairs.rows[part][chosen], pairs.visible[part][chosen])
    scores[chosen] = scorer.draws(name, torch.from_numpy(drawn[:, chosen]).float(), few, slice(0, len(few)))[
        0
    ]
    return scores


def _joined(parts: Sequence[npt.NDArray[Any] | None]) -> Any:
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None
