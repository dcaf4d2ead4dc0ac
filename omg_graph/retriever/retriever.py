"""Retrieval for a batch: the entries nearest to each query, none of them a sample's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from omg_graph.errors import KnowledgeBaseError
from omg_graph.plugins import component
from omg_graph.retriever.entries import IntArray, KnowledgeBase
from omg_graph.retriever.evidence import (
    DEFAULT_TEMPERATURE,
    Attention,
    Evidence,
    Hit,
    attention_weights,
    weigh,
)
from omg_graph.retriever.index import ChromaIndex, Partition
from omg_graph.retriever.keys import BoolArray, FloatArray

NOBODY = -1
"""The number of a sample or group that no entry belongs to."""

GROUP = "omg_graph.retrievers"
"""The entry points that register retrievers."""


class OwnEntries:
    """Finds the entries that are a sample itself or of its group (the recording, the speaker, the patient).

    The rule holds in training, evaluation and use: retrieval that sees its own video looks excellent in
    training and fails on new videos.
    """

    def __init__(self, entry_ids: Sequence[str], entry_groups: Sequence[str]) -> None:
        self._number_of_id = {entry_id: row for row, entry_id in enumerate(entry_ids)}
        self._number_of_group = {group: code for code, group in enumerate(dict.fromkeys(entry_groups))}
        self.entry_groups: IntArray = np.array(
            [self._number_of_group[group] for group in entry_groups], dtype=np.int64
        )

    def own_entry(self, ids: Sequence[str]) -> IntArray:
        """(samples,): the row of the entry made from each sample, or ``NOBODY``."""
        return np.array([self._number_of_id.get(sample_id, NOBODY) for sample_id in ids], dtype=np.int64)

    def own_group(self, groups: Sequence[str], allow_own_group: bool = False) -> IntArray:
        """(samples,): the number of the group to leave out for each sample, or ``NOBODY``."""
        if allow_own_group:
            return np.full(len(groups), NOBODY, dtype=np.int64)
        return np.array([self._number_of_group.get(group, NOBODY) for group in groups], dtype=np.int64)

    def allowed(self, ids: Sequence[str], groups: Sequence[str], allow_own_group: bool = False) -> BoolArray:
        """(samples, entries): True where the entry may serve the sample."""
        entries = np.arange(len(self.entry_groups))
        same_entry = self.own_entry(ids)[:, None] == entries
        same_group = self.own_group(groups, allow_own_group)[:, None] == self.entry_groups
        allowed: BoolArray = ~(same_entry | same_group)
        return allowed


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


class Retriever(Protocol):
    """(E, N_K) = pi_R(X, S; D) for a batch (section 3.4): anything that finds evidence for samples.

    A class that is registered under the entry points ``omg_graph.retrievers`` also has
    ``open(kb, temperature, attention)``, which makes one for a model's knowledge base.
    """

    name: str

    def retrieve(
        self,
        query: FloatArray,
        query_has_view: BoolArray,
        plan_embeddings: FloatArray,
        *,
        ids: Sequence[str],
        groups: Sequence[str],
        targets: Mapping[str, BoolArray],
        k: int,
        allow_own_group: bool = False,
        plan_texts: Sequence[str] = (),
    ) -> dict[str, Evidence]:
        """Evidence for each modality in ``targets``, a row for each sample.

        Args:
            query: q of Eq. 7, (samples, key width).
            query_has_view: (samples, views): the views that a sample really has.
            plan_embeddings: c_S, (samples, text width).
            ids: the samples' ids.
            groups: the samples' groups.
            targets: modality to (samples,), True where evidence for it is wanted.
            k: K of Eq. 8, the most entries a sample gets for a modality.
            allow_own_group: whether entries of a sample's own group may serve; the sample itself never does.
            plan_texts: the plans in words, for a search that reads rather than compares vectors.
        """
        ...


def retriever_class(name: str) -> Any:
    """The class that is registered under a name.

    Raises:
        ConfigError: if there is none, or its package can't be imported.
    """
    return component(GROUP, name)


class ChromaRetriever:
    """Evidence from a knowledge base through its Chroma index; equal to ``attention.exact_search``."""

    name = "chroma"

    def __init__(
        self,
        kb: KnowledgeBase,
        index: ChromaIndex,
        temperature: float = DEFAULT_TEMPERATURE,
        attention: Attention = attention_weights,
    ) -> None:
        if index.kb.fingerprint != kb.fingerprint:
            raise KnowledgeBaseError(
                f"knowledge base {kb.name}: expected an index of the same entries, got one of "
                f"{index.kb.name}; open it with ChromaIndex.open(kb)"
            )
        self.kb = kb
        self.index = index
        self.temperature = temperature
        self.attention = attention
        self._own = OwnEntries(kb.ids, kb.groups)
        groups = int(self._own.entry_groups.max()) + 1
        self._group_sizes: dict[str, IntArray] = {
            name: np.bincount(self._own.entry_groups[flags], minlength=groups)
            for name, flags in kb.has_value.items()
        }

    @classmethod
    def open(
        cls,
        kb: KnowledgeBase,
        temperature: float = DEFAULT_TEMPERATURE,
        attention: Attention = attention_weights,
    ) -> ChromaRetriever:
        """One over a knowledge base, whose index is made where there is none yet.

        Args:
            kb: The knowledge base.
            temperature: kappa of Eq. 8.
            attention: How entries are weighed.
        """
        return cls(kb, ChromaIndex.open(kb), temperature, attention)

    def retrieve(
        self,
        query: FloatArray,
        query_has_view: BoolArray,
        plan_embeddings: FloatArray,
        *,
        ids: Sequence[str],
        groups: Sequence[str],
        targets: Mapping[str, BoolArray],
        k: int,
        allow_own_group: bool = False,
        plan_texts: Sequence[str] = (),  # noqa: ARG002
    ) -> dict[str, Evidence]:
        """See ``Retriever.retrieve``; entries that share no view with a sample never serve it.

        Raises:
            KnowledgeBaseError: if a target isn't a modality of the knowledge base, shapes don't fit or
                ``k`` is below one.
        """
        self._check(query, query_has_view, targets, k, len(ids))
        queries = Queries(
            query,
            query_has_view,
            self._own.own_entry(ids),
            self._own.own_group(groups, allow_own_group),
        )
        ranked: dict[str, list[list[tuple[int, float]]]] = {name: [[] for _ in ids] for name in targets}
        for partition in self.index.partitions:
            wanted = [name for name in targets if name in partition.modalities]
            which = np.flatnonzero(np.any([targets[name] for name in wanted], axis=0)) if wanted else ()
            if not len(which):
                continue
            found = best_in_partition(self.index, partition, self._own, queries.take(np.asarray(which)), k)
            for row, best in zip(which, found, strict=True):
                pairs = list(zip(best.rows.tolist(), best.similarities.tolist(), strict=True))
                for name in wanted:
                    if targets[name][row]:
                        ranked[name][row].extend(pairs)
        return {
            name: weigh(
                [
                    [
                        self._hit(name, entry, similarity)
                        for entry, similarity in sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:k]
                    ]
                    for pairs in ranked[name]
                ],
                plan_embeddings=plan_embeddings,
                ids=ids,
                groups=groups,
                requested=asked,
                value_width=self.kb.values[name].shape[1],
                k=k,
                temperature=self.temperature,
                allow_own_group=allow_own_group,
                left_out=self._left_out(name, queries),
                attention=self.attention,
                note=self.index.degraded,
            )
            for name, asked in targets.items()
        }

    def _hit(self, modality: str, entry: int, similarity: float) -> Hit:
        kb = self.kb
        return Hit(
            id=kb.ids[entry],
            group=kb.groups[entry],
            text=kb.texts[entry],
            source=kb.sources[entry],
            similarity=similarity,
            value=kb.values[modality][entry],
            text_embedding=kb.text_embeddings[entry],
        )

    def _left_out(self, modality: str, queries: Queries) -> IntArray:
        in_group = queries.own_group != NOBODY
        counts = np.where(in_group, self._group_sizes[modality][queries.own_group], 0)
        # The entry of the sample itself counts once more only if its group doesn't contain it.
        has_own = queries.own_entry != NOBODY
        counted = in_group & (self._own.entry_groups[queries.own_entry] == queries.own_group)
        alone = has_own & ~counted & self.kb.has_value[modality][queries.own_entry]
        left_out: IntArray = counts + alone
        return left_out

    def _check(
        self,
        query: FloatArray,
        query_has_view: BoolArray,
        targets: Mapping[str, BoolArray],
        k: int,
        samples: int,
    ) -> None:
        kb = self.kb
        if k < 1:
            raise KnowledgeBaseError(f"expected a top-k of 1 or more, got {k}; ask for at least one entry")
        for name in targets:
            if name not in kb.values:
                raise KnowledgeBaseError(
                    f"knowledge base {kb.name}: expected one of {', '.join(sorted(kb.values))}, "
                    f"got {name}; build one with that modality"
                )
        expected = (samples, kb.key_width), (samples, len(kb.views))
        if (query.shape, query_has_view.shape) != expected:
            raise KnowledgeBaseError(
                f"knowledge base {kb.name}: expected queries and view flags of shapes {expected}, "
                f"got {query.shape} and {query_has_view.shape}; make them with build_keys"
            )
