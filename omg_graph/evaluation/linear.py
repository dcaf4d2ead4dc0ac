"""Ridge regression whose strength is chosen by leaving out whole groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omg_graph.data.dataset import IntArray
from omg_graph.metrics.labelled import Numbers
from omg_graph.seeding import derived_seed

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
