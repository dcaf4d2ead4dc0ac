"""Specialists: methods chosen, tuned and trained for one pattern alone, by leaving out whole groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from omg_graph.bench.baselines.fitted import Arrays, Fitting
from omg_graph.bench.baselines.machines import (
    KernelMachine,
    KernelSearch,
    Logistic,
    LogisticSearch,
    Perceptron,
    PerceptronSearch,
    SupportVectors,
    few_rows,
)
from omg_graph.data.dataset import BoolArray, IntArray
from omg_graph.evaluation.floor_data import (
    Guess,
    Shown,
    TrainingRows,
    blocks_of,
    encoded_labels,
    validation_folds,
    with_outputs,
)
from omg_graph.evaluation.floors import LABEL, Map, PatternMaps
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.metrics.labels import Numbers


@dataclass(frozen=True)
class Candidate:
    """A tuned method for one target of one pattern."""

    kind: str
    held: Numbers
    """(rows, outputs): predictions of held-out rows."""
    refitted: Callable[[], Arrays]
    """On all rows."""


class Specialist:
    """For every pattern and target the best of several methods, each tuned for them.

    Ridge, kernel ridge and a small perceptron for features; for a label also support vectors where it is a
    number, and logistic regression where it is a class. The one that predicts held-out groups of the
    training rows best is fitted on all of them: by squared error for features, by absolute error for
    numbers, by accuracy for classes.
    """

    name = "specialist"

    def __init__(self, fitting: Fitting) -> None:
        self.fitting = fitting

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Keep the rows: a pattern's methods are fitted when it is met."""
        self.rows, self.target = rows, target
        self.maps = PatternMaps(rows, rows.latents, self._of_pattern, encoded_labels(rows.labels, target))

    def predict(self, shown: Shown) -> Guess:
        """By the best method of each pair's pattern."""
        estimates, outputs = self.maps.predict(shown, shown.latents)
        return with_outputs(Guess(estimates), outputs, self.target)

    def _of_pattern(
        self, pattern: BoolArray, x: Numbers, wanted: dict[str, Numbers], chosen: IntArray
    ) -> dict[str, Map]:
        few = few_rows(len(x), self.fitting.seed)
        x, chosen = x[few], chosen[few]
        wanted = {name: y[few] for name, y in wanted.items()}
        arrays = self.fitting.arrays(
            self.name,
            {"pattern": pattern.tolist(), "targets": list(wanted)},
            self.rows,
            self.target,
            lambda: self._fitted(x, wanted, chosen),
        )
        kept: dict[int, dict[str, Arrays]] = {}
        for key, part in arrays.items():
            number, kind, what = key.split("/")
            kept.setdefault(int(number), {}).setdefault(kind, {})[what] = part
        return {
            name: _restored(kind, mine, x, y.shape[1])
            for number, (name, y) in enumerate(wanted.items())
            for kind, mine in kept[number].items()
        }

    def _fitted(self, x: Numbers, wanted: dict[str, Numbers], chosen: IntArray) -> Arrays:
        """The best candidate of each target on all rows, under the target's number and the kind."""
        folds = validation_folds([self.rows.groups[row] for row in chosen])
        arrays: Arrays = {}
        of_kernel = _kernel_candidates(x, wanted, folds)
        of_perceptron = self._perceptron_candidates(x, wanted, folds)
        for number, (name, y) in enumerate(wanted.items()):
            candidates = [of_kernel[name], of_perceptron[name]]
            if name == LABEL:
                candidates += self._of_label(x, y, folds)
            costs = [self._cost(name, candidate.held, y) for candidate in candidates]
            best = candidates[int(np.argmin(costs))]
            arrays |= {f"{number}/{best.kind}/{key}": part for key, part in best.refitted().items()}
        return arrays

    def _cost(self, name: str, held: Numbers, y: Numbers) -> float:
        if name != LABEL:
            return float(np.square(held - y).mean())
        if self.target.is_classes:
            return float((held.argmax(axis=1) != y.argmax(axis=1)).mean())
        return float(np.abs(held - y).mean())

    def _of_label(self, x: Numbers, y: Numbers, folds: IntArray) -> list[Candidate]:
        if not self.target.is_classes:
            found = SupportVectors.over(x, y[:, 0], folds)
            return [Candidate("kernel", found.held, lambda: found.refitted(x, y[:, 0]))]
        codes = y.argmax(axis=1).astype(np.int64)
        if len(np.unique(codes)) < 2:
            return []
        search = LogisticSearch.over(x, codes, folds, y.shape[1])
        return [Candidate("logistic", search.held, lambda: Logistic.fit(x, codes, search.cost).as_arrays())]

    def _perceptron_candidates(
        self, x: Numbers, wanted: dict[str, Numbers], folds: IntArray
    ) -> dict[str, Candidate]:
        seed = self.fitting.seed
        found = {}
        for names in ([name for name in wanted if name != LABEL], [LABEL] if LABEL in wanted else []):
            if not names:
                continue
            # each target at unit size, so that none drowns the others
            sizes = {name: max(float(np.sqrt(np.square(wanted[name]).mean())), 1e-12) for name in names}
            y = np.concatenate([wanted[name] / sizes[name] for name in names], axis=1)
            search = PerceptronSearch.over(x, y, folds, seed)
            network = cache(partial(search.refitted, x, y, seed))  # one serves all its targets
            for name, block in zip(names, blocks_of([wanted[name] for name in names]), strict=True):
                found[name] = Candidate(
                    "perceptron",
                    search.held[:, block] * sizes[name],
                    partial(_outputs_of, network, block, sizes[name]),
                )
        return found


class PatternLogistic:
    """A logistic regression for every pattern, on the label alone.

    Classes as they are. Of numbers on both sides of 0 it learns the sign, leaving zeros out: the value is
    2 p - 1, scaled to the labels. It is the specialist for ``acc2``.
    """

    name = "logistic per pattern"

    def __init__(self, fitting: Fitting) -> None:
        self.fitting = fitting

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Keep the rows: a pattern's regression is fitted when it is met."""
        self.rows, self.target = rows, target
        encoded = encoded_labels(rows.labels, target)
        if not target.is_classes:
            known = ~np.isnan(rows.labels) & (rows.labels != 0)
            self.scale = float(np.abs(rows.labels[known]).mean())
            sides = np.stack([rows.labels < 0, rows.labels > 0], axis=1).astype(np.float64)
            encoded = np.where(known[:, None], sides, np.nan)
        self.maps = PatternMaps(rows, rows.latents, self._of_pattern, encoded)

    def predict(self, shown: Shown) -> Guess:
        """The label, with probabilities of classes; how often each occurs where there are too few rows."""
        _, given = self.maps.predict(shown, shown.latents)
        if given is None:
            return Guess({})
        if self.target.is_classes:
            return with_outputs(Guess({}, probabilities=given), given, self.target)
        return Guess({}, value=(2.0 * given[:, 1] - 1.0) * self.scale)

    def _of_pattern(
        self, pattern: BoolArray, x: Numbers, wanted: dict[str, Numbers], chosen: IntArray
    ) -> dict[str, Map]:
        if LABEL not in wanted or (wanted[LABEL].sum(axis=0) > 0).sum() < 2:
            return {}
        codes, count = wanted[LABEL].argmax(axis=1).astype(np.int64), wanted[LABEL].shape[1]
        folds = validation_folds([self.rows.groups[row] for row in chosen])
        arrays = self.fitting.arrays(
            self.name,
            {"pattern": pattern.tolist()},
            self.rows,
            self.target,
            lambda: Logistic.fit(x, codes, LogisticSearch.over(x, codes, folds, count).cost).as_arrays(),
        )
        return {LABEL: _Classes(Logistic.of(arrays), count)}


@dataclass(frozen=True)
class _Classes:
    """A logistic regression that answers with a column for each class."""

    machine: Logistic
    count: int

    def predict(self, x: Numbers) -> Numbers:
        return self.machine.probabilities(x, self.count)


def _outputs_of(network: Callable[[], Arrays], block: slice, size: float) -> Arrays:
    """A perceptron with some of its outputs, in their own units."""
    arrays = network()
    return arrays | {name: arrays[name][block] * np.float32(size) for name in ("last.weight", "last.bias")}


def _kernel_candidates(x: Numbers, wanted: dict[str, Numbers], folds: IntArray) -> dict[str, Candidate]:
    y, blocks = np.concatenate(list(wanted.values()), axis=1), blocks_of(list(wanted.values()))
    search = KernelSearch.over(x, y, folds, blocks)
    return {
        name: Candidate(
            "kernel",
            search.held[:, block],
            partial(search.refitted, x, y, block, number),
        )
        for number, (name, block) in enumerate(zip(wanted, blocks, strict=True))
    }


def _restored(kind: str, arrays: Arrays, x: Numbers, outputs: int) -> Map:
    if kind == "kernel":
        return KernelMachine.of(arrays, x)
    if kind == "logistic":
        return _Classes(Logistic.of(arrays), outputs)
    return Perceptron.of(arrays)
