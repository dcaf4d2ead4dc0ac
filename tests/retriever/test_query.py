from __future__ import annotations

import pytest
import torch

from omg_graph.retriever.evidence import attention_weights, evidence_alignment_cost, exact_search
from omg_graph.retriever.query import LiteralQueryProjection, QueryProjection
from omg_graph.seeding import generator


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator("query", *shape))


def test_an_untrained_correction_leaves_the_raw_query_exactly() -> None:
    raw = drawn(4, 7)
    assert torch.equal(QueryProjection(5, 3, [4, 3])(raw, drawn(4, 5), drawn(4, 3)), raw)


def test_the_evidence_cost_reaches_the_projection_from_its_zero_start() -> None:
    projection = QueryProjection(5, 3, [4, 3])
    query = projection(drawn(4, 7), drawn(4, 5), drawn(4, 3))
    keys = torch.cat([torch.nn.functional.normalize(drawn(20, width), dim=1) for width in (4, 3)], dim=1)
    every = torch.ones(20, 2, dtype=torch.bool)
    found = exact_search(query, every[:4], keys, every, torch.ones(4, 20, dtype=torch.bool), k=5)
    weights = attention_weights(found.similarities, 0.07)
    evidence_alignment_cost(weights, drawn(4, 3), drawn(20, 3)[found.indices]).sum().backward()
    for parameter in projection.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_correction_can_have_either_sign_and_stays_below_a_view(sign: float) -> None:
    projection = QueryProjection(2, 2, [4, 9])
    torch.nn.init.constant_(projection.projection.bias, sign * 100.0)
    correction = projection.correction(torch.zeros(1, 2), torch.zeros(1, 2))
    assert (correction * sign > 0).all()
    assert float(correction[0, :4].norm().detach()) == pytest.approx(1.0)
    assert float(correction[0, 4:].norm().detach()) == pytest.approx(1.0)


def test_the_literal_query_has_unit_length_and_both_signs() -> None:
    projection = LiteralQueryProjection(5, 3, 16, seed=1)
    query = projection(torch.zeros(6, 16), drawn(6, 5), drawn(6, 3))
    torch.testing.assert_close(query.norm(dim=1), torch.ones(6))
    assert (query > 0).any()
    assert (query < 0).any()


def test_the_start_depends_on_the_seed_alone_and_draws_from_no_global_generator() -> None:
    before = torch.random.get_rng_state()
    first, second = LiteralQueryProjection(5, 3, 4, seed=1), LiteralQueryProjection(5, 3, 4, seed=1)
    QueryProjection(5, 3, [4])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.projection.weight, second.projection.weight)
    other = LiteralQueryProjection(5, 3, 4, seed=2)
    assert not torch.equal(first.projection.weight, other.projection.weight)


def test_a_view_can_be_given_more_or_less_say() -> None:
    projection = QueryProjection(5, 3, [4, 3])
    torch.nn.init.constant_(projection.view_scales[1], -100.0)
    query = projection(drawn(4, 7), drawn(4, 5), drawn(4, 3))
    assert torch.equal(query[:, :4], drawn(4, 7)[:, :4])
    assert not query[:, 4:].any()
