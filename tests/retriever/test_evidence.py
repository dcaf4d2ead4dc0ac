from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from beartype import beartype
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import jaxtyped

from omg_graph.errors import KnowledgeBaseError
from omg_graph.retriever import evidence as formulas
from omg_graph.retriever.evidence import Evidence, Hit, weigh
from omg_graph.seeding import generator

exact_search = jaxtyped(typechecker=beartype)(formulas.exact_search)
sparse_attention = jaxtyped(typechecker=beartype)(formulas.sparse_attention)


def unit_views(rows: int, *seed: int, widths: tuple[int, ...] = (3, 2)) -> torch.Tensor:
    parts = [
        torch.nn.functional.normalize(torch.randn(rows, width, generator=generator(width, *seed)), dim=1)
        for width in widths
    ]
    return torch.cat(parts, dim=1)


@given(
    scores=st.lists(st.one_of(st.just(-math.inf), st.floats(-1, 1, width=32)), min_size=1, max_size=12),
    k=st.integers(1, 15),
    temperature=st.floats(0.01, 5),
)
@settings(max_examples=60, deadline=None)
def test_weights_are_a_distribution_over_the_best_allowed(
    scores: list[float], k: int, temperature: float
) -> None:
    neighbours, weights = sparse_attention(torch.tensor([scores]), temperature, k)
    allowed = sorted((score for score in scores if score > -math.inf), reverse=True)
    kept = min(k, len(allowed))
    assert neighbours.found.sum() == kept
    assert neighbours.similarities[0, :kept].tolist() == allowed[:kept]
    assert weights[0, kept:].sum() == 0
    assert float(weights.sum()) == pytest.approx(1.0 if kept else 0.0, abs=1e-5)
    chosen = neighbours.indices[0, :kept].tolist()
    assert len(set(chosen)) == kept
    assert [scores[row] for row in chosen] == allowed[:kept]


def test_weights_by_hand() -> None:
    _, weights = sparse_attention(torch.tensor([[0.0, 0.07 * math.log(3.0), -1.0]]), 0.07, 2)
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25]]))


def test_ties_go_to_the_earlier_entry() -> None:
    assert formulas.top_k(torch.tensor([[0.5, 0.9, 0.5, 0.9, 0.5]]), 4).indices.tolist() == [[1, 3, 0, 2]]


def test_similarity_is_the_mean_cosine_over_shared_views() -> None:
    query, keys = unit_views(2, 1), unit_views(3, 2)
    here = torch.tensor([[True, True], [True, False]])
    query[1, 3:] = 0
    has_view = torch.tensor([[True, True], [True, False], [False, True]])
    keys[1, 3:] = 0
    keys[2, :3] = 0
    result = formulas.similarities(query, here, keys, has_view)
    first = query[:, :3] @ keys[:, :3].T
    second = query[:, 3:] @ keys[:, 3:].T
    expected = torch.tensor(
        [
            [(first + second)[0, 0] / 2, first[0, 1], second[0, 2]],
            [first[1, 0], first[1, 1], -math.inf],
        ]
    )
    torch.testing.assert_close(result, expected)


def test_a_row_with_no_entry_has_no_weight_and_no_nan_in_its_gradient() -> None:
    query = unit_views(2, 3).requires_grad_()
    keys = unit_views(4, 4)
    views = torch.ones(4, 2, dtype=torch.bool)
    allowed = torch.tensor([[True] * 4, [False] * 4])
    neighbours = exact_search(query, views[:2], keys, views, allowed, k=6)
    weights = formulas.attention_weights(neighbours.similarities, 0.07)
    assert weights.sum(dim=1).tolist() == pytest.approx([1.0, 0.0])
    assert neighbours.found.sum(dim=1).tolist() == [4, 0]
    formulas.aggregate(weights, keys[neighbours.indices]).square().sum().backward()
    assert query.grad is not None
    assert query.grad[0].abs().sum() > 0
    assert query.grad[1].abs().sum() == 0


def test_exact_search_equals_sorting_everything() -> None:
    query, keys = unit_views(5, 5), unit_views(50, 6)
    every = torch.ones(50, 2, dtype=torch.bool)
    allowed = torch.rand(5, 50, generator=generator(7)) < 0.6
    found = exact_search(query, every[:5], keys, every, allowed, k=10)
    full = formulas.similarities(query, every[:5], keys, every).masked_fill(~allowed, -math.inf)
    expected = full.sort(dim=1, descending=True)
    assert found.indices.tolist() == expected.indices[:, :10].tolist()
    torch.testing.assert_close(found.similarities, expected.values[:, :10])


def test_exact_search_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    query, keys = unit_views(3, 8), unit_views(20, 9)
    every = torch.ones(20, 2, dtype=torch.bool)
    arguments = (query, every[:3], keys, every, torch.ones(3, 20, dtype=torch.bool))
    whole = exact_search(*arguments, k=5)
    monkeypatch.setattr(formulas, "ENTRY_BLOCK", 7)
    assert exact_search(*arguments, k=5).indices.tolist() == whole.indices.tolist()


def test_equal_keys_tie_whatever_the_batch() -> None:
    keys = unit_views(1, 10, widths=(300, 200)).repeat(40, 1)
    query = unit_views(9, 11, widths=(300, 200))
    every = torch.ones(40, 2, dtype=torch.bool)
    found = exact_search(query, every[:9], keys, every, torch.ones(9, 40, dtype=torch.bool), k=10)
    assert found.indices.tolist() == [list(range(10))] * 9


def test_alignment_cost_by_hand() -> None:
    plan = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    entries = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [0.0, -5.0]], [[1.0, 0.0], [1.0, 0.0]]])
    weights = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.0, 0.0]])
    cost = formulas.evidence_alignment_cost(weights, plan, entries)
    torch.testing.assert_close(cost, torch.tensor([0.75, 2.0, 0.0]))


def test_aggregation_is_the_weighted_sum() -> None:
    values = torch.tensor([[[1.0, 0.0], [0.0, 4.0]]])
    assert formulas.aggregate(torch.tensor([[0.75, 0.25]]), values).tolist() == [[0.75, 1.0]]


def hit(name: str, similarity: float, value: float = 1.0, group: str = "elsewhere", width: int = 2) -> Hit:
    return Hit(
        id=name,
        group=group,
        text=f"text of {name}",
        source="made",
        similarity=similarity,
        value=np.full(width, value, np.float32),
        text_embedding=np.array([1.0, 0.0], np.float32),
    )


def weighed(*hits: Hit, k: int = 2, allow_own_group: bool = False) -> Evidence:
    return weigh(
        [hits],
        plan_embeddings=np.array([[0.0, 1.0]], np.float32),
        ids=["me"],
        groups=["mine"],
        requested=np.array([True]),
        value_width=2,
        k=k,
        temperature=1.0,
        allow_own_group=allow_own_group,
    )


def test_the_best_in_order_with_softmax_weights() -> None:
    evidence = weighed(hit("c", 0.0), hit("b", float(np.log(3)), 4.0), hit("a", -5.0))
    assert [entry.id for entry in evidence.entries[0]] == ["b", "c"]
    assert [entry.weight for entry in evidence.entries[0]] == pytest.approx([0.75, 0.25])
    np.testing.assert_allclose(evidence.aggregated, [[3.25, 3.25]], rtol=1e-6)
    assert evidence.alignment_cost.tolist() == pytest.approx([1.0])


def test_ties_go_by_id() -> None:
    assert [entry.id for entry in weighed(hit("b", 0.5), hit("c", 0.5), hit("a", 0.5)).entries[0]] == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(("allowed", "left"), [(False, ["far"]), (True, ["near", "far"])])
def test_no_search_can_hand_over_own_entries(allowed: bool, left: list[str]) -> None:
    hits = hit("me", 1.0), hit("near", 0.9, group="mine"), hit("far", 0.1)
    evidence = weighed(*hits, allow_own_group=allowed)
    assert [entry.id for entry in evidence.entries[0]] == left
    assert evidence.excluded.tolist() == [3 - len(left)]


def test_values_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(KnowledgeBaseError, match=r"entry a: expected a value of shape \(2,\), got \(3,\)"):
        weighed(hit("a", 0.5, width=3))
    with pytest.raises(KnowledgeBaseError, match="entry a: expected a finite similarity and value"):
        weighed(hit("a", float("nan")))
