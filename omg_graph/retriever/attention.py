"""Similarity, sparse attention and alignment cost (Eqs. 8 and 9), differentiable in the query."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

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


def mean_weights(similarities: Float[Tensor, "batch k"], temperature: float) -> Float[Tensor, "batch k"]:  # noqa: ARG001
    """The same weight for every entry found, 1/K: mean pooling in place of Eq. 8's attention."""
    found = (similarities > -torch.inf).to(similarities.dtype)
    return found / found.sum(dim=1, keepdim=True).clamp(min=1.0)


AggregationName = Literal["attention", "mean"]
AGGREGATIONS: Mapping[AggregationName, Callable[[Tensor, float], Tensor]] = {
    "attention": attention_weights,
    "mean": mean_weights,
}
"""How the entries found are weighed: (similarities, temperature) to weights."""


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
