"""Appendix B.1: what each term of the utility (Eq. 3) has to do with a log-probability, and where they part.

The derivation says that -L_rec, -C_evi and -C_sem stand for log p(Y | S, E, X), log p(E | S, X) and
log p(S | X). Under the model that makes a term a log-probability, differences of one are checked against
differences of the other; where no such model exists, a small case shows what differs.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_graph.planner.rerank import score_candidates, semantic_cost
from omg_graph.planner.schemas import AFFECT, load_schema
from omg_graph.record.trajectory import UtilityWeights, utility
from omg_graph.retriever.evidence import evidence_alignment_cost

seeds = st.integers(0, 10_000)


def units(random: np.random.Generator, *shape: int) -> np.ndarray:
    rows = random.standard_normal(shape)
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


@given(seeds)
def test_the_chain_rule_adds_up(seed: int) -> None:
    """B Eqs. 1-3: log p(Y, S, E | X) is the sum of the three conditionals' logarithms, whatever the joint."""
    joint = np.random.default_rng(seed).random((2, 3, 2, 3)) + 0.01  # Y, S, E, X
    joint /= joint.sum()
    given_x = joint / joint.sum(axis=(0, 1, 2), keepdims=True)
    plan = given_x.sum(axis=(0, 2), keepdims=True)
    evidence = given_x.sum(axis=0, keepdims=True) / plan
    rest = given_x / given_x.sum(axis=0, keepdims=True)
    np.testing.assert_allclose(np.log(given_x), np.log(rest) + np.log(evidence) + np.log(plan))


@given(seeds, st.floats(0.1, 3))
def test_the_reconstruction_error_is_a_gaussian_s_log_density(seed: int, deviation: float) -> None:
    """With Y ~ N(Y^, sigma^2 I), -L_rec / (2 sigma^2) is log p(Y | S, E, X) up to a constant."""
    random = np.random.default_rng(seed)
    truth, guesses = random.standard_normal(4), random.standard_normal((3, 4))
    constant = math.log(deviation * math.sqrt(2 * math.pi))
    densities = [float((-0.5 * ((truth - g) / deviation) ** 2 - constant).sum()) for g in guesses]
    errors = [float(np.square(truth - guess).sum()) for guess in guesses]
    for (p, q), (a, b) in zip(pairwise(densities), pairwise(errors), strict=True):
        assert p - q == pytest.approx((b - a) / (2 * deviation**2), abs=1e-9)


@given(seeds, st.floats(0.05, 5))
def test_the_semantic_cost_is_a_von_mises_fisher_s_log_density(seed: int, weight: float) -> None:
    """With p(S | X) ~ exp(lambda_s cos(g(S), psi(X))), -lambda_s C_sem ranks plans as log p does."""
    random = np.random.default_rng(seed)
    plans, observation = units(random, 5, 8), units(random, 8)
    cosines = plans.astype(np.float64) @ observation.astype(np.float64)
    log_p = weight * cosines - math.log(np.exp(weight * cosines).sum())
    costs = semantic_cost(plans, observation)
    np.testing.assert_allclose(np.diff(log_p), np.diff(-weight * costs), atol=1e-5)


def test_the_semantic_cost_differs_from_log_p_between_observations() -> None:
    """The normaliser over a finite set of plans is X's own: costs of two X don't compare.

    Both observations have their best plan at the same cost; the second has a rival as near.
    """
    plans = np.array([[1.0, 0.0], [-1.0, 0.0]])
    rivals = np.array([[1.0, 0.0], [1.0, 0.0]])
    observation = np.array([1.0, 0.0])
    assert semantic_cost(plans, observation)[0] == semantic_cost(rivals, observation)[0]

    def log_p(candidates: np.ndarray) -> float:
        cosines = candidates @ observation
        return float(cosines[0] - math.log(np.exp(cosines).sum()))

    assert log_p(plans) > log_p(rivals) + 0.5


@settings(max_examples=50)
@given(seeds, st.floats(0.05, 5))
def test_the_evidence_cost_bounds_a_mixture_s_log_density_from_below(seed: int, weight: float) -> None:
    """Evidence as a mixture of its entries, sum_i alpha_i exp(lambda_e (cos_i - 1)): by Jensen's inequality
    -lambda_e C_evi is at most its logarithm, and equal where every entry is as near to the plan."""
    random = np.random.default_rng(seed)
    plan, entries = units(random, 8), units(random, 6, 8)
    alphas = random.dirichlet(np.ones(6)).astype(np.float32)
    log_p = math.log(float(alphas @ np.exp(weight * (entries @ plan - 1))))
    assert -weight * _evidence_cost(plan, entries, alphas) <= log_p + 1e-5
    alike = np.tile(entries[:1], (6, 1))
    exact = math.log(float(alphas @ np.exp(weight * (alike @ plan - 1))))
    assert -weight * _evidence_cost(plan, alike, alphas) == pytest.approx(exact, abs=1e-5)


def test_the_evidence_cost_can_rank_evidence_otherwise_than_the_mixture_does() -> None:
    """Half of it dead on and half opposite, or all of it at right angles and a little nearer."""
    plan = np.array([1.0, 0.0], np.float32)
    split = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    near = np.array([[0.1, math.sqrt(0.99)]] * 2, np.float32)
    alphas, weight = np.array([0.5, 0.5], np.float32), 3.0
    assert _evidence_cost(plan, near, alphas) < _evidence_cost(plan, split, alphas)

    def log_p(entries: np.ndarray) -> float:
        return math.log(float(alphas @ np.exp(weight * (entries @ plan - 1))))

    assert log_p(split) > log_p(near)


def test_the_path_s_cost_is_in_no_log_probability() -> None:
    """log p(Y, S, E | X) knows nothing of the path: with C_path of equal posteriors another can win."""
    weights = UtilityWeights(semantic=0.3, evidence=0.1, path=0.1)

    def total(path_cost: float) -> float:
        return utility(
            reconstruction_losses=[0.5],
            semantic_cost=0.2,
            evidence_costs=[0.1],
            path_cost=path_cost,
            weights=weights,
        ).total

    assert total(0.01) > total(1.0)


def test_the_plan_s_own_log_probability_is_in_eq_5_and_not_in_eq_3() -> None:
    """log pi(S | X) is what Eq. 5 adds to C_sem: Eq. 3 alone takes the nearer plan, however improbable."""
    schema = load_schema(AFFECT)
    values = [field.values for field in schema.fields]
    assert all(values)
    likely = tuple(options[0] for options in values if options)
    near = tuple(options[-1] for options in values if options)
    plans = [
        schema.candidate(likely, (-0.1,) * len(likely), (1,) * len(likely)),
        schema.candidate(near, (-3.0,) * len(near), (1,) * len(near)),
    ]
    embeddings = np.array([[0.0, 1.0], [1.0, 0.0]], np.float32)
    observation = np.array([1.0, 0.0], np.float32)
    ranking = score_candidates(schema, plans, embeddings, observation, semantic_weight=0.3, schema_weight=0.1)
    costs = semantic_cost(embeddings, observation)
    assert ranking.chosen == 0
    assert costs[1] < costs[0]


def _evidence_cost(plan: np.ndarray, entries: np.ndarray, alphas: np.ndarray) -> float:
    given = (torch.from_numpy(rows.astype(np.float32))[None] for rows in (alphas, plan, entries))
    return float(evidence_alignment_cost(*given)[0])
