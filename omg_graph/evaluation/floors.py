"""Floors: what simple methods make of the same samples under the same masks.

A new one is a class with a name, ``fit`` and ``predict``. Those in closed form stand in ``floors_for``;
trained ones come in sets that packages register as entry points of ``omg_graph.floors``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch

from omg_graph.data.dataset import BoolArray, IntArray
from omg_graph.evaluation.floor_data import (
    Blocks,
    Guess,
    Ridge,
    Shown,
    TrainingRows,
    blocks_of,
    class_codes,
    encoded_labels,
    group_folds,
    label_frequencies,
    pattern_inputs,
    with_outputs,
)
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.metrics.labels import Numbers, label_metrics
from omg_graph.model.model import Model
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.retriever.retriever import OwnEntries

NEIGHBOURS = 10
ENOUGH = 10
"""Training rows that a linear map is fitted on at least; below that the mean stands in for it."""

CONSTANTS: dict[str, tuple[str, ...]] = {
    "mosi": ("acc2", "acc7", "mae"),
    "sims": ("acc2", "acc5", "mae"),
    "classes": ("accuracy",),
    "number": ("mae",),
}
"""Metrics of each family that a constant may be good at."""


class Floor(Protocol):
    """A method that needs no network of its own."""

    name: str

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Learn from training rows."""
        ...

    def predict(self, shown: Shown) -> Guess:
        """Estimate every hidden modality and the label."""
        ...


class FloorSet(Protocol):
    """Trained floors behind one name of ``--floors``, made without arguments once for an evaluation."""

    def floors(
        self, target: LabelTarget, seed: int, on_progress: Callable[[str, int, int], None]
    ) -> Sequence[Floor]:
        """The floors, to be trained with ``seed``; progress is what is fitted, done, of how much."""
        ...

    def note(self) -> str:
        """A line for the results, once all is fitted."""
        ...


class BestConstant:
    """The training mean for features; for labels the constant that the training labels make best."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.name = f"constant ({metric})"

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Try every label that occurs, rounded ones, the median and the mean on the training labels."""
        known = rows.labels[~np.isnan(rows.labels)]
        self.target, self.value, self.frequencies = target, float("nan"), None
        if not len(known) or target.family == "none":
            return
        self.frequencies = label_frequencies(known, target)
        if target.is_classes:
            self.value = float(np.bincount(known.astype(np.int64)).argmax())
            return
        candidates = np.unique([*np.round(known), *np.round(known, 1), np.median(known), known.mean()])
        metric = next(metric for metric in label_metrics(target.family) if metric.name == self.metric)
        sign = -1.0 if metric.lower_is_better else 1.0
        scores = [
            sign * metric.of(target.predictions(known, np.full(len(known), value), None, None))
            for value in candidates
        ]
        best = np.flatnonzero(np.isclose(scores, max(scores), rtol=0.0, atol=1e-12))
        # among equals the one nearest to the median: it does best by the other metrics
        nearest = np.abs(candidates[best] - np.median(known)).argmin()
        self.value = float(candidates[best[nearest]])

    def predict(self, shown: Shown) -> Guess:
        """The same for everyone."""
        guess, samples = Guess(shown.zeros()), len(shown.ids)
        if not np.isnan(self.value):
            if self.target.is_classes:
                guess.label = np.full(samples, int(self.value), dtype=np.int64)
            else:
                guess.value = np.full(samples, self.value)
            if self.frequencies is not None:
                guess.probabilities = np.tile(self.frequencies, (samples, 1))
        return guess


class MeanFill:
    """Training means for what is hidden, and a ridge on all slots for the label."""

    name = "mean fill + ridge"

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Fit the ridge; means are zero in latent units."""
        self.head = SlotRidge(rows, target)

    def predict(self, shown: Shown) -> Guess:
        """Zeros, and the label from what is visible."""
        return self.head.completed(shown, shown.zeros())


class EvidenceFill:
    """The model's evidence itself for what is hidden, and a ridge on all slots for the label."""

    name = "evidence + ridge"

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Fit the ridge; the evidence comes with the pairs."""
        self.head = SlotRidge(rows, target)

    def predict(self, shown: Shown) -> Guess:
        """E of Eq. 8."""
        return self.head.completed(shown, shown.evidence)


class GaussianFill:
    """The conditional mean under one joint Gaussian, and a ridge on all slots for the label."""

    name = "Gaussian conditional + ridge"

    def __init__(self, ridges: torch.Tensor) -> None:
        self.ridges = ridges

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Fit mean and covariance by EM; the ridges are those that training chose."""
        latents = {name: torch.from_numpy(part).float() for name, part in rows.latents.items()}
        self.gaussian = GaussianConditional.of(latents, torch.from_numpy(rows.observed))
        self.gaussian.ridges.copy_(self.ridges)
        self.head = SlotRidge(rows, target)

    def predict(self, shown: Shown) -> Guess:
        """In closed form, for any pattern."""
        latents = {name: torch.from_numpy(part).float() for name, part in shown.latents.items()}
        visible = torch.from_numpy(shown.visible)
        with torch.inference_mode():
            filled = {
                name: self.gaussian.conditional(name, latents, visible).double().numpy() for name in latents
            }
        return self.head.completed(shown, filled)


class Neighbours:
    """The mean of the ten nearest training rows, by distance over the views that both have.

    The neighbours of a hidden modality serve as its draws. A sample's own group never takes part.
    """

    name = f"{NEIGHBOURS} nearest neighbours"

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Keep the rows."""
        self.rows, self.target = rows, target
        self.own = OwnEntries(rows.ids, rows.groups)

    def predict(self, shown: Shown) -> Guess:
        """Means, votes and neighbours."""
        distance = self._distances(shown)
        guess = Guess(shown.zeros())
        for column, (name, values) in enumerate(self.rows.latents.items()):
            nearest, there = self._nearest(distance, self.rows.observed[:, column])
            weight = there / np.maximum(there.sum(axis=1, keepdims=True), 1)
            guess.latents[name] = np.einsum("nk,nkd->nd", weight, values[nearest])
            enough = there.sum(axis=1) == NEIGHBOURS
            if enough.any():
                draws = np.where(enough[:, None, None], values[nearest], np.nan)
                guess.draws[name] = draws.transpose(1, 0, 2)
        labelled = ~np.isnan(self.rows.labels)
        if self.target.family != "none" and labelled.any():
            self._vote(guess, distance, labelled)
        return guess

    def _vote(self, guess: Guess, distance: Numbers, labelled: BoolArray) -> None:
        nearest, there = self._nearest(distance, labelled)
        weight = there / np.maximum(there.sum(axis=1, keepdims=True), 1)
        known = self.rows.labels[labelled]
        lonely = ~there.any(axis=1)
        codes = class_codes(self.rows.labels, self.target)
        if codes is not None:
            classes, count = codes
            votes = np.zeros((len(nearest), count))
            for place in range(nearest.shape[1]):
                np.add.at(
                    votes,
                    (np.arange(len(nearest)), np.nan_to_num(classes[nearest[:, place]]).astype(np.int64)),
                    weight[:, place],
                )
            votes[lonely] = label_frequencies(known, self.target)
            guess.probabilities = votes
        if self.target.is_classes:
            assert guess.probabilities is not None  # for the type checker
            guess.label = guess.probabilities.argmax(axis=1)
        else:
            values = (weight * np.nan_to_num(self.rows.labels)[nearest]).sum(axis=1)
            guess.value = np.where(lonely, known.mean(), values)

    def _distances(self, shown: Shown) -> Numbers:
        """(pairs, rows): mean squared distance over shared views; infinite where a row may not serve."""
        rows = self.rows
        total = np.zeros((len(shown.ids), len(rows.ids)))
        widths = np.zeros_like(total)
        for column, (name, values) in enumerate(rows.latents.items()):
            shared = shown.visible[:, column : column + 1] & rows.observed[:, column][None]
            mine = shown.latents[name]
            squared = (
                np.square(mine).sum(axis=1)[:, None]
                + np.square(values).sum(axis=1)[None]
                - 2.0 * mine @ values.T
            )
            total += np.where(shared, squared.clip(min=0.0), 0.0)
            widths += shared * values.shape[1]
        allowed = self.own.allowed(shown.ids, shown.groups) & (widths > 0)
        return np.where(allowed, total / np.maximum(widths, 1), np.inf)

    def _nearest(self, distance: Numbers, usable: BoolArray) -> tuple[IntArray, BoolArray]:
        """(pairs, ten) rows, and whether each place is filled; ties go to the earlier row."""
        limited = np.where(usable[None], distance, np.inf)
        order = np.argsort(limited, axis=1, kind="stable")[:, :NEIGHBOURS]
        there = np.isfinite(np.take_along_axis(limited, order, axis=1))
        return order.astype(np.int64), there


LABEL = ""
"""Stands for the label among the names of what is estimated."""


class Map(Protocol):
    """Something fitted for one pattern and target."""

    def predict(self, x: Numbers) -> Numbers:
        """(samples, outputs)."""
        ...


FitMaps = Callable[[BoolArray, Numbers, dict[str, Numbers], IntArray], Mapping[str, Map]]
"""(pattern, inputs, target to outputs, which rows these are) to a map for each target it can fit."""


class PatternMaps:
    """Maps of their own for every pattern and target, fitted when the pattern is met.

    Args:
        rows: what is learned from.
        inputs: of the rows, by modality; a pattern's are put side by side.
        fit: fits the targets that are known in the same rows, so that they can share what depends on the
            inputs alone. Fewer than ``ENOUGH`` rows teach nothing: the mean stands in.
        encoded: (samples, outputs) of the label, rows of NaN where there is none; None without labels.
    """

    def __init__(self, rows: TrainingRows, inputs: Blocks, fit: FitMaps, encoded: Numbers | None) -> None:
        self.rows, self.inputs, self.fit, self.encoded = rows, inputs, fit, encoded
        self.maps: dict[bytes, dict[str, Map]] = {}

    def predict(self, shown: Shown, inputs: Blocks) -> tuple[Blocks, Numbers | None]:
        """Estimates of what is hidden and (samples, outputs) of the label, by each pair's pattern."""
        estimates = shown.zeros()
        outputs = None
        if self.encoded is not None:
            outputs = np.tile(np.nanmean(self.encoded, axis=0), (len(shown.ids), 1))
        patterns, places = np.unique(shown.visible, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            which = np.flatnonzero(places.reshape(-1) == number)
            x = pattern_inputs(inputs, pattern)[which]
            for name, fitted in self._of(pattern).items():
                into = outputs if name == LABEL and outputs is not None else estimates[name]
                into[which] = fitted.predict(x)
        return estimates, outputs

    def _of(self, pattern: BoolArray) -> dict[str, Map]:
        """Hidden modality, and ``LABEL``, to its map."""
        key = pattern.tobytes()
        if key in self.maps:
            return self.maps[key]
        rows, x = self.rows, pattern_inputs(self.inputs, pattern)
        given = rows.observed[:, pattern].all(axis=1)
        wanted: dict[str, tuple[Numbers, BoolArray]] = {
            name: (part, np.asarray(given & rows.observed[:, column], np.bool_))
            for column, (name, part) in enumerate(rows.latents.items())
            if not pattern[column]
        }
        if self.encoded is not None:
            labelled = ~np.isnan(self.encoded).any(axis=1)
            wanted[LABEL] = self.encoded, np.asarray(given & labelled, np.bool_)
        together: dict[bytes, list[str]] = {}
        for name, (_, known) in wanted.items():
            together.setdefault(known.tobytes(), []).append(name)
        made: dict[str, Map] = {}
        for names in together.values():
            chosen = np.flatnonzero(wanted[names[0]][1])
            if len(chosen) >= ENOUGH:
                outputs = {name: wanted[name][0][chosen] for name in names}
                made |= self.fit(pattern, x[chosen], outputs, chosen)
        self.maps[key] = made
        return made


def ridge_maps(x: Numbers, wanted: Mapping[str, Numbers], folds: IntArray) -> dict[str, Map]:
    """A ridge for each target, by one decomposition of the inputs."""
    blocks = blocks_of(list(wanted.values()))
    ridge = Ridge.fit(x, np.concatenate(list(wanted.values()), axis=1), folds, blocks)
    return {
        name: Ridge(ridge.weights[:, block], ridge.input_mean, ridge.output_mean[block])
        for name, block in zip(wanted, blocks, strict=True)
    }


class PatternRidge:
    """A ridge of its own for every pattern and hidden modality, and one for the label."""

    name = "ridge per pattern"

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Keep the rows: maps are fitted when their pattern is met."""
        folds, self.target = group_folds(rows.groups), target
        self.maps = PatternMaps(
            rows,
            rows.latents,
            lambda _pattern, x, wanted, chosen: ridge_maps(x, wanted, folds[chosen]),
            encoded_labels(rows.labels, target),
        )

    def predict(self, shown: Shown) -> Guess:
        """By the maps of each pair's pattern."""
        estimates, outputs = self.maps.predict(shown, shown.latents)
        return with_outputs(Guess(estimates), outputs, self.target)


class SlotRidge:
    """The label from all slots, hidden ones filled: fitted once, on training rows as they are."""

    def __init__(self, rows: TrainingRows, target: LabelTarget) -> None:
        self.target, self.ridge = target, None
        encoded = encoded_labels(rows.labels, target)
        self.constant = None if encoded is None else np.nanmean(encoded, axis=0)
        if encoded is None:
            return
        known = ~np.isnan(encoded).any(axis=1)
        if known.sum() >= ENOUGH:
            self.ridge = Ridge.fit(rows.slots[known], encoded[known], group_folds(rows.groups)[known])

    def completed(self, shown: Shown, estimates: Blocks) -> Guess:
        """The estimates, with the label that they lead to."""
        guess = Guess(dict(estimates))
        if self.constant is not None:
            outputs = np.tile(self.constant, (len(shown.ids), 1))
            if self.ridge is not None:
                outputs = self.ridge.predict(shown.slots(estimates))
            with_outputs(guess, outputs, self.target)
        return guess


CLOSED = tuple(kind.name for kind in (MeanFill, Neighbours, PatternRidge, GaussianFill, EvidenceFill))
"""Names of those in closed form but constants."""


def floors_for(model: Model, target: LabelTarget) -> list[Floor]:
    """Every floor that makes sense for a target, the simplest first."""
    constants = [BestConstant(metric) for metric in CONSTANTS.get(target.family, ())]
    parts = (part for part in model.executor.modules() if isinstance(part, GaussianConditional))
    gaussian = next(parts, None)
    ridges = torch.ones(len(model.names)) if gaussian is None else gaussian.ridges.detach().cpu()
    return [*constants, MeanFill(), Neighbours(), PatternRidge(), GaussianFill(ridges), EvidenceFill()]
