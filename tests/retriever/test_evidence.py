from __future__ import annotations

import numpy as np
import pytest

from omg_graph.errors import KnowledgeBaseError
from omg_graph.retriever.evidence import Evidence, Hit, weigh


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
    with pytest.raises(
        KnowledgeBaseError, match=r"entry a: a value of shape \(2,\) was expected, \(3,\) came"
    ):
        weighed(hit("a", 0.5, width=3))
    with pytest.raises(KnowledgeBaseError, match="entry a: a finite similarity and value"):
        weighed(hit("a", float("nan")))
