"""What scikit-learn fits for floors, kept as plain arrays; the extra ``bench`` installs it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from omg_graph.bench.baselines.fitted import Arrays
from omg_graph.bench.baselines.kernel import KernelMachine
from omg_graph.data.dataset import IntArray
from omg_graph.metrics.labels import Numbers

if TYPE_CHECKING:
    from sklearn.svm import SVR

COSTS = (0.3, 1.0, 3.0)
"""C of support vector regression."""
WIDTHS = (0.5, 1.0)
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
        for width in WIDTHS:
            for cost in COSTS:
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
