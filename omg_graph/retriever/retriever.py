"""Retrieval for a batch: for every missing modality the entries nearest to the query, weighed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from omg_graph.errors import KnowledgeBaseError
from omg_graph.retriever.attention import AggregationName
from omg_graph.retriever.entries import IntArray, KnowledgeBase
from omg_graph.retriever.evidence import DEFAULT_TEMPERATURE, Evidence, Hit, weigh
from omg_graph.retriever.exclusion import NOBODY, OwnEntries
from omg_graph.retriever.index import ChromaIndex
from omg_graph.retriever.keys import BoolArray, FloatArray
from omg_graph.retriever.search import Queries, best_in_partition


class Retriever(Protocol):
    """(E, N_K) = pi_R(X, S; D) for a batch (section 3.4): anything that finds evidence for samples."""

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


class ChromaRetriever:
    """Evidence from a knowledge base through its Chroma index; equal to ``attention.exact_search``."""

    name = "chroma"

    def __init__(
        self,
        kb: KnowledgeBase,
        index: ChromaIndex,
        temperature: float = DEFAULT_TEMPERATURE,
        aggregation: AggregationName = "attention",
    ) -> None:
        if index.kb.fingerprint != kb.fingerprint:
            raise KnowledgeBaseError(
                f"knowledge base {kb.name}: an index of the same entries was expected, one of "
                f"{index.kb.name} came; open it with ChromaIndex.open(kb)"
            )
        self.kb = kb
        self.index = index
        self.temperature = temperature
        self.aggregation = aggregation
        self._own = OwnEntries(kb.ids, kb.groups)
        groups = int(self._own.entry_groups.max()) + 1
        self._group_sizes: dict[str, IntArray] = {
            name: np.bincount(self._own.entry_groups[flags], minlength=groups)
            for name, flags in kb.has_value.items()
        }

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
                aggregation=self.aggregation,
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
            raise KnowledgeBaseError(
                f"a top-k of 1 or more was expected, {k} came; ask for at least one entry"
            )
        for name in targets:
            if name not in kb.values:
                raise KnowledgeBaseError(
                    f"knowledge base {kb.name}: one of {', '.join(sorted(kb.values))} was expected, "
                    f"{name} came; build one with that modality"
                )
        expected = (samples, kb.key_width), (samples, len(kb.views))
        if (query.shape, query_has_view.shape) != expected:
            raise KnowledgeBaseError(
                f"knowledge base {kb.name}: queries and view flags of shapes {expected} were expected, "
                f"{query.shape} and {query_has_view.shape} came; make them with build_keys"
            )


class NoRetriever:
    """Nothing is looked up, ever: what a model is used with that was trained without evidence."""

    name = "none"

    def __init__(self, widths: Mapping[str, int]) -> None:
        self.widths = widths
        """Modality to the width of its values."""

    def retrieve(
        self,
        query: FloatArray,  # noqa: ARG002
        query_has_view: BoolArray,  # noqa: ARG002
        plan_embeddings: FloatArray,
        *,
        ids: Sequence[str],
        groups: Sequence[str],
        targets: Mapping[str, BoolArray],
        k: int,
        allow_own_group: bool = False,
        plan_texts: Sequence[str] = (),  # noqa: ARG002
    ) -> dict[str, Evidence]:
        """See ``Retriever.retrieve``; no sample gets an entry, and E is zero."""
        return {
            name: weigh(
                [()] * len(ids),
                plan_embeddings=plan_embeddings,
                ids=ids,
                groups=groups,
                requested=asked,
                value_width=self.widths[name],
                k=k,
                allow_own_group=allow_own_group,
            )
            for name, asked in targets.items()
        }
