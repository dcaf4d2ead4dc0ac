"""Eqs. 5 and 6: the costs, the choice, and that a broken plan never wins."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omg_graph.errors import ConfigError, EncoderError, PlanError
from omg_graph.planner.rerank import score_candidates, semantic_cost
from omg_graph.planner.schema import Field, Schema
from omg_graph.record.trajectory import CandidatePlan

SCHEMA = Schema(
    name="two",
    fields=(Field(name="A", values=("x", "y")), Field(name="B", values=("p", "q"))),
    text_form="{A} {B}",
)
X = np.array([1.0, 0.0])


def candidate(first: str, second: str, *log_probabilities: float) -> CandidatePlan:
    return SCHEMA.candidate((first, second), log_probabilities or (-1.0, -1.0), (2, 2))


def test_the_semantic_cost_is_one_minus_the_cosine_whatever_the_lengths() -> None:
    plans = np.array([[2.0, 0.0], [0.0, 3.0], [-1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    expected = [0.0, 1.0, 2.0, 1 - 1 / math.sqrt(2), 1.0]
    np.testing.assert_allclose(semantic_cost(plans, 5 * X), expected, atol=1e-12)
    with pytest.raises(EncoderError, match="widths"):
        semantic_cost(plans, np.ones(3))


def test_the_semantic_cost_can_turn_the_choice_of_the_log_probabilities() -> None:
    plans = [candidate("x", "p", -1.0, -1.0), candidate("y", "q", -1.1, -1.0)]
    away_and_near = np.array([[-1.0, 0.0], [1.0, 0.0]])
    assert score_candidates(SCHEMA, plans, away_and_near, X, semantic_weight=0.0).chosen == 0
    reranking = score_candidates(SCHEMA, plans, away_and_near, X)
    assert reranking.chosen == 1
    first, second = reranking.candidates
    assert first.score == pytest.approx(-2.0 - 0.3 * 2)
    assert second.score == pytest.approx(-2.1)
    assert second.log_probability_per_token == pytest.approx(-2.1 / 4)
    assert reranking.best is second


def test_of_equal_scores_the_first_wins() -> None:
    plans = [candidate("x", "p", -3.0, -3.0), candidate("y", "q"), candidate("y", "p")]
    assert score_candidates(SCHEMA, plans, np.tile(X, (3, 1)), X).chosen == 1


VALUES = st.sampled_from(["x", "y", "p", "q", "", "z"])
PROPOSED = st.lists(
    st.tuples(
        st.lists(VALUES, min_size=0, max_size=3),
        st.floats(-50, 0) | st.just(math.nan) | st.just(math.inf) | st.just(-math.inf),
        st.floats(-1, 1),
    ),
    min_size=1,
    max_size=6,
)


@given(PROPOSED, st.floats(0, 5), st.floats(0, 5))
def test_a_broken_plan_never_wins(
    proposed: list[tuple[list[str], float, float]], semantic_weight: float, schema_weight: float
) -> None:
    plans = [
        SCHEMA.candidate(values, [value, *(0.0 for _ in values[1:])][: len(values)], [2] * len(values))
        for values, value, _ in proposed
    ]
    embeddings = np.array([[cosine, math.sqrt(1 - cosine**2)] for _, _, cosine in proposed])
    sound = [
        index
        for index, plan in enumerate(plans)
        if not SCHEMA.violations(plan.values) and math.isfinite(plan.log_probabilities[0])
    ]
    if not sound:
        with pytest.raises(PlanError, match=f"none of {len(plans)}"):
            score_candidates(SCHEMA, plans, embeddings, X, semantic_weight=semantic_weight)
        return
    reranking = score_candidates(
        SCHEMA, plans, embeddings, X, semantic_weight=semantic_weight, schema_weight=schema_weight
    )
    assert reranking.chosen in sound
    scores = [plans[i].log_probabilities[0] - semantic_weight * (1 - proposed[i][2]) for i in sound]
    assert reranking.best.score == pytest.approx(max(scores), abs=1e-9)
    for index, entry in enumerate(reranking.candidates):
        assert entry.valid == (index in sound)
        assert (entry.score is not None) == entry.valid


def test_gamma_has_no_effect() -> None:
    plans = [candidate("x", "z", 0.0, 0.0), candidate("x", "p")]
    free, dear = (
        score_candidates(SCHEMA, plans, np.tile(X, (2, 1)), X, schema_weight=weight) for weight in (0.0, 9.0)
    )
    assert free.candidates == dear.candidates
    assert free.chosen == dear.chosen == 1


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(PlanError, match="expected candidate plans"):
        score_candidates(SCHEMA, [], np.zeros((0, 2)), X)
    with pytest.raises(ConfigError, match="semantic_weight"):
        score_candidates(SCHEMA, [candidate("x", "p")], X[None], X, semantic_weight=-1.0)
    with pytest.raises(EncoderError, match="finite"):
        score_candidates(SCHEMA, [candidate("x", "p")], np.array([[math.nan, 0.0]]), X)
    broken_only = [candidate("z", "p")]
    with pytest.raises(PlanError, match=r"A can't be 'z'.*--candidates"):
        score_candidates(SCHEMA, broken_only, X[None], X)
