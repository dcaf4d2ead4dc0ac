"""Kernel machines: ridge regression with a linear or Gaussian kernel, chosen by leaving out whole groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omg_graph.bench.baselines.fitted import Arrays
from omg_graph.data.dataset import IntArray
from omg_graph.metrics.labels import Numbers
from omg_graph.seeding import derived_seed

MOST_ROWS = 3000
"""Training rows a kernel is fitted on at most: its cost grows with the cube of their number."""
LINEAR = 0.0
"""The width that stands for the linear kernel."""
WIDTHS = (LINEAR, 0.25, 0.5, 1.0, 2.0)
"""Tried, as multiples of 1 / (summed variance of the inputs)."""
STRENGTHS = tuple(10.0**power for power in np.arange(-4.0, 3.5, 0.5))
"""Tried, as multiples of the kernel's mean diagonal."""


@dataclass(frozen=True)
class KernelMachine:
    """f(x) = intercept + sum over support rows i of k(x, x_i) weights_i.

    k is exp(-width |x - x_i|^2), or the inner product of centred inputs where the width is 0.
    """

    support: Numbers
    """(rows, inputs), centred."""
    centre: Numbers
    weights: Numbers
    """(rows, outputs)."""
    intercept: Numbers
    width: float

    def predict(self, x: Numbers) -> Numbers:
        """(samples, outputs)."""
        kernel = kernel_of(x - self.centre, self.support, self.width)
        return np.asarray(kernel @ self.weights + self.intercept, np.float64)

    @staticmethod
    def arrays(rows: IntArray, weights: Numbers, intercept: Numbers, width: float) -> Arrays:
        """What is kept of a machine: its support by row number, weights in single precision."""
        return {
            "rows": rows,
            "weights": weights.astype(np.float32),
            "intercept": intercept,
            "width": np.array([width]),
        }

    @classmethod
    def of(cls, arrays: Arrays, x: Numbers) -> KernelMachine:
        """A machine from what was kept, and the inputs it was fitted on."""
        centre = x.mean(axis=0)
        return cls(
            x[arrays["rows"]] - centre,
            centre,
            arrays["weights"].astype(np.float64),
            arrays["intercept"],
            float(arrays["width"][0]),
        )


@dataclass(frozen=True)
class KernelSearch:
    """Every kernel and strength on every fold."""

    held: Numbers
    """(rows, outputs): predictions of held-out rows, each block by its best kernel and strength."""
    best: list[tuple[float, float]]
    """Width and strength of each block."""

    @classmethod
    def over(cls, x: Numbers, y: Numbers, folds: IntArray, blocks: Sequence[slice]) -> KernelSearch:
        """Predict each fold from the others.

        Args:
            x: (rows, inputs).
            y: (rows, outputs).
            folds: (rows,), two at least.
            blocks: outputs that share a kernel and a strength.
        """
        held, lowest = np.zeros_like(y), np.full(len(blocks), np.inf)
        best = [(LINEAR, 1.0)] * len(blocks)
        centred = x - x.mean(axis=0)
        unit = 1.0 / max(float(np.square(centred).sum(axis=1).mean()), 1e-12)
        for multiple in WIDTHS:
            kernel = kernel_of(centred, centred, unit * multiple)
            strengths = np.array(STRENGTHS) * max(float(np.diag(kernel).mean()), 1e-12)
            predicted = _predicted(kernel, y, folds, strengths)
            errors = np.square(predicted - y[None])
            for number, block in enumerate(blocks):
                costs = errors[:, :, block].sum(axis=(1, 2))
                place = int(costs.argmin())
                if costs[place] < lowest[number]:
                    lowest[number] = costs[place]
                    best[number] = unit * multiple, float(strengths[place])
                    held[:, block] = predicted[place][:, block]
        return cls(held, best)

    def refitted(self, x: Numbers, y: Numbers, block: slice, number: int) -> Arrays:
        """One block on all rows, by its best kernel and strength: ``KernelMachine.of`` takes it."""
        width, strength = self.best[number]
        centred, mean = x - x.mean(axis=0), y[:, block].mean(axis=0)
        kernel = kernel_of(centred, centred, width) + strength * np.eye(len(x))
        weights = np.linalg.solve(kernel, y[:, block] - mean)
        return KernelMachine.arrays(np.arange(len(x)), weights, mean, width)


def kernel_of(x: Numbers, other: Numbers, width: float) -> Numbers:
    """(rows, other rows): the Gaussian kernel, or the inner products where the width is 0."""
    products = x @ other.T
    if width == LINEAR:
        return np.asarray(products, np.float64)
    distance = np.square(x).sum(axis=1)[:, None] + np.square(other).sum(axis=1)[None] - 2.0 * products
    return np.asarray(np.exp(-width * distance.clip(min=0.0)), np.float64)


def few_rows(rows: IntArray, seed: int) -> IntArray:
    """These rows, or as many of them as a kernel can bear, drawn by the seed."""
    if len(rows) <= MOST_ROWS:
        return rows
    drawn = np.random.default_rng(derived_seed(seed, "kernel rows")).permutation(rows)[:MOST_ROWS]
    return np.asarray(np.sort(drawn), np.int64)


def _predicted(kernel: Numbers, y: Numbers, folds: IntArray, strengths: Numbers) -> Numbers:
    """(strengths, rows, outputs): each fold predicted from the others."""
    predicted = np.zeros((len(strengths), *y.shape))
    for fold in np.unique(folds):
        inside, out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        mean = y[inside].mean(axis=0)
        values, vectors = np.linalg.eigh(kernel[np.ix_(inside, inside)])
        projected = vectors.T @ (y[inside] - mean)
        across = kernel[np.ix_(out, inside)] @ vectors
        for place, strength in enumerate(strengths):
            weighted = projected / (values.clip(min=0.0) + strength)[:, None]
            predicted[place, out] = across @ weighted + mean
    return predicted
