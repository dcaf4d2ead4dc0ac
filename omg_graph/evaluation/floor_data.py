"""What floors learn from, what they are shown, and what they answer: all in a model's latent space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import BoolArray, IntArray, Split
from omg_graph.evaluation.targets import LabelTarget
from omg_graph.metrics.labelled import Numbers
from omg_graph.retriever.entries import KnowledgeBase

Blocks = dict[str, Numbers]
"""Modality to (samples, latent)."""


@dataclass(frozen=True)
class TrainingRows:
    """What floors are fitted on, in the model's latent space."""

    latents: Blocks
    """Zeros where a row misses the modality: the training mean."""
    observed: BoolArray
    """(samples, modalities)."""
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    labels: Numbers
    """(samples,): numbers or class indexes, NaN where there is none."""
    source: str
    """Where they come from, for people."""

    @property
    def slots(self) -> Numbers:
        """(samples, sum of widths): all latents side by side."""
        return np.concatenate(list(self.latents.values()), axis=1)


@dataclass(frozen=True)
class Shown:
    """Some pairs as a floor sees them."""

    latents: Blocks
    """Zeros where hidden."""
    visible: BoolArray
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    evidence: Blocks
    """What the model's retriever found, zeros where a modality is visible."""

    def zeros(self) -> Blocks:
        """The training mean of every modality."""
        return {name: np.zeros_like(part) for name, part in self.latents.items()}

    def slots(self, estimates: Blocks) -> Numbers:
        """All latents side by side, hidden ones replaced by the estimates."""
        parts = [
            np.where(self.visible[:, column : column + 1], self.latents[name], estimates[name])
            for column, name in enumerate(self.latents)
        ]
        return np.concatenate(parts, axis=1)


@dataclass
class Guess:
    """What a floor makes of some pairs."""

    latents: Blocks
    """Estimates of all modalities; empty where a floor predicts the label alone."""
    value: Numbers | None = None
    label: IntArray | None = None
    probabilities: Numbers | None = None
    draws: dict[str, Numbers] = field(default_factory=dict)
    """Modality to (draws, samples, latent); NaN rows where there are too few."""


def pattern_inputs(latents: Blocks, pattern: BoolArray) -> Numbers:
    """(samples, sum of widths): what a pattern, (modalities,), shows, side by side."""
    shown = [part for part, there in zip(latents.values(), pattern, strict=True) if there]
    return np.concatenate(shown, axis=1)


def rows_of_entries(kb: KnowledgeBase, names: Sequence[str], target: LabelTarget) -> TrainingRows:
    """The entries of a model's knowledge base, which are its training samples.

    Args:
        kb: the knowledge base, whose modalities come in any order.
        names: the model's modalities, in order.
        target: what labels mean.
    """
    return TrainingRows(
        latents={name: kb.values[name].astype(np.float64) for name in names},
        observed=np.stack([kb.has_value[name] for name in names], axis=1),
        ids=kb.ids,
        groups=kb.groups,
        labels=target.of_entries(kb),
        source=f"the {len(kb)} entries of the model's knowledge base",
    )


def rows_of_split(split: Split, space: LatentSpace, target: LabelTarget, source: str) -> TrainingRows:
    """The samples of a training file, in the model's latent space."""
    unlabelled = np.full(len(split), np.nan)
    return TrainingRows(
        latents={name: part.double().numpy() for name, part in space.encode(split).items()},
        observed=split.mask(),
        ids=split.ids,
        groups=split.groups,
        labels=unlabelled if split.labels is None else target.numbers(split.labels),
        source=source,
    )
