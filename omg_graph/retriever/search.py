"""The exact best entries of a partition: Chroma proposes, the stored keys decide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omg_graph.retriever.entries import IntArray
from omg_graph.retriever.exclusion import OwnEntries
from omg_graph.retriever.index import ChromaIndex, Partition
from omg_graph.retriever.keys import BoolArray, FloatArray

SLACK = 16
"""Hits fetched beyond those needed, for ties at the end of the list."""
STEP = 32
"""Numbers of hits are rounded up to a multiple of this, so that few sizes are asked for."""
ROUNDING = 1e-5
"""How far Chroma's single precision may misjudge an inner product."""
BLOCK = 1 << 22
"""Numbers of keys held in double precision at once."""


@dataclass(frozen=True)
class Ranked:
    """The best allowed entries for one query, best first, ties by row."""

    rows: IntArray
    similarities: FloatArray


@dataclass(frozen=True)
class Queries:
    """A batch of queries, and what each must not see."""

    vectors: FloatArray
    """(queries, key width)."""
    has_view: BoolArray
    """(queries, views)."""
    own_entry: IntArray
    """(queries,): row of the entry made from the sample itself, -1 if there is none."""
    own_group: IntArray
    """(queries,): number of the group to leave out, -1 if there is none."""

    def take(self, which: IntArray) -> Queries:
        """Some of the queries."""
        return Queries(
            self.vectors[which], self.has_view[which], self.own_entry[which], self.own_group[which]
        )

    def may_see(self, row: int, own: OwnEntries, entries: IntArray) -> BoolArray:
        """Which of these entries one query may be given."""
        allowed: BoolArray = (entries != self.own_entry[row]) & (
            own.entry_groups[entries] != self.own_group[row]
        )
        return allowed

    def __len__(self) -> int:
        return len(self.vectors)


def best_in_partition(
    index: ChromaIndex, partition: Partition, own: OwnEntries, queries: Queries, k: int
) -> list[Ranked]:
    """The k most similar allowed entries of a partition for each query, as an exact search finds them.

    Chroma is asked for as many hits as k and the query's own entries need, and a few more. If those can't
    settle the k-th place (ties, too few hits), or would be most of the partition anyway, all entries are
    scored. What a query gets depends on nothing but itself.
    """
    shared = (queries.has_view & partition.has_view).sum(axis=1)
    results = [Ranked(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32))] * len(queries)
    size = len(partition.rows)
    in_group = (own.entry_groups[partition.rows] == queries.own_group[:, None]).sum(axis=1)
    wanted = -(-(k + SLACK + 1 + in_group) // STEP) * STEP
    direct = (shared > 0) & ((2 * wanted > size) if partition.collection is not None else True)
    for count in np.unique(wanted[(shared > 0) & ~direct]):
        which = np.flatnonzero((wanted == count) & (shared > 0) & ~direct)
        for block in _blocks(which, int(count) * queries.vectors.shape[1]):
            asked = queries.take(block)
            places = index.nearest(partition, asked.vectors, int(count))
            keys = index.kb.keys[partition.rows[places]].astype(np.float64)
            inner = np.einsum("bw,bnw->bn", asked.vectors.astype(np.float64), keys)
            exact = (inner / shared[block, None]).astype(np.float32)
            for row, query in enumerate(block):
                entries = partition.rows[places[row]]
                ranked = _rank(asked.may_see(row, own, entries), entries, exact[row], k)
                outside = exact[row].min() + ROUNDING
                if len(ranked.rows) == k and ranked.similarities[-1] > outside and places[row].min() >= 0:
                    results[query] = ranked
                else:
                    direct[query] = True
    remaining = np.flatnonzero(direct)
    for block in _blocks(remaining, size):
        asked = queries.take(block)
        exact = (_inner(asked.vectors, index.kb.keys, partition.rows) / shared[block, None]).astype(
            np.float32
        )
        for row, query in enumerate(block):
            allowed = asked.may_see(row, own, partition.rows)
            results[query] = _rank(allowed, partition.rows, exact[row], k)
    return results


def _rank(allowed: BoolArray, entries: IntArray, similarities: FloatArray, k: int) -> Ranked:
    entries, similarities = entries[allowed], similarities[allowed]
    order = np.lexsort((entries, -similarities))[:k]
    return Ranked(entries[order], similarities[order])


def _inner(queries: FloatArray, keys: FloatArray, rows: IntArray) -> npt.NDArray[np.float64]:
    step = max(1, BLOCK // keys.shape[1])
    exact = queries.astype(np.float64)
    return np.concatenate(
        [
            exact @ keys[rows[start : start + step]].astype(np.float64).T
            for start in range(0, len(rows), step)
        ],
        axis=1,
    )


def _blocks(which: IntArray, numbers_each: int) -> list[IntArray]:
    step = max(1, BLOCK // max(1, numbers_each))
    return [which[start : start + step] for start in range(0, len(which), step)]
