"""Specialists: methods chosen, tuned and trained for one pattern alone, by leaving out whole groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Protocol

import numpy as np

from omg_graph.bench.baselines.fitted import Arrays, Fitting
from omg_graph.bench.baselines.kernel import KernelMachine, KernelSearch, few_rows
from omg_graph.bench.baselines.library import Logistic, LogisticSearch, SupportVectors
from omg_graph.bench.baselines.perceptron import Perceptron, PerceptronSearch
from omg_graph.data.dataset import BoolArray, IntArray
from omg_graph.evaluation.floor_data import (
    Guess,
    Shown,
    TrainingRows,
    encoded_labels,
    pattern_inputs,
    set_outputs,
    validation_folds,
)
from omg_graph.evaluation.floors import ENOUGH
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.metrics.labels import Numbers

LABEL = ""
"""Stands for the label among the names of what is estimated."""


class Machine(Protocol):
    """Something fitted."""

    def predict(self, x: Numbers) -> Numbers:
        """(samples, outputs)."""
        ...


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
        self.encoded = encoded_labels(rows.labels, target)
        self.machines: dict[bytes, dict[str, Machine | None]] = {}

    def predict(self, shown: Shown) -> Guess:
        """By the machines of each pair's pattern."""
        guess = Guess(shown.zeros())
        outputs = None if self.encoded is None else np.zeros((len(shown.ids), self.encoded.shape[1]))
        patterns, places = np.unique(shown.visible, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            which = np.flatnonzero(places == number)
            x = pattern_inputs(shown.latents, pattern)[which]
            for name, machine in self._of_pattern(pattern).items():
                if name != LABEL and machine is not None:
                    guess.latents[name][which] = machine.predict(x)
                elif outputs is not None and self.encoded is not None and name == LABEL:
                    mean = np.nanmean(self.encoded, axis=0)
                    outputs[which] = mean if machine is None else machine.predict(x)
        if outputs is not None:
            set_outputs(guess, outputs, self.target)
        return guess

    def _of_pattern(self, pattern: BoolArray) -> dict[str, Machine | None]:
        """Hidden modality (and ``LABEL``) to its machine; None where too few rows can teach it."""
        key = pattern.tobytes()
        if key not in self.machines:
            rows, x = self.rows, pattern_inputs(self.rows.latents, pattern)
            given = rows.observed[:, pattern].all(axis=1)
            wanted: dict[str, tuple[Numbers, BoolArray]] = {
                name: (part, np.asarray(given & rows.observed[:, column], np.bool_))
                for column, (name, part) in enumerate(rows.latents.items())
                if not pattern[column]
            }
            if self.encoded is not None:
                labelled = ~np.isnan(self.encoded).any(axis=1)
                wanted[LABEL] = self.encoded, np.asarray(given & labelled, np.bool_)
            made: dict[str, Machine | None] = {}
            # targets that are known in the same rows share the decompositions of a kernel
            for known, names in _alike({name: known for name, (_, known) in wanted.items()}):
                if len(known) < ENOUGH:
                    made |= dict.fromkeys(names)
                    continue
                chosen = few_rows(known, self.fitting.seed)
                blocks = {name: wanted[name][0][chosen] for name in names}
                made |= self._machines(pattern, x[chosen], blocks, chosen)
            self.machines[key] = made
        return self.machines[key]

    def _machines(
        self, pattern: BoolArray, x: Numbers, wanted: dict[str, Numbers], chosen: IntArray
    ) -> dict[str, Machine | None]:
        settings = {"pattern": pattern.tolist(), "targets": list(wanted)}
        arrays = self.fitting.arrays(
            self.name,
            settings,
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
            for name, block in zip(names, _blocks([wanted[name] for name in names]), strict=True):
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
        self.count = len(target.names) if target.is_classes else 2
        self.known = ~np.isnan(rows.labels)
        self.codes = rows.labels if target.is_classes else (rows.labels > 0).astype(np.float64)
        if not target.is_classes:
            self.known &= rows.labels != 0
        self.machines: dict[bytes, Logistic | None] = {}

    def predict(self, shown: Shown) -> Guess:
        """The label, with probabilities of classes."""
        given = np.tile(self._frequencies(), (len(shown.ids), 1))
        patterns, places = np.unique(shown.visible, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            which = np.flatnonzero(places == number)
            machine = self._of_pattern(pattern)
            if machine is not None:
                given[which] = machine.probabilities(
                    pattern_inputs(shown.latents, pattern)[which], self.count
                )
        if self.target.is_classes:
            return Guess({}, label=given.argmax(axis=1).astype(np.int64), probabilities=given)
        return Guess({}, value=(2.0 * given[:, 1] - 1.0) * np.abs(self.rows.labels[self.known]).mean())

    def _frequencies(self) -> Numbers:
        counts = np.bincount(self.codes[self.known].astype(np.int64), minlength=self.count)
        return np.asarray(counts / counts.sum(), np.float64)

    def _of_pattern(self, pattern: BoolArray) -> Logistic | None:
        key = pattern.tobytes()
        if key not in self.machines:
            rows = np.flatnonzero(self.known & self.rows.observed[:, pattern].all(axis=1))
            codes = self.codes[rows].astype(np.int64)
            if len(rows) < ENOUGH or len(np.unique(codes)) < 2:
                self.machines[key] = None
            else:
                x = pattern_inputs(self.rows.latents, pattern)[rows]
                folds = validation_folds([self.rows.groups[row] for row in rows])
                arrays = self.fitting.arrays(
                    self.name,
                    {"pattern": pattern.tolist()},
                    self.rows,
                    self.target,
                    lambda: self._tuned(x, codes, folds).as_arrays(),
                )
                self.machines[key] = Logistic.of(arrays)
        return self.machines[key]

    def _tuned(self, x: Numbers, codes: IntArray, folds: IntArray) -> Logistic:
        return Logistic.fit(x, codes, LogisticSearch.over(x, codes, folds, self.count).cost)


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
    y, blocks = np.concatenate(list(wanted.values()), axis=1), _blocks(list(wanted.values()))
    search = KernelSearch.over(x, y, folds, blocks)
    return {
        name: Candidate(
            "kernel",
            search.held[:, block],
            partial(search.refitted, x, y, block, number),
        )
        for number, (name, block) in enumerate(zip(wanted, blocks, strict=True))
    }


def _restored(kind: str, arrays: Arrays, x: Numbers, outputs: int) -> Machine:
    if kind == "kernel":
        return KernelMachine.of(arrays, x)
    if kind == "logistic":
        return _Classes(Logistic.of(arrays), outputs)
    return Perceptron.of(arrays)


def _blocks(parts: Sequence[Numbers]) -> list[slice]:
    """Where each part lies when all are side by side."""
    ends = np.cumsum([part.shape[1] for part in parts]).tolist()
    return [slice(end - part.shape[1], end) for end, part in zip(ends, parts, strict=True)]


def _alike(known: dict[str, BoolArray]) -> list[tuple[IntArray, list[str]]]:
    """Rows, and the names that are known in just these."""
    found: dict[bytes, list[str]] = {}
    for name, where in known.items():
        found.setdefault(where.tobytes(), []).append(name)
    return [(np.flatnonzero(known[names[0]]), names) for names in found.values()]
