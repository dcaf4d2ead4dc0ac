"""Missing patterns for training: which of a row's modalities stay visible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import gcd

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.data.dataset import TEXT_MODALITY, BoolArray, Split
from omg_graph.seeding import derived_seed

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BLOCK = 2048
"""Pairs of one pattern that are looked at together, so that kernels with them stay small."""


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
    """(pairs,): how often each is drawn among its row's pairs; all equally often if None."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def everything(self) -> IntArray:
        """All pairs."""
        return np.arange(len(self.rows), dtype=np.int64)

    def take(self, kept: BoolArray) -> tuple[PatternPool, IntArray]:
        """The pairs of some rows, and which of all pairs these are.

        Args:
            kept: (rows,), which.
        """
        pairs = np.flatnonzero(kept[self.rows])
        counts = np.diff(self.starts)[kept]
        pool = PatternPool(
            (np.cumsum(kept) - 1)[self.rows[pairs]],
            self.visible[pairs],
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            None if self.chances is None else self.chances[pairs],
        )
        return pool, pairs

    def shown(self, latents: Mapping[str, Tensor], pairs: IntArray) -> dict[str, Tensor]:
        """Modality to (batch, latent): what some pairs show of their rows' latents, zero where hidden."""
        rows, visible = torch.from_numpy(self.rows[pairs]), torch.from_numpy(self.visible[pairs])
        return {
            name: value[rows] * visible[:, column : column + 1]
            for column, (name, value) in enumerate(latents.items())
        }

    def texts(self, split: Split, pairs: IntArray) -> tuple[str | None, ...]:
        """The transcript of some pairs, None where there is none or it is hidden with the text."""
        if split.raw_text is None:
            return (None,) * len(pairs)
        rows = self.rows[pairs]
        shown = np.ones(len(pairs), dtype=np.bool_)
        if TEXT_MODALITY in split.names:
            shown = self.visible[pairs][:, split.names.index(TEXT_MODALITY)]
        return tuple(split.raw_text[row] if there else None for row, there in zip(rows, shown, strict=True))

    def by_pattern(self, pairs: IntArray | None = None) -> Iterator[IntArray]:
        """Pairs, all of them by default, in blocks that show the same modalities."""
        pairs = self.everything if pairs is None else pairs
        patterns, member = np.unique(self.visible[pairs], axis=0, return_inverse=True)
        for index in range(len(patterns)):
            of_pattern = pairs[member == index]
            for start in range(0, len(of_pattern), BLOCK):
                yield of_pattern[start : start + BLOCK]

    def observed_sets(self) -> Tensor:
        """(sets, modalities): observed sets of every size, as many of each as there are modalities."""
        patterns = np.unique(self.visible, axis=0)
        sizes = patterns.sum(axis=1)
        modalities = patterns.shape[1]
        chosen: list[BoolArray] = []
        for size in range(1, modalities):
            of_size = patterns[sizes == size]
            chosen.append(of_size[:: max(1, len(of_size) // modalities)][:modalities])
        return torch.from_numpy(np.concatenate([patterns[:0], *chosen]))

    def draw(self, seed: int, epoch: int) -> IntArray:
        """One pair for each row, in random order: the epoch's samples with newly drawn patterns."""
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
