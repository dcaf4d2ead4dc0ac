"""What floors learn from, are shown and answer, and the label codes and ridge that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import BoolArray, IntArray, Split
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.metrics.labels import Numbers, nearest_degrees
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.seeding import derived_seed

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


def encoded_labels(labels: Numbers, target: LabelTarget) -> Numbers | None:
    """(samples, outputs): the number, or a column for each class; NaN rows have no label.

    None where there is nothing to learn from.
    """
    if target.family == "none" or np.isnan(labels).all():
        return None
    if not target.is_classes:
        return labels[:, None]
    columns = np.where(
        np.isnan(labels)[:, None], np.nan, labels[:, None] == np.arange(len(target.names))[None]
    )
    return columns.astype(np.float64)


def with_outputs(guess: Guess, outputs: Numbers | None, target: LabelTarget) -> Guess:
    """The guess with regressed outputs, (samples, outputs), as its prediction; as it is without any."""
    if outputs is not None and target.is_classes:
        guess.label = outputs.argmax(axis=1)
    elif outputs is not None:
        guess.value = outputs[:, 0]
    return guess


def blocks_of(parts: Sequence[Numbers]) -> list[slice]:
    """Where each part lies when all are side by side."""
    ends = np.cumsum([part.shape[1] for part in parts]).tolist()
    return [slice(end - part.shape[1], end) for end, part in zip(ends, parts, strict=True)]


def class_codes(labels: Numbers, target: LabelTarget) -> tuple[Numbers, int] | None:
    """(samples,) class or degree indexes, NaN without a label, and how many there are; None of neither."""
    if target.is_classes:
        return labels, len(target.names)
    if target.degrees is None:
        return None
    return nearest_degrees(labels, target.degrees), len(target.degrees)


def label_frequencies(labels: Numbers, target: LabelTarget) -> Numbers | None:
    """(classes,): how often each class or degree occurs among labels that are all there."""
    codes = class_codes(labels, target)
    if codes is None:
        return None
    counts = np.bincount(codes[0].astype(np.int64), minlength=codes[1])
    return np.asarray(counts / counts.sum(), np.float64)


FOLDS = 5
STRENGTHS = tuple(10.0**power for power in np.arange(-4.0, 3.5, 0.5))
"""Tried, as multiples of the mean eigenvalue of the inputs' covariance."""


def group_folds(groups: Sequence[str], folds: int = FOLDS) -> IntArray:
    """(samples,): a fold for each, whole groups together; they depend on the groups' names alone."""
    names = sorted(set(groups))
    order = np.random.default_rng(derived_seed("folds", len(names))).permutation(len(names))
    fold_of = {names[place]: rank % min(folds, len(names)) for rank, place in enumerate(order)}
    return np.array([fold_of[group] for group in groups], np.int64)


def validation_folds(groups: Sequence[str]) -> IntArray:
    """(samples,): folds by group; by sample where all are of one group, so that there are two at least."""
    several = len(set(groups)) > 1
    return group_folds(groups if several else [str(number) for number in range(len(groups))])


@dataclass(frozen=True)
class Ridge:
    """A linear map with an intercept, its strength chosen for each block of outputs."""

    weights: Numbers
    """(inputs, outputs)."""
    input_mean: Numbers
    output_mean: Numbers

    @classmethod
    def fit(cls, x: Numbers, y: Numbers, folds: IntArray, blocks: Sequence[slice] = ()) -> Ridge:
        """Fit on all rows, with the strength that predicts held-out folds best.

        Args:
            x: (samples, inputs).
            y: (samples, outputs).
            folds: (samples,); with a single fold the strength is the middle one.
            blocks: outputs that share a strength; all of them by default.
        """
        parts = list(blocks) or [slice(0, y.shape[1])]
        errors = np.zeros((len(parts), len(STRENGTHS)))
        numbers = np.unique(folds)
        for fold in numbers if len(numbers) > 1 else ():
            held = folds == fold
            solver = _Solver(x[~held], y[~held])
            for column, strength in enumerate(STRENGTHS):
                residual = np.square(solver.predict(x[held], strength) - y[held])
                errors[:, column] += [residual[:, part].sum() for part in parts]
        best = errors.argmin(axis=1) if len(numbers) > 1 else [len(STRENGTHS) // 2] * len(parts)
        solver = _Solver(x, y)
        weights = np.zeros((x.shape[1], y.shape[1]))
        for part, place in zip(parts, best, strict=True):
            weights[:, part] = solver.weights(STRENGTHS[int(place)])[:, part]
        return cls(weights, solver.input_mean, solver.output_mean)

    def predict(self, x: Numbers) -> Numbers:
        """(samples, outputs)."""
        return np.asarray((x - self.input_mean) @ self.weights + self.output_mean, np.float64)


class _Solver:
    """One eigenvalue decomposition for all strengths, of the smaller Gram matrix."""

    def __init__(self, x: Numbers, y: Numbers) -> None:
        self.input_mean, self.output_mean = x.mean(axis=0), y.mean(axis=0)
        centred, target = x - self.input_mean, y - self.output_mean
        self.wide = x.shape[1] > len(x)
        gram = centred @ centred.T if self.wide else centred.T @ centred
        values, self.vectors = np.linalg.eigh(gram)
        self.values = values.clip(min=0.0)
        self.scale = max(float(self.values.sum()) / max(x.shape[1], 1), 1e-12)
        right = target if self.wide else centred.T @ target
        self.projected = self.vectors.T @ right
        self.centred = centred

    def weights(self, strength: float) -> Numbers:
        """(inputs, outputs)."""
        solved = self.vectors @ (self.projected / (self.values + strength * self.scale)[:, None])
        return np.asarray(self.centred.T @ solved if self.wide else solved, np.float64)

    def predict(self, x: Numbers, strength: float) -> Numbers:
        """(samples, outputs)."""
        return np.asarray((x - self.input_mean) @ self.weights(strength) + self.output_mean, np.float64)
