"""Evidence: entries found, weighted and aggregated (Eqs. 8 and 9); differentiable in the query."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from omg_graph.errors import KnowledgeBaseError
from omg_graph.record.trajectory import EvidenceEntry
from omg_graph.retriever.keys import BoolArray, FloatArray

ENTRY_BLOCK = 16_384
"""Entries scored at once in double precision, so that memory doesn't grow with the knowledge base."""


class Neighbours(NamedTuple):
    """The best entries of each query, best first."""

    indices: Int[Tensor, "batch k"]
    """Rows of entries; 0 where ``found`` is False."""
    similarities: Float[Tensor, "batch k"]
    """Before the temperature; -inf where ``found`` is False."""
    found: Bool[Tensor, "batch k"]
    """False where fewer than k entries were allowed."""


def shared_views(
    query_has_view: Bool[Tensor, "batch views"], has_view: Bool[Tensor, "entries views"]
) -> Float[Tensor, "batch entries"]:
    """How many views a query and an entry both have."""
    return query_has_view.float() @ has_view.float().T


def similarities(
    query: Float[Tensor, "batch width"],
    query_has_view: Bool[Tensor, "batch views"],
    keys: Float[Tensor, "entries width"],
    has_view: Bool[Tensor, "entries views"],
) -> Float[Tensor, "batch entries"]:
    """<q, k_i> over the number of views that both have: the mean cosine, if the query is a raw one.

    An entry that shares no view with the query gets -inf.
    """
    shared = shared_views(query_has_view, has_view)
    return torch.where(shared > 0, query @ keys.T / shared.clamp(min=1.0), -torch.inf)


def top_k(similarities: Float[Tensor, "batch entries"], k: int) -> Neighbours:
    """The k largest of each row, -inf never among them; ties go to the earlier entry.

    A knowledge base keeps its entries in the order of their ids, so ties go by id.
    """
    ranked, order = torch.sort(similarities, dim=1, descending=True, stable=True)
    ranked, order = ranked[:, :k], order[:, :k]
    lacking = k - ranked.shape[1]
    ranked = functional.pad(ranked, (0, lacking), value=-torch.inf)
    found = ranked > -torch.inf
    return Neighbours(torch.where(found, functional.pad(order, (0, lacking)), 0), ranked, found)


def attention_weights(similarities: Float[Tensor, "batch k"], temperature: float) -> Float[Tensor, "batch k"]:
    """Softmax of s_i = similarity / kappa over the entries found (Eq. 8's weights).

    Each row sums to one; entries at -inf get zero, and a row that has no other is zero throughout.
    """
    found = similarities > -torch.inf
    # A finite floor instead of -inf: the softmax of nothing but -inf is NaN, forward and backward.
    logits = torch.where(found, similarities / temperature, torch.finfo(similarities.dtype).min)
    return torch.softmax(logits, dim=1) * found


Attention = Callable[[Tensor, float], Tensor]
"""(similarities of the entries found (batch, k), temperature) to their weights."""


def sparse_attention(
    similarities: Float[Tensor, "batch entries"], temperature: float, k: int
) -> tuple[Neighbours, Float[Tensor, "batch k"]]:
    """N_K and the attention weights over it (Eq. 8); a row without entries has ``found`` False throughout."""
    neighbours = top_k(similarities, k)
    return neighbours, attention_weights(neighbours.similarities, temperature)


def aggregate(
    weights: Float[Tensor, "batch k"], values: Float[Tensor, "batch k latent"]
) -> Float[Tensor, "batch latent"]:
    """E = sum of alpha_i v_i (Eq. 8)."""
    return (weights.unsqueeze(-1) * values).sum(dim=1)


def evidence_alignment_cost(
    weights: Float[Tensor, "batch k"],
    plan_embedding: Float[Tensor, "batch text"],
    entry_embeddings: Float[Tensor, "batch k text"],
) -> Float[Tensor, " batch"]:
    """C_evi = sum of alpha_i (1 - cos(c_S, u_i)) (Eq. 9), between 0 and 2; 0 for a row without evidence."""
    cosines = functional.cosine_similarity(plan_embedding.unsqueeze(1), entry_embeddings, dim=-1)
    return (weights * (1.0 - cosines)).sum(dim=1)


def exact_search(
    query: Float[Tensor, "batch width"],
    query_has_view: Bool[Tensor, "batch views"],
    keys: Float[Tensor, "entries width"],
    has_view: Bool[Tensor, "entries views"],
    allowed: Bool[Tensor, "batch entries"],
    *,
    k: int,
) -> Neighbours:
    """The k most similar allowed entries by looking at all of them, as ``similarities`` defines it.

    The reference that the index must equal, and what training uses: the similarities carry a gradient to
    the query (and the keys); which entries are chosen doesn't. Ranked in double precision and rounded
    once, so that neither the batch nor the order of summation decides between entries that tie.
    """
    with torch.no_grad():
        exact = torch.cat(
            [
                similarities(query.double(), query_has_view, keys[block].double(), has_view[block]).float()
                for block in _blocks(len(keys))
            ],
            dim=1,
        )
        chosen = top_k(exact.masked_fill(~allowed, -torch.inf), k)
    # Only the chosen pairs are computed again with a gradient: the whole matrix would be kept for nothing.
    shared = (query_has_view.unsqueeze(1) & has_view[chosen.indices]).sum(dim=-1).clamp(min=1)
    values = (query.unsqueeze(1) * keys[chosen.indices]).sum(dim=-1) / shared
    return chosen._replace(similarities=torch.where(chosen.found, values, -torch.inf))


def _blocks(entries: int) -> list[slice]:
    return [slice(start, start + ENTRY_BLOCK) for start in range(0, entries, ENTRY_BLOCK)]


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
    note: str | None = None
    """A message for the user about the search, such as a fallback."""

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
    attention: Attention = attention_weights,
    note: str | None = None,
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
        attention: how entries are weighed.
        note: a message for the user about the search.

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
    weights = attention(similarities, temperature)
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
        note=note,
    )


def _checked(hit: Hit, value_width: int) -> bool:
    if hit.value.shape != (value_width,):
        raise KnowledgeBaseError(
            f"entry {hit.id}: expected a value of shape {(value_width,)}, got {hit.value.shape}; "
            "use latents of the model that reads the evidence"
        )
    if not (math.isfinite(hit.similarity) and np.isfinite(hit.value).all()):
        raise KnowledgeBaseError(
            f"entry {hit.id}: expected a finite similarity and value, got {hit.similarity} and "
            f"{int((~np.isfinite(hit.value)).sum())} non-finite numbers; leave the entry out"
        )
    return True
