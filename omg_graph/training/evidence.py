"""Evidence in training: differentiable in the query, from a shortlist found by exact search."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from omg_graph.model.components import KeepQuery, PlanCondition, own_plan, validated
from omg_graph.priors.kernel_fitting import search_factors
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.evidence import (
    Attention,
    aggregate,
    attention_weights,
    evidence_alignment_cost,
    exact_search,
)
from omg_graph.retriever.query import QueryProjection
from omg_graph.retriever.retriever import OwnEntries
from omg_graph.training.config import RetrieverSettings
from omg_graph.training.fitting import EpochCallback, FitSettings, fit
from omg_graph.training.rows import IntArray, PairData

STEPS = FitSettings(epochs=8, batch_size=128, learning_rate=1e-3, weight_decay=1e-2)
ALIGNMENT_WEIGHT = 0.1
"""Of C_evi (Eq. 9) in metric learning."""
SHORTLIST = 32
"""Entries from which each training step picks the top K; K if that is larger."""
BLOCK = 256
SCALE_STEP = 2.0
"""Factor of one step of the search for scales."""
SCALE_PAIRS = 384
"""Training pairs used for that search."""
SCALE_GAIN = 0.002
"""Relative fall of the error that a step must bring."""


@dataclass
class EvidenceSource:
    """The knowledge base of the training split as tensors, with the query projection."""

    kb: KnowledgeBase
    projection: nn.Module
    settings: RetrieverSettings
    query_plan: PlanCondition = own_plan
    """Whose plan turns the query."""
    attention: Attention = attention_weights

    def __post_init__(self) -> None:
        self.keys = torch.from_numpy(self.kb.keys)
        self.has_view = torch.from_numpy(self.kb.has_view)
        self.values = {name: torch.from_numpy(value) for name, value in self.kb.values.items()}
        self.has_value = {name: torch.from_numpy(value) for name, value in self.kb.has_value.items()}
        self.text_embeddings = torch.from_numpy(self.kb.text_embeddings)
        self.own = OwnEntries(self.kb.ids, self.kb.groups)
        self.shortlisted = max(SHORTLIST, self.settings.top_k)

    def query(self, data: PairData, pairs: IntArray) -> tuple[Tensor, Tensor]:
        """Eq. 7's query of each pair, and the views that it has."""
        raw, has_view = data.raw_queries(pairs)
        if self.settings.plan_view:
            planned = functional.normalize(data.plans(pairs)[:, 0], dim=-1)
            raw = torch.cat([raw, planned], dim=1)
            has_view = torch.cat([has_view, planned.any(dim=1, keepdim=True)], dim=1)
        if self.settings.query == "raw":
            return raw, has_view
        index = torch.from_numpy(pairs)
        ids = [data.ids[row] for row in data.pool.rows[pairs]]
        plan = self.query_plan(data.plans(pairs)[:, 0], ids)
        if self.settings.query == "literal":
            raw = raw.new_zeros(len(pairs), self.kb.key_width)
            has_view = torch.ones(len(pairs), 1, dtype=torch.bool)
        return self.projection(raw, data.observation[index], plan), has_view

    def shortlist(self, data: PairData, *, fitted: bool, pairs: IntArray | None = None) -> dict[str, Tensor]:
        """Modality to (pairs, S): the best entries that have the modality, by exact search.

        Never the row itself, nor any of its group. A literal query (Eq. 7 as printed) is
        meaningless before it is fitted: u_X, which lies in the space of the keys, then replaces it.

        Args:
            data: Pairs.
            fitted: Whether the query has been.
            pairs: Those to search for, the tables having -1 elsewhere; all if None.
        """
        wanted = data.pool.everything if pairs is None else pairs
        out: dict[str, Tensor] = {}
        shared: dict[bytes, Tensor] = {}
        for name, has in self.has_value.items():
            key = has.numpy().tobytes()
            if key not in shared:
                shared[key] = torch.full((len(data.pool), self.shortlisted), -1)
                for start in range(0, len(wanted), BLOCK):
                    block = wanted[start : start + BLOCK]
                    shared[key][torch.from_numpy(block)] = self._search(data, block, has, fitted)
            out[name] = shared[key]
        return out

    def _search(self, data: PairData, pairs: IntArray, has: Tensor, fitted: bool) -> Tensor:
        rows = data.pool.rows[pairs]
        ids = [data.ids[row] for row in rows]
        groups = [data.groups[row] for row in rows]
        allowed = torch.from_numpy(self.own.allowed(ids, groups)) & has
        with torch.no_grad():
            query, has_view = self.query(data, pairs)
            if self.settings.query == "literal" and not fitted:
                query = data.observation[torch.from_numpy(pairs)]
            found = exact_search(query, has_view, self.keys, self.has_view, allowed, k=self.shortlisted)
        return torch.where(found.found, found.indices, -1)

    def evidence(self, data: PairData, pairs: IntArray) -> tuple[dict[str, Tensor], Tensor]:
        """E of every modality (Eq. 8) and the mean of C_evi over them, (batch,) (Eq. 9).

        The current query picks the top K from the shortlist; weights and cost are differentiable in the query
        projection.
        """
        query, has_view = self.query(data, pairs)
        index = torch.from_numpy(pairs)
        plan = data.plans(pairs)[:, 0]
        evidence: dict[str, Tensor] = {}
        costs: list[Tensor] = []
        weighed: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        for name, table in data.shortlist.items():
            if id(table) not in weighed:
                weighed[id(table)] = self._weigh(query, has_view, table[index], plan)
            entries, weights, cost = weighed[id(table)]
            evidence[name] = aggregate(weights, self.values[name][entries])
            costs.append(cost)
        return evidence, torch.stack(costs).mean(dim=0)

    def _weigh(
        self, query: Tensor, has_view: Tensor, shortlist: Tensor, plan: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        entries = shortlist.clamp(min=0)
        shared = (has_view.unsqueeze(1) & self.has_view[entries]).sum(dim=-1).clamp(min=1)
        similarity = (query.unsqueeze(1) * self.keys[entries]).sum(dim=-1) / shared
        similarity = torch.where(shortlist >= 0, similarity, -torch.inf)
        best = similarity.topk(min(self.settings.top_k, similarity.shape[1]), dim=1)
        weights = self.attention(best.values, self.settings.temperature)
        chosen = entries.gather(1, best.indices)
        cost = evidence_alignment_cost(weights, plan, self.text_embeddings[chosen])
        return chosen, weights, cost


@dataclass(frozen=True)
class ProjectionFit:
    """Whether the learned query was kept."""

    kept: bool
    """Whether any part was kept: the scales alone, or the correction too."""
    corrected: bool
    """Whether the correction was kept."""
    error_before: float
    """Squared error of E on validation rows, over that of the training mean, with the raw query."""
    error_after: float


def evidence_error(source: EvidenceSource, data: PairData, pairs: IntArray) -> tuple[Tensor, Tensor]:
    """Squared error of E over the mean square of the truth, and the mean of C_evi."""
    evidence, cost = source.evidence(data, pairs)
    rows = data.rows(pairs)
    errors = []
    for column, (name, truth) in enumerate(data.latents.items()):
        wanted = data.wanted(pairs)[:, column].unsqueeze(1)
        if not bool(wanted.any()):
            continue
        target = truth[rows]
        error = ((evidence[name] - target).square() * wanted).sum()
        errors.append(error / (target.square() * wanted).sum().clamp(min=1e-9))
    mean = torch.stack(errors).mean() if errors else cost.new_zeros(())
    return mean, cost.mean()


def fit_projection(
    source: EvidenceSource,
    training: PairData,
    validation: PairData,
    checked: IntArray,
    *,
    seed: int,
    keep: KeepQuery = validated,
    on_epoch: EpochCallback | None = None,
) -> ProjectionFit:
    """Metric learning of Eq. 7 with Eq. 9: a scale for each view, then the correction.

    Either is kept only if it helps validation rows.
    """
    settings = source.settings
    # equal weights carry no gradient: the query is always learned with the weights of Eq. 8
    source = replace(source, attention=attention_weights)

    def loss(batch: IntArray, _epoch: int) -> Tensor:
        error, cost = evidence_error(source, training, batch)
        return error + ALIGNMENT_WEIGHT * cost

    def validate() -> float:
        return float(evidence_error(source, validation, checked)[0])

    with torch.no_grad():
        before = validate()
    if settings.epochs == 0 or settings.query == "raw":
        return ProjectionFit(False, False, before, before)
    initial = _copied(source.projection)
    scaled = before
    if settings.query == "corrected":
        search_scales(source, training)
        with torch.no_grad():
            _search_anew(source, (training, validation))
            scaled = validate()
        if scaled < before:
            initial = _copied(source.projection)
        else:
            source.projection.load_state_dict(initial)
            _search_anew(source, (training, validation))
            scaled = before
    report = fit(
        source.projection,
        loss,
        lambda epoch: training.pool.draw(seed + 2, epoch),
        replace(STEPS, epochs=settings.epochs),
        seed=seed,
        purpose="query",
        validate=validate,
        on_epoch=on_epoch,
    )
    after = float(report.validation_loss if report.validation_loss is not None else scaled)
    corrected = settings.query == "literal" or keep(scaled, after)
    if not corrected:
        source.projection.load_state_dict(initial)
        after = scaled
    return ProjectionFit(corrected or scaled < before, corrected, before, after)


def search_scales(source: EvidenceSource, data: PairData) -> Tensor:
    """Weights of the views in the query: a search, view by view, for the least evidence error.

    An uninformative view puts the wrong entries first, and entries outside the shortlist have no gradient. So
    every step searches all entries again.

    Returns:
        The scales, (views,), which are also set in the source's projection.
    """
    projection = source.projection
    if not isinstance(projection, QueryProjection):
        raise TypeError(f"expected a projection with scales, got {type(projection).__name__}")
    pairs = data.pool.spaced(data.pool.everything, SCALE_PAIRS)

    def error(scales: Tensor) -> float:
        projection.set_scales(scales)
        found = source.shortlist(data, fitted=True, pairs=pairs)
        return float(evidence_error(source, replace(data, shortlist=found), pairs)[0])

    with torch.no_grad():
        start = torch.ones(len(projection.view_scales))
        best, _ = search_factors(start, error, step=SCALE_STEP, gain=SCALE_GAIN)
        projection.set_scales(best)
    return best


def _search_anew(source: EvidenceSource, splits: tuple[PairData, ...]) -> None:
    for data in splits:
        data.shortlist.update(source.shortlist(data, fitted=True))


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}
