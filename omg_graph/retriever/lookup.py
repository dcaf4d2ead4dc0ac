"""Looking into a knowledge base by hand: entries by the meaning of their text, and counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from omg_graph.errors import KnowledgeBaseError
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.keys import FloatArray


@dataclass(frozen=True)
class ScoredEntry:
    """An entry and how near its text is to what was asked for."""

    id: str
    group: str
    text: str
    source: str
    label: str | None
    score: float
    """cos(g(question), u_i)."""


@dataclass(frozen=True)
class Statistics:
    """What a knowledge base holds."""

    name: str
    fingerprint: str
    model_fingerprint: str
    entries: int
    groups: int
    largest_group: int
    texts: int
    """Different texts."""
    views: dict[str, tuple[int, int]]
    """View to (width, entries that have it)."""
    values: dict[str, tuple[int, int]]
    """Modality to (latent width, entries that have it)."""
    sources: dict[str, int]
    labels: dict[str, int]
    """Label to the number of entries, the most frequent first; empty without labels."""


def lookup(kb: KnowledgeBase, embedding: FloatArray, k: int) -> list[ScoredEntry]:
    """The k entries whose text means most nearly what ``embedding`` = g(question) does, ties by id.

    Raises:
        KnowledgeBaseError: if the embedding isn't as wide as those of the entries, or ``k`` is below one.
    """
    width = kb.text_embeddings.shape[1]
    if embedding.shape != (width,):
        raise KnowledgeBaseError(
            f"knowledge base {kb.name}: expected a text embedding of shape {(width,)}, {embedding.shape} "
            "came; use the text encoder of the model that made it"
        )
    if k < 1:
        raise KnowledgeBaseError(f"expected a top-k of 1 or more, got {k}; ask for at least one entry")
    entries = kb.text_embeddings.astype(np.float64)
    question = embedding.astype(np.float64)
    lengths = np.linalg.norm(entries, axis=1) * np.linalg.norm(question)
    scores = ((entries @ question) / np.where(lengths > 0.0, lengths, 1.0)).astype(np.float32)
    order = np.argsort(-scores, kind="stable")[:k]
    return [
        ScoredEntry(
            id=kb.ids[row],
            group=kb.groups[row],
            text=kb.texts[row],
            source=kb.sources[row],
            label=None if kb.labels is None else kb.labels[row],
            score=float(scores[row]),
        )
        for row in order
    ]


def stats(kb: KnowledgeBase) -> Statistics:
    """Counts and widths."""
    groups = Counter(kb.groups)
    named = [label for label in kb.labels or () if label is not None]
    return Statistics(
        name=kb.name,
        fingerprint=kb.fingerprint,
        model_fingerprint=kb.model_fingerprint,
        entries=len(kb),
        groups=len(groups),
        largest_group=max(groups.values()),
        texts=len(set(kb.texts)),
        views={
            view.name: (view.width, int(kb.has_view[:, column].sum())) for column, view in enumerate(kb.views)
        },
        values={name: (array.shape[1], int(kb.has_value[name].sum())) for name, array in kb.values.items()},
        sources=dict(Counter(kb.sources).most_common()),
        labels=dict(Counter(named).most_common()),
    )
