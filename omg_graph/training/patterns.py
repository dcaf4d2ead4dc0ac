"""Missing patterns for training: which of a row's modalities stay visible."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd

import numpy as np
import numpy.typing as npt

from omg_graph.data.dataset import BoolArray
from omg_graph.seeding import derived_seed

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PatternPool:
    """Pairs of a row and a visible subset of what it has, all patterns of one row together."""

    rows: IntArray
    """(pairs,): row of the split."""
    visible: BoolArray
    """(pairs, modalities)."""
    starts: IntArray
    """(rows + 1,): where each row's pairs begin."""
    chances: FloatArray | None = None
    """(pairs,): how often each is drawn among its row's pairs; all alike if None."""

    def __len__(self) -> int:
        return len(self.rows)

    def draw(self, seed: int, epoch: int) -> IntArray:
        """One pair for each row, in random order: the epoch's samples with patterns drawn anew."""
        random = np.random.default_rng(derived_seed(seed, "pairs", epoch))
        counts = np.diff(self.starts)
        if self.chances is None:
            pairs = self.starts[:-1] + (random.random(len(counts)) * counts).astype(np.int64)
        else:
            reached = np.cumsum(self.chances)  # by a whole number more with each row
            drawn = np.arange(len(counts)) + random.random(len(counts))
            pairs = np.clip(
                np.searchsorted(reached, drawn, side="right"), self.starts[:-1], self.starts[1:] - 1
            )
        return np.asarray(random.permutation(pairs), dtype=np.int64)

    @property
    def missing_rate(self) -> float:
        """The share of all slots that is missing from what is drawn, on average; by nature included."""
        chances = self._evenly() if self.chances is None else self.chances
        rows, modalities = len(self.starts) - 1, self.visible.shape[1]
        return float(1.0 - chances @ self.visible.sum(axis=1) / (rows * modalities))

    def at_rate(self, rate: float) -> PatternPool:
        """The same pairs, drawn so that a share of all slots is missing, on average.

        A row's patterns are drawn in proportion to q^hidden (1 - q)^visible, as if every slot were dropped by
        itself and nobody left empty. Beyond what can be reached (what is missing by nature, one modality
        left to everyone) the nearest is taken: ``missing_rate`` says which.
        """
        hidden = (~self.visible).sum(axis=1).astype(np.float64)
        low, high = -60.0, 60.0
        for _ in range(80):
            middle = (low + high) / 2
            tilted = replace(self, chances=self._shares(middle * hidden))
            low, high = (middle, high) if tilted.missing_rate < rate else (low, middle)
        return tilted

    def _evenly(self) -> FloatArray:
        return self._shares(np.zeros(len(self)))

    def _shares(self, logits: FloatArray) -> FloatArray:
        """Softmax of each row's pairs."""
        first = self.starts[:-1]
        counts = np.diff(self.starts)
        weights = np.exp(logits - np.repeat(np.maximum.reduceat(logits, first), counts))
        return np.asarray(weights / np.repeat(np.add.reduceat(weights, first), counts), np.float64)

    def spaced(self, pairs: IntArray, wanted: int) -> IntArray:
        """About ``wanted`` of these pairs, evenly spaced.

        The spacing shares no factor with the number of any row's patterns: every seventh pair of rows with
        seven patterns each would be the same pattern throughout.
        """
        spacing = max(1, len(pairs) // wanted)
        counts = {int(count) for count in np.diff(self.starts)} - {0}
        while any(gcd(spacing, count) > 1 for count in counts):
            spacing += 1
        return pairs[::spacing]


def pattern_pool(observed: BoolArray, ids: tuple[str, ...], limit: int, seed: int) -> PatternPool:
    """Up to ``limit`` distinct non-empty subsets of what each row has.

    Where a row has more subsets than that, the number of visible modalities is drawn uniformly first, so
    that single views and nearly complete samples are met as often as those in between.
    """
    rows, masks, starts = [], [], [0]
    for row, has in enumerate(observed):
        columns = np.flatnonzero(has)
        for subset in _subsets(len(columns), limit, derived_seed(seed, "patterns", ids[row])):
            mask = np.zeros(observed.shape[1], dtype=np.bool_)
            mask[columns[subset]] = True
            rows.append(row)
            masks.append(mask)
        starts.append(len(rows))
    return PatternPool(np.array(rows, np.int64), np.array(masks, np.bool_), np.array(starts, np.int64))


def _subsets(size: int, limit: int, seed: int) -> list[BoolArray]:
    if size < 20 and 2**size - 1 <= limit:
        codes = np.arange(1, 2**size)[:, None] >> np.arange(size)
        return list((codes & 1).astype(np.bool_))
    random = np.random.default_rng(seed)
    found: dict[bytes, BoolArray] = {}
    while len(found) < limit:
        subset = np.zeros(size, dtype=np.bool_)
        subset[random.permutation(size)[: random.integers(1, size + 1)]] = True
        found.setdefault(subset.tobytes(), subset)
    return list(found.values())


def group_folds(groups: tuple[str, ...], folds: int, seed: int) -> IntArray:
    """(rows,): the fold of each row; groups stay whole, folds are as even as they can be.

    With fewer groups than folds there are as many folds as groups; with a single group rows are split.
    """
    names = list(dict.fromkeys(groups))
    if len(names) == 1:
        return np.random.default_rng(derived_seed(seed, "folds")).permutation(len(groups)) % folds
    order = np.random.default_rng(derived_seed(seed, "folds")).permutation(len(names))
    sizes = {name: groups.count(name) for name in names} if len(names) < 2000 else dict.fromkeys(names, 1)
    loads = np.zeros(min(folds, len(names)), dtype=np.int64)
    assigned: dict[str, int] = {}
    for index in sorted(order, key=lambda i: -sizes[names[i]]):
        lightest = int(loads.argmin())
        assigned[names[index]] = lightest
        loads[lightest] += sizes[names[index]]
    return np.array([assigned[group] for group in groups], dtype=np.int64)
