"""What came of each sample under each pattern, method by method; the parts of folds put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from omg_graph.codecs.codec import Rows
from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import BoolArray, IntArray, Split
from omg_graph.errors import ModelError
from omg_graph.evaluation.protocols import Condition
from omg_graph.metrics.features import (
    DRAWS_FOR_90,
    PooledRatio,
    coverage90,
    energy_scores,
    normalised_squared_error,
)
from omg_graph.metrics.labels import Numbers

SCORED_AT_ONCE = 20_000_000
"""Numbers in the draws that are scored together, so that memory doesn't grow with a modality's size."""


@dataclass(frozen=True)
class Pairs:
    """Every sample under every pattern that some condition shows it in, each once.

    What a method makes of a pair depends on nothing else, so rates and seeds that share a pair share the
    work.
    """

    rows: IntArray
    """(pairs,): the sample."""
    visible: BoolArray
    """(pairs, modalities)."""

    @classmethod
    def of(cls, conditions: Sequence[Condition]) -> Pairs:
        """All pairs of the conditions, pattern by pattern, then in the order of the samples."""
        listed = np.unique(
            np.concatenate(
                [
                    np.column_stack([condition.visible[condition.rows], condition.rows])
                    for condition in conditions
                ]
            ).astype(np.int64),
            axis=0,
        )
        return cls(listed[:, -1], listed[:, :-1].astype(np.bool_))

    def __len__(self) -> int:
        return len(self.rows)

    def index(self, condition: Condition) -> IntArray:
        """(samples that take part,): each one's pair under a condition."""
        position = {
            (int(row), pattern.tobytes()): place
            for place, (row, pattern) in enumerate(zip(self.rows, self.visible, strict=True))
        }
        return np.array(
            [position[int(row), condition.visible[row].tobytes()] for row in condition.rows], np.int64
        )

    def batches(self, size: int) -> Iterator[slice]:
        """Consecutive slices of at most ``size`` pairs."""
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))

    def shown(self, split: Split, part: slice) -> Split:
        """The samples of some pairs with the rest hidden, labels out of sight."""
        samples = split.take(self.rows[part]).without_labels()
        return samples.hide(~self.visible[part])


@dataclass
class Outcomes:
    """One method's results, an entry for each pair; NaN or 0 of 0 where something wasn't scored."""

    method: str
    floor_seed: int | None = None
    """Which training of a floor that is trained several times."""
    value: Numbers | None = None
    """(pairs,), in the label's units; for numbers."""
    label: IntArray | None = None
    """(pairs,), class indexes; for classes."""
    probabilities: Numbers | None = None
    """(pairs, classes or degrees)."""
    errors: dict[str, PooledRatio] = field(default_factory=dict)
    """Modality to squared error and squared deviation."""
    energy: dict[str, Numbers] = field(default_factory=dict)
    """Modality to fair energy scores."""
    coverage: dict[str, PooledRatio] = field(default_factory=dict)
    """Modality to features covered and features scored."""
    semantic_cost: Numbers | None = None
    """C_sem of the chosen plan (Eq. 6)."""
    reranked: Numbers | None = None
    """1 where re-ranking chose another plan than the most probable one, else 0."""
    evidence_cost: Numbers | None = None
    """C_evi, averaged over the modalities with evidence (Eq. 9); NaN without any."""
    same_polarity: Numbers | None = None
    """Share of the evidence's weight on entries whose label has the truth's sign; NaN where undefined."""


@dataclass(frozen=True)
class FeatureScorer:
    """Scores reconstructed latents of hidden modalities as standardised features."""

    space: LatentSpace
    truth: Split

    def wanted(self, name: str, pairs: Pairs, part: slice) -> BoolArray:
        """(pairs,): where the modality is hidden and its truth is known."""
        column = self.truth.names.index(name)
        known = self.truth.observed[name][pairs.rows[part]]
        return np.asarray(known & ~pairs.visible[part, column])

    def error(self, name: str, latents: Tensor, pairs: Pairs, part: slice) -> PooledRatio:
        """Squared error and deviation of some pairs' estimates, (pairs, latent)."""
        truth, scored = self._truth(name, pairs, part)
        if not scored.any():
            zeros = np.zeros(len(truth))
            return PooledRatio(zeros, zeros.copy())
        return normalised_squared_error(self._standard(name, latents, pairs, part), truth, scored)

    def draws(
        self, name: str, latents: Tensor, pairs: Pairs, part: slice
    ) -> tuple[Numbers, PooledRatio | None]:
        """Energy scores of some pairs' draws, (draws, pairs, latent), and their coverage if they are 19."""
        truth, scored = self._truth(name, pairs, part)
        samples, size = truth.shape
        score, covered = np.full(samples, np.nan), PooledRatio(np.zeros(samples), np.zeros(samples))
        rows = np.flatnonzero(scored.any(axis=1))
        at_once = max(1, SCORED_AT_ONCE // (len(latents) * size))
        for start in range(0, len(rows), at_once):
            chosen = rows[start : start + at_once]
            places = np.arange(part.start, part.stop)[chosen]
            few = Pairs(pairs.rows[places], pairs.visible[places])
            drawn = np.stack(
                [self._standard(name, draw[chosen], few, slice(0, len(few))) for draw in latents], axis=1
            )
            score[chosen] = energy_scores(drawn, truth[chosen], scored[chosen])
            if len(latents) == DRAWS_FOR_90:
                inside = coverage90(drawn, truth[chosen], scored[chosen])
                covered.numerator[chosen] = inside.numerator
                covered.denominator[chosen] = inside.denominator
        return score, covered if len(latents) == DRAWS_FOR_90 else None

    def _lengths(self, name: str, pairs: Pairs, part: slice) -> IntArray | None:
        lengths = self.truth.lengths.get(name)
        return None if lengths is None else lengths[pairs.rows[part]]

    def _truth(self, name: str, pairs: Pairs, part: slice) -> tuple[npt.NDArray[np.float32], BoolArray]:
        codec, rows, lengths = self.space.codecs[name], pairs.rows[part], self._lengths(name, pairs, part)
        truth = Rows(self.truth.arrays[name][rows], lengths)
        lost = self.truth.lost[name][rows] if name in self.truth.lost else None
        scored = codec.scored(replace(truth, lost=lost)) & self.wanted(name, pairs, part)[:, None]
        return codec.standard(truth), scored

    def _standard(self, name: str, latents: Tensor, pairs: Pairs, part: slice) -> npt.NDArray[np.float32]:
        return self.space.standard(name, latents, self._lengths(name, pairs, part))


@dataclass(frozen=True)
class Part:
    """The pairs of some rows."""

    pairs: Pairs
    places: IntArray
    """(pairs,): where each lies among all pairs."""
    conditions: list[Condition]
    """The conditions with nobody but these rows in them."""
    fold: int

    @classmethod
    def of(cls, pairs: Pairs, conditions: Sequence[Condition], rows: BoolArray, fold: int) -> Part:
        """The part of all pairs that belongs to the marked rows, (samples,), which a fold held out."""
        places = np.flatnonzero(rows[pairs.rows])
        narrowed = [
            replace(
                condition, visible=condition.visible & rows[:, None], hidden=condition.hidden & rows[:, None]
            )
            for condition in conditions
        ]
        return cls(
            Pairs(pairs.rows[places], pairs.visible[places]),
            places,
            [condition for condition in narrowed if len(condition.rows)],
            fold,
        )


def pooled_outcomes(parts: Sequence[tuple[Part, Outcomes]], pairs: int) -> Outcomes:
    """One method's outcomes on all pairs, from its outcomes on parts that together make them up.

    Raises:
        ModelError: if the parts don't make up all pairs, or differ in what they hold.
    """
    places = np.concatenate([part.places for part, _ in parts])
    if len(places) != pairs or len(np.unique(places)) != pairs:
        raise ModelError(
            f"{parts[0][1].method}: expected each row to be held out by one model, "
            f"{pairs - len(np.unique(places))} of {pairs} pairs are by none: evaluate all folds together"
        )
    return joined([outcomes for _, outcomes in parts], np.argsort(places))


def joined(parts: Sequence[Outcomes], order: IntArray | None = None) -> Outcomes:
    """A method's outcomes on batches or folds, one after the other, or in an order of all of them.

    Raises:
        ModelError: if the parts differ in what they hold.
    """
    first = parts[0]
    names = [item.name for item in fields(Outcomes) if item.name not in ("method", "floor_seed")]
    try:
        changes = {name: _together([getattr(part, name) for part in parts], order) for name in names}
    except (KeyError, ValueError) as error:
        raise ModelError(
            f"{first.method}: expected models that predict the same in all folds, got others: "
            "evaluate them one by one"
        ) from error
    return replace(first, **changes)


def _together(parts: Sequence[Any], order: IntArray | None) -> Any:
    """Arrays of parts, or what holds such arrays, put together."""
    first = parts[0]
    if all(part is None for part in parts):
        return None
    if isinstance(first, dict):
        return {name: _together([part[name] for part in parts], order) for name in first}
    if isinstance(first, PooledRatio):
        return PooledRatio(
            _together([part.numerator for part in parts], order),
            _together([part.denominator for part in parts], order),
        )
    whole = np.concatenate(parts)
    return whole if order is None else whole[order]
