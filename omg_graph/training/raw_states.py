"""A large language model's hidden states of every pair's raw parts, computed once per distinct input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.data.dataset import TEXT_MODALITY, BoolArray, Split
from omg_graph.data.patterns import PatternPool
from omg_graph.data.recordings import Recording, shortened
from omg_graph.encoders.hidden_states import HiddenStates
from omg_graph.encoders.observation import RawStates
from omg_graph.encoders.raw_parts import Content, raw_parts, shown
from omg_graph.omni.media import MOST_FRAMES, MOST_SECONDS

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairStates:
    """Hidden states of the raw parts that each pair shows; pairs that show the same ones share a row."""

    table: Tensor
    """(distinct, width)."""
    index: Tensor
    """(pairs,): row of the table, -1 where a pair shows no raw part."""

    def of(self, pairs: IntArray) -> RawStates:
        """Those of some pairs."""
        index = self.index[torch.from_numpy(pairs)]
        there = index >= 0
        vectors = self.table.new_zeros(len(pairs), self.table.shape[1])
        vectors[there] = self.table[index[there]]
        return RawStates(vectors, there)

    def among(self, allowed: BoolArray | None) -> Tensor:
        """The distinct rows that some pairs have, (rows, width).

        Args:
            allowed: (pairs,), all by default.
        """
        index = self.index if allowed is None else self.index[torch.from_numpy(allowed)]
        return self.table[torch.unique(index[index >= 0])]


def pair_states(
    states: HiddenStates,
    split: Split,
    pool: PatternPool,
    on_progress: Callable[[int, int], None] | None = None,
) -> PairStates:
    """Read every distinct observation of a split's pairs.

    Args:
        states: The language model's.
        split: The rows.
        pool: Their pairs.
        on_progress: Called with (observations read, of).
    """
    parts = raw_parts(split)
    places: dict[Content, int] = {}
    index = torch.full((len(pool),), -1)
    for pair, (row, visible) in enumerate(zip(pool.rows.tolist(), pool.visible, strict=True)):
        content = shown(parts[row], visible)
        if content:
            index[pair] = places.setdefault(content, len(places))
    return PairStates(torch.from_numpy(states.read(list(places), on_progress)), index)


def states_notes(states: HiddenStates | None, train: Split, *pairs: PairStates | None) -> list[str]:
    """Notes for the manifest: what the language model has read, and which modalities it can't read."""
    if states is None:
        return []
    given = [some for some in pairs if some is not None]
    distinct, shown_by = sum(len(some.table) for some in given), sum(len(some.index) for some in given)
    notes = [
        f"hidden states of {states.folder.name}: {distinct} distinct observations in {shown_by} pairs of a "
        f"row and a pattern, {states.passes} texts and observations read anew, the others from the cache"
    ]
    parts = [part for row in raw_parts(train) for part in row]
    read = {part.column for part in parts}
    if any(isinstance(part.content, str) for part in parts) and TEXT_MODALITY in train.names:
        read.add(train.names.index(TEXT_MODALITY))
    unread = [name for column, name in enumerate(train.names) if column not in read]
    if unread:
        notes.append(f"no training row has a recording of {', '.join(unread)}: psi has the features alone")
    cut = [
        shortened("it", part.content, most_seconds=MOST_SECONDS, most_frames=MOST_FRAMES)
        for part in parts
        if isinstance(part.content, Recording)
    ]
    if any(cut):
        notes.append(
            f"of {sum(one is not None for one in cut)} of {len(cut)} recordings a part is read: the first "
            f"{MOST_SECONDS} s of a sound, {MOST_FRAMES} frames of a video"
        )
    return notes
