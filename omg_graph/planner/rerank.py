"""Choosing among candidate plans: constrained maximisation of Eq. 5 with the semantic cost of Eq. 6."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omg_graph.errors import ConfigError, EncoderError, PlanError
from omg_graph.planner.interface import CandidatePlan
from omg_graph.planner.schema import Schema

SEMANTIC_WEIGHT = 0.3
"""lambda_s of Eq. 5 (section 4.1 of the paper)."""

SCHEMA_WEIGHT = 0.1
"""gamma of Eq. 5. It is recorded and has no effect: the indicator that it multiplies is infinite."""


@dataclass(frozen=True)
class ScoredCandidate:
    """One candidate with every term of its score."""

    candidate: CandidatePlan
    log_probability: float
    """Sum over the constraints of log pi(c_l | X, c_<l), in nats: Eq. 5's first term."""
    mean_log_probability: float
    """The same per token, for comparing plans of different lengths; it takes no part in the choice."""
    semantic_cost: float
    """C_sem, 0 to 2 (Eq. 6)."""
    violations: tuple[str, ...]
    """What breaks the schema; empty for a valid plan."""
    score: float
    """Eq. 5; minus infinity for a plan that breaks the schema."""

    @property
    def valid(self) -> bool:
        """Whether it obeys the schema, and so may win."""
        return not self.violations


@dataclass(frozen=True)
class Reranking:
    """All candidates of one sample, scored, and which of them is S*."""

    candidates: tuple[ScoredCandidate, ...]
    chosen: int
    semantic_weight: float
    schema_weight: float

    @property
    def best(self) -> ScoredCandidate:
        """S*, with the terms of its score."""
        return self.candidates[self.chosen]


def semantic_cost(
    plan_embeddings: npt.ArrayLike, observation_embeddings: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    """C_sem = 1 - cos(g(S), psi(X)) along the last axis (Eq. 6); 1 where a vector is zero.

    Args:
        plan_embeddings: g(S), (..., width).
        observation_embeddings: psi(X), (..., width); the leading axes broadcast.

    Raises:
        EncoderError: if the widths differ.
    """
    g = np.asarray(plan_embeddings, dtype=np.float64)
    psi = np.asarray(observation_embeddings, dtype=np.float64)
    if g.shape[-1] != psi.shape[-1]:
        raise EncoderError(
            f"plans and observations are embedded in one space, but their widths are {g.shape[-1]} and "
            f"{psi.shape[-1]}: use the text encoder that the model was trained with"
        )
    norms = np.linalg.norm(g, axis=-1) * np.linalg.norm(psi, axis=-1)
    cosine = (g * psi).sum(axis=-1) / np.where(norms > 0, norms, 1.0)
    return np.asarray(1.0 - np.clip(cosine, -1.0, 1.0), dtype=np.float64)


def score_candidates(
    schema: Schema,
    candidates: Sequence[CandidatePlan],
    plan_embeddings: npt.ArrayLike,
    observation_embedding: npt.ArrayLike,
    *,
    semantic_weight: float = SEMANTIC_WEIGHT,
    schema_weight: float = SCHEMA_WEIGHT,
) -> Reranking:
    """S* = argmax over Omega(X) of log pi(S | X) - lambda_s C_sem(S, X) - gamma I_schema(S) (Eq. 5).

    A candidate that violates the schema, or whose log-probability is no number, can't win. Of candidates
    with the same score the first wins.

    Args:
        schema: what the plans must obey.
        candidates: Omega(X), of one sample.
        plan_embeddings: g(S) of each candidate, (candidates, width); a row that belongs to an invalid
            candidate may hold anything.
        observation_embedding: psi(X), (width,).
        semantic_weight: lambda_s.
        schema_weight: gamma.

    Raises:
        ConfigError: if a weight is negative or no number.
        EncoderError: if an embedding of a valid candidate, or of the observation, is not finite, or the
            widths differ.
        PlanError: if no candidate is valid.
    """
    for name, weight in (("semantic_weight", semantic_weight), ("schema_weight", schema_weight)):
        if not (math.isfinite(weight) and weight >= 0):
            raise ConfigError(f"{name} is a number of 0 or more, {weight} came")
    if not candidates:
        raise PlanError("no candidate plan came from the planner: ask for at least one (--candidates)")
    embeddings = np.asarray(plan_embeddings, dtype=np.float64)
    found = [_violations(schema, candidate) for candidate in candidates]
    costs = semantic_cost(embeddings, observation_embedding)
    scored = tuple(
        _scored(candidate, wrong, float(cost), semantic_weight)
        for candidate, wrong, cost in zip(candidates, found, costs, strict=True)
    )
    valid = [index for index, entry in enumerate(scored) if entry.valid]
    if not valid:
        first = "; ".join(scored[0].violations)
        raise PlanError(
            f"none of {len(scored)} candidate plans obeys schema {schema.name!r} (the first: {first}): "
            "ask for more candidates (--candidates) or use another planner"
        )
    broken = [index for index in valid if not math.isfinite(scored[index].score)]
    if broken:
        raise EncoderError(
            f"the embeddings of plan {scored[broken[0]].candidate.constraints!r} and of the observation are "
            "expected to be finite numbers, and are not: check the input and the encoder"
        )
    chosen = max(valid, key=lambda index: (scored[index].score, -index))
    return Reranking(scored, chosen, semantic_weight, schema_weight)


def _violations(schema: Schema, candidate: CandidatePlan) -> tuple[str, ...]:
    wrong = schema.violations(candidate.constraints)
    if not all(math.isfinite(value) for value in candidate.log_probabilities):
        wrong = (*wrong, "its log-probability is not a finite number")
    return wrong


def _scored(
    candidate: CandidatePlan, wrong: tuple[str, ...], cost: float, semantic_weight: float
) -> ScoredCandidate:
    log_probability = float(sum(candidate.log_probabilities))
    return ScoredCandidate(
        candidate=candidate,
        log_probability=log_probability,
        mean_log_probability=log_probability / max(1, sum(candidate.token_counts)),
        semantic_cost=cost,
        violations=wrong,
        score=-math.inf if wrong else log_probability - semantic_weight * cost,
    )
