"""Methods tuned for one pattern by leaving out whole groups: kernels, support vectors, logistic, perceptron.

scikit-learn (the extra ``bench``) fits the support vectors and the logistic regressions. The kernel ridge is
ours: one decomposition a fold serves every strength. What is fitted is kept as plain arrays, never pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from omg_graph.bench.baselines.fitted import Arrays
from omg_graph.data.dataset import IntArray
from omg_graph.metrics.labels import Numbers
from omg_graph.seeding import derived_seed, seeded
from omg_graph.training.fitting import FitSettings, fit

if TYPE_CHECKING:
    from sklearn.svm import SVR

MOST_ROWS = 3000
"""Training rows a kernel is fitted on at most: its cost grows with the cube of their number."""
LINEAR = 0.0
"""The width that stands for the linear kernel."""
KERNEL_WIDTHS = (LINEAR, 0.25, 0.5, 1.0, 2.0)
"""Tried, as multiples of 1 / (summed variance of the inputs)."""
KERNEL_STRENGTHS = tuple(10.0**power for power in np.arange(-4.0, 3.5, 0.5))
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
        for multiple in KERNEL_WIDTHS:
            kernel = kernel_of(centred, centred, unit * multiple)
            strengths = np.array(KERNEL_STRENGTHS) * max(float(np.diag(kernel).mean()), 1e-12)
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


def few_rows(count: int, seed: int) -> IntArray:
    """The places of all rows, or of as many of them as a kernel can bear, drawn by the seed."""
    if count <= MOST_ROWS:
        return np.arange(count, dtype=np.int64)
    drawn = np.random.default_rng(derived_seed(seed, "kernel rows")).permutation(count)[:MOST_ROWS]
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


SVR_COSTS = (0.3, 1.0, 3.0)
"""C of support vector regression."""
SVR_WIDTHS = (0.5, 1.0)
"""Of its Gaussian kernel, as multiples of 1 / (summed variance of the inputs)."""
TUBE = 0.2
"""Errors that cost nothing, in deviations of the label."""
LOGISTIC_COSTS = (0.003, 0.03, 0.3)
"""C of logistic regression on inputs of unit mean square."""


def available() -> bool:
    """Whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


@dataclass(frozen=True)
class SupportVectors:
    """Support vector regression with a Gaussian kernel, C and width by leaving out whole groups."""

    held: Numbers
    """(rows, 1): predictions of held-out rows."""
    cost: float
    width: float

    @classmethod
    def over(cls, x: Numbers, y: Numbers, folds: IntArray) -> SupportVectors:
        """The C and width with the smallest absolute error on held-out folds.

        Args:
            x: (rows, inputs).
            y: (rows,).
            folds: (rows,), two at least.
        """
        unit = 1.0 / max(float(x.var(axis=0).sum()), 1e-12)
        best: tuple[float, SupportVectors] | None = None
        for width in SVR_WIDTHS:
            for cost in SVR_COSTS:
                held = np.zeros(len(y))
                for fold in np.unique(folds):
                    out = folds == fold
                    machine = _support_vectors(x[~out], y[~out], cost, unit * width)
                    held[out] = machine.predict(x[out])
                error = float(np.abs(held - y).mean())
                if best is None or error < best[0]:
                    best = error, cls(held[:, None], cost, unit * width)
        assert best is not None  # for the type checker
        return best[1]

    def refitted(self, x: Numbers, y: Numbers) -> Arrays:
        """On all rows: ``KernelMachine.of`` takes it."""
        machine = _support_vectors(x, y, self.cost, self.width)
        return KernelMachine.arrays(
            machine.support_.astype(np.int64), machine.dual_coef_.T, machine.intercept_, self.width
        )


@dataclass(frozen=True)
class LogisticSearch:
    """Every C of a logistic regression on every fold."""

    held: Numbers
    """(rows, count): probabilities of held-out rows at the best C."""
    cost: float

    @classmethod
    def over(cls, x: Numbers, codes: IntArray, folds: IntArray, count: int) -> LogisticSearch:
        """The C with the smallest log loss on held-out folds.

        Args:
            x: (rows, inputs).
            codes: (rows,) class indexes, two different ones at least.
            folds: (rows,), two at least.
            count: classes that there are.
        """
        best: tuple[float, LogisticSearch] | None = None
        for cost in LOGISTIC_COSTS:
            held = np.full((len(x), count), 1.0 / count)
            for fold in np.unique(folds):
                out = folds == fold
                if len(np.unique(codes[~out])) > 1:
                    held[out] = Logistic.fit(x[~out], codes[~out], cost).probabilities(x[out], count)
            loss = -float(np.log(np.maximum(held[np.arange(len(x)), codes], 1e-12)).mean())
            if best is None or loss < best[0]:
                best = loss, cls(held, cost)
        assert best is not None  # for the type checker
        return best[1]


@dataclass(frozen=True)
class Logistic:
    """Multinomial logistic regression."""

    classes: IntArray
    """(classes,): those that were met, ascending."""
    weights: Numbers
    """(inputs, classes)."""
    intercept: Numbers
    mean: Numbers
    scale: float
    """Inputs are centred, and divided by their root mean square."""

    @classmethod
    def fit(cls, x: Numbers, codes: IntArray, cost: float) -> Logistic:
        """On all rows.

        Args:
            x: (rows, inputs).
            codes: (rows,) class indexes, two different ones at least.
            cost: C.
        """
        from sklearn.linear_model import LogisticRegression

        mean = x.mean(axis=0)
        scale = max(float(np.sqrt(np.square(x - mean).mean())), 1e-12)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unfinished descent is a weaker candidate, and no fault
            machine = LogisticRegression(C=cost, max_iter=200).fit((x - mean) / scale, codes)
        weights, intercept = machine.coef_.T, machine.intercept_
        if len(machine.classes_) == 2:  # one column of logits for the second class
            weights = np.concatenate([np.zeros_like(weights), weights], axis=1)
            intercept = np.concatenate([[0.0], intercept])
        return cls(machine.classes_.astype(np.int64), weights, intercept, mean, scale)

    def probabilities(self, x: Numbers, count: int) -> Numbers:
        """(samples, count): zeros for classes that were never met."""
        logits = (x - self.mean) / self.scale @ self.weights + self.intercept
        exponential = np.exp(logits - logits.max(axis=1, keepdims=True))
        out = np.zeros((len(x), count))
        out[:, self.classes] = exponential / exponential.sum(axis=1, keepdims=True)
        return out

    def as_arrays(self) -> Arrays:
        """For the cache."""
        return {
            "classes": self.classes,
            "weights": self.weights,
            "intercept": self.intercept,
            "mean": self.mean,
            "scale": np.array([self.scale]),
        }

    @classmethod
    def of(cls, arrays: Arrays) -> Logistic:
        """From the cache."""
        return cls(
            arrays["classes"],
            arrays["weights"],
            arrays["intercept"],
            arrays["mean"],
            float(arrays["scale"][0]),
        )


def _support_vectors(x: Numbers, y: Numbers, cost: float, width: float) -> SVR:
    from sklearn import svm

    deviation = max(float(y.std()), 1e-12)
    return svm.SVR(C=cost * deviation, gamma=width, epsilon=TUBE * deviation).fit(x, y)


HIDDEN = 256
STEPS = FitSettings(epochs=40, batch_size=128, learning_rate=2e-3, weight_decay=1e-2)


@dataclass(frozen=True)
class PerceptronSearch:
    """Every epoch on every fold."""

    held: Numbers
    """(rows, outputs): predictions of held-out rows at the best epoch."""
    epochs: int

    @classmethod
    def over(cls, x: Numbers, y: Numbers, folds: IntArray, seed: int) -> PerceptronSearch:
        """Predict each fold from the others, after every epoch.

        Args:
            x: (rows, inputs).
            y: (rows, outputs), each block of about the same size.
            folds: (rows,), two at least.
            seed: of first weights, order and dropout.
        """
        predicted = np.zeros((STEPS.epochs, *y.shape))
        for fold in np.unique(folds):
            inside, out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            scaler = _Scaler.of(x[inside])
            made: list[Numbers] = []
            _train(
                scaler.inputs(x[inside]),
                y[inside],
                STEPS.epochs,
                derived_seed(seed, int(fold)),
                watched=(scaler.inputs(x[out]), made),
            )
            predicted[:, out] = np.stack(made)
        costs = np.square(predicted - y[None]).sum(axis=(1, 2))
        best = int(costs.argmin())
        return cls(predicted[best], best + 1)

    def refitted(self, x: Numbers, y: Numbers, seed: int) -> Arrays:
        """On all rows, for the best number of epochs: ``Perceptron.of`` takes it."""
        scaler = _Scaler.of(x)
        network = _train(scaler.inputs(x), y, self.epochs, seed)
        weights = {name: part.detach().numpy() for name, part in network.state_dict().items()}
        return weights | {"input_mean": scaler.mean, "input_scale": np.array([scaler.scale])}


@dataclass(frozen=True)
class Perceptron:
    """A trained perceptron."""

    network: nn.Module
    scaler: _Scaler

    @classmethod
    def of(cls, arrays: Arrays) -> Perceptron:
        """From what ``refitted`` gives."""
        scaler = _Scaler(arrays["input_mean"], float(arrays["input_scale"][0]))
        weights = {
            name: torch.from_numpy(part.copy())
            for name, part in arrays.items()
            if name not in ("input_mean", "input_scale")
        }
        network = _Network(len(scaler.mean), len(arrays["last.bias"]))
        network.load_state_dict(weights)
        return cls(network.eval(), scaler)

    def predict(self, x: Numbers) -> Numbers:
        """(samples, outputs)."""
        with torch.inference_mode():
            return np.asarray(self.network(self.scaler.inputs(x)).double().numpy(), np.float64)


@dataclass(frozen=True)
class _Scaler:
    mean: Numbers
    scale: float

    @classmethod
    def of(cls, x: Numbers) -> _Scaler:
        mean = x.mean(axis=0)
        return cls(mean, max(float(np.sqrt(np.square(x - mean).mean())), 1e-12))

    def inputs(self, x: Numbers) -> Tensor:
        return torch.from_numpy((x - self.mean) / self.scale).float()


class _Network(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.GELU(), nn.Dropout(0.3))
        self.last = nn.Linear(HIDDEN, outputs)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.last(self.hidden(x))
        return made


def _train(
    x: Tensor,
    y: Numbers,
    epochs: int,
    seed: int,
    watched: tuple[Tensor, list[Numbers]] | None = None,
) -> nn.Module:
    """A new network on all of ``x``; after each epoch its predictions of ``watched`` are kept."""
    with seeded(seed, "first weights"):
        network = _Network(x.shape[1], y.shape[1])
    nn.init.zeros_(network.last.weight)
    with torch.no_grad():
        network.last.bias.copy_(torch.from_numpy(y.mean(axis=0)))
    truth = torch.from_numpy(y).float()

    def order(epoch: int) -> IntArray:
        return np.random.default_rng(derived_seed(seed, "order", epoch)).permutation(len(y)).astype(np.int64)

    def loss(batch: IntArray, _epoch: int) -> Tensor:
        rows = torch.from_numpy(batch)
        made: Tensor = network(x[rows])
        return (made - truth[rows]).square().mean()

    def watch(_epoch: int, _of: int, _loss: float) -> None:
        if watched is not None:
            with torch.inference_mode():
                watched[1].append(network(watched[0]).double().numpy())

    steps = FitSettings(epochs, STEPS.batch_size, STEPS.learning_rate, STEPS.weight_decay)
    fit(network, loss, order, steps, seed=seed, purpose="perceptron", on_epoch=watch)
    return network
