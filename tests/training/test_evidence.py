"""The query of Eq. 7 is learned view by view first: what says nothing of who is alike counts little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from omg_graph.data.patterns import pattern_pool
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.keys import side_by_side
from omg_graph.retriever.query import QueryProjection
from omg_graph.seeding import generator
from omg_graph.training.config import RetrieverSettings
from omg_graph.training.evidence import EvidenceSource, evidence_error, fit_projection, search_scales
from omg_graph.training.rows import PairData

ROWS, WIDTH = 160, 4
NAMES = ("signal", "noise", "target")
TABLE = torch.zeros(1, 2, 3)
EVERY = np.arange(ROWS, dtype=np.int64)


def pairs(seed: int, name: str) -> PairData:
    """Rows whose target follows from one view; the other is noise. The target is always hidden."""
    source = generator("evidence rows", seed)
    signal = functional.normalize(torch.randn(ROWS, WIDTH, generator=source), dim=1)
    noise = functional.normalize(torch.randn(ROWS, WIDTH, generator=source), dim=1)
    ids = tuple(f"{name}{row:03d}" for row in range(ROWS))
    observed = np.tile([True, True, False], (ROWS, 1))
    pool = pattern_pool(observed, ids, 1, 0)
    pool.visible[:] = observed
    latents = {"signal": signal, "noise": noise, "target": 2 * signal[:, :2]}
    return PairData(
        ids=ids,
        groups=ids,
        latents=latents,
        known=torch.ones(ROWS, 3, dtype=torch.bool),
        label=None,
        keys=torch.cat([signal, noise, torch.zeros(ROWS, 2)], dim=1),
        view_of_column=torch.tensor([0] * WIDTH + [1] * WIDTH + [2] * 2),
        pool=pool,
        observation=torch.zeros(ROWS, 3),
        plan_index=torch.zeros(ROWS, dtype=torch.int64),
        plan_table=TABLE,
        folds=np.zeros(ROWS, dtype=np.int64),
        estimates={},
        shortlist={},
    )


def source_over(data: PairData, **settings: object) -> EvidenceSource:
    views = side_by_side({name: value.shape[1] for name, value in data.latents.items()})
    kb = KnowledgeBase(
        name="rows",
        model_fingerprint="m",
        views=views,
        ids=data.ids,
        groups=data.groups,
        texts=("",) * ROWS,
        sources=("rows",) * ROWS,
        keys=data.keys.numpy(),
        has_view=np.tile([True, True, False], (ROWS, 1)),
        values={"target": data.latents["target"].numpy()},
        has_value={"target": np.ones(ROWS, dtype=np.bool_)},
        text_embeddings=np.ones((ROWS, 3), dtype=np.float32),
    )
    projection = QueryProjection(3, 3, [view.width for view in views])
    made = EvidenceSource(kb, projection, RetrieverSettings(**settings))  # type: ignore[arg-type]
    data.shortlist.update(made.shortlist(data, fitted=True))
    return made


def error(source: EvidenceSource, data: PairData) -> float:
    data.shortlist.update(source.shortlist(data, fitted=True))
    with torch.no_grad():
        return float(evidence_error(source, data, EVERY)[0])


def test_a_view_of_noise_counts_little_afterwards() -> None:
    data = pairs(0, "row")
    source = source_over(data)
    before = error(source, data)
    scales = search_scales(source, data)
    assert float(scales[1]) < float(scales[0]) / 4
    assert error(source, data) < 0.7 * before


def test_scales_are_kept_for_what_they_bring_validation_rows() -> None:
    training, validation = pairs(0, "row"), pairs(1, "new")
    source = source_over(training, epochs=1)
    validation.shortlist.update(source.shortlist(validation, fitted=True))
    fitted = fit_projection(source, training, validation, EVERY, seed=0)
    assert fitted.kept
    assert fitted.error_after < 0.8 * fitted.error_before
    if not fitted.corrected:  # then nothing but the scales is left in the query
        assert isinstance(source.projection, QueryProjection)
        assert not source.projection.projection.weight.any()


@pytest.mark.parametrize("settings", [{"epochs": 0}, {"query": "raw"}])
def test_nothing_is_searched_where_no_query_is_learned(settings: dict[str, object]) -> None:
    data = pairs(0, "row")
    source = source_over(data, **settings)
    fitted = fit_projection(source, data, data, EVERY, seed=0)
    assert not fitted.kept
    assert not fitted.corrected
    assert isinstance(source.projection, QueryProjection)
    assert not source.projection.view_scales.any()


def test_a_view_of_plans_finds_entries_of_the_plan() -> None:
    """Keys and queries end with the plan in words: with nothing else alike, entries of the same plan win."""
    data = replace(
        pairs(4, "p"),
        plan_index=torch.arange(ROWS) % 2,
        plan_table=torch.eye(3)[:2, None, :].expand(2, 2, 3),
    )
    planned = data.plans(EVERY)[:, 0]
    blind = replace(data, keys=torch.zeros_like(data.keys))
    kb = source_over(data).kb
    views = side_by_side({name: value.shape[1] for name, value in data.latents.items()} | {"plan": 3})
    kb = replace(
        kb,
        views=views,
        keys=np.concatenate([kb.keys, planned.numpy()], axis=1),
        has_view=np.column_stack([kb.has_view, np.ones(ROWS, dtype=np.bool_)]),
    )
    projection = QueryProjection(3, 3, [view.width for view in views])
    found = EvidenceSource(kb, projection, RetrieverSettings(plan_view=True, query="raw"))
    best = found.shortlist(blind, fitted=True)["target"][:, : ROWS // 2 - 1]
    assert bool((best % 2 == torch.arange(ROWS)[:, None] % 2).all())
