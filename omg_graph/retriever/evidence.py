"""Evidence: what was found for each sample, weighed and aggregated, with where it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from omg_graph.errors import KnowledgeBaseError
from omg_graph.record.trajectory import EvidenceEntry
from omg_graph.retriever.attention import AGGREGATIONS, AggregationName, aggregate, evidence_alignment_cost
from omg_graph.retriever.keys import BoolArray, FloatArray

IntArray = npt.NDArray[np.int64]

DEFAULT_TEMPERATURE = 0.07
"""kappa, Table 1 of the paper's appendix A."""


@dataclass(frozen=True)
class Hit:
    """What a search found for one sample and modality: an entry with the vectors that Eqs. 8 and 9 need."""

    id: str
    group: str
    text: str
    source: str
    similarity: float
    """Mean cosine, or whatever the search ranks by on that scale (-1 to 1); larger is nearer."""
    value: FloatArray
    """v_i, (latent width,)."""
    text_embedding: FloatArray
    """u_i = g(text), (text width,)."""


@dataclass(frozen=True)
class Evidence:
    """The evidence of a batch for one missing modality, a row each."""

    entries: tuple[tuple[EvidenceEntry, ...], ...]
    """N_K with its weights, best first; empty where nothing was asked for or nothing allowed was found."""
    aggregated: FloatArray
    """E of Eq. 8, (samples, latent width); zeros where there is no entry."""
    alignment_cost: FloatArray
    """C_evi of Eq. 9, (samples,); 0 where there is no entry."""
    excluded: IntArray
    """(samples,): entries left out because they are the sample itself or of its group."""
    requested: BoolArray
    """(samples,): whether evidence for this modality was asked for."""
    nearest: FloatArray | None = None
    """The value of the heaviest entry, (samples, latent width); zeros where there is no entry."""

    @property
    def found(self) -> BoolArray:
        """(samples,): whether there is any evidence."""
        return np.array([bool(row) for row in self.entries], dtype=np.bool_)


def weigh(
    hits: Sequence[Sequence[Hit]],
    *,
    plan_embeddings: FloatArray,
    ids: Sequence[str],
    groups: Sequence[str],
    requested: BoolArray,
    value_width: int,
    k: int,
    temperature: float = DEFAULT_TEMPERATURE,
    allow_own_group: bool = False,
    left_out: IntArray | None = None,
    aggregation: AggregationName = "attention",
) -> Evidence:
    """Turn what a search found into evidence: the k most similar hits of each sample, by Eqs. 8 and 9.

    Hits that are the sample itself are dropped and counted, and so are those of its group unless
    ``allow_own_group``: no search can break that rule. Ties go by id. Rows don't influence each other.

    Args:
        hits: for each sample what was found, in any order and number.
        plan_embeddings: c_S, (samples, text width).
        ids: the samples' ids.
        groups: the samples' groups.
        requested: (samples,); rows that are False get no evidence.
        value_width: width of the values, which ``aggregated`` has even if nothing was found.
        k: most entries a sample gets.
        temperature: kappa of Eq. 8.
        allow_own_group: whether entries of the sample's own group (never itself) may serve.
        left_out: (samples,): how many own entries the search has left out already.
        aggregation: how entries are weighed.

    Raises:
        KnowledgeBaseError: if a hit's similarity or value isn't finite, or its value has another width.
    """
    rows = len(ids)
    k = max(1, min(k, max(map(len, hits), default=0)))  # memory for what there is, however much is asked for
    excluded = np.zeros(rows, dtype=np.int64) if left_out is None else left_out.astype(np.int64)
    chosen: list[list[Hit]] = []
    similarities = torch.full((rows, k), -math.inf)
    values = torch.zeros(rows, k, value_width)
    embeddings = torch.zeros(rows, k, plan_embeddings.shape[1])
    for row, (sample_id, group) in enumerate(zip(ids, groups, strict=True)):
        offered = hits[row] if requested[row] else ()
        fair = [
            hit
            for hit in offered
            if hit.id != sample_id and (allow_own_group or hit.group != group) and _checked(hit, value_width)
        ]
        excluded[row] = excluded[row] + len(offered) - len(fair) if requested[row] else 0
        best = sorted(fair, key=lambda hit: (-hit.similarity, hit.id))[:k]
        chosen.append(best)
        if best:
            similarities[row, : len(best)] = torch.tensor([hit.similarity for hit in best])
            values[row, : len(best)] = torch.from_numpy(np.stack([hit.value for hit in best]))
            embeddings[row, : len(best)] = torch.from_numpy(np.stack([hit.text_embedding for hit in best]))
    weights = AGGREGATIONS[aggregation](similarities, temperature)
    plans = torch.from_numpy(np.ascontiguousarray(plan_embeddings, dtype=np.float32))
    return Evidence(
        entries=tuple(
            tuple(
                EvidenceEntry(
                    id=hit.id,
                    weight=float(weight),
                    similarity=float(hit.similarity),
                    text=hit.text,
                    source=hit.source,
                )
                for hit, weight in zip(best, weights[row].tolist(), strict=False)
            )
            for row, best in enumerate(chosen)
        ),
        aggregated=aggregate(weights, values).numpy(),
        alignment_cost=evidence_alignment_cost(weights, plans, embeddings).numpy(),
        excluded=excluded,
        requested=np.asarray(requested, dtype=np.bool_),
        nearest=values[:, 0].numpy(),
    )


def _checked(hit: Hit, value_width: int) -> bool:
    if hit.value.shape != (value_width,):
        raise KnowledgeBaseError(
            f"entry {hit.id}: a value of shape {(value_width,)} was expected, {hit.value.shape} came; "
            "use latents of the model that reads the evidence"
        )
    if not (math.isfinite(hit.similarity) and np.isfinite(hit.value).all()):
        raise KnowledgeBaseError(
            f"entry {hit.id}: a finite similarity and value were expected, {hit.similarity} and "
            f"{int((~np.isfinite(hit.value)).sum())} non-finite numbers came; leave the entry out"
        )
    return True
