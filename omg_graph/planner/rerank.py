"""Choosing among candidate plans: constrained maximisation of Eq. 5 with the semantic cost of Eq. 6."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omg_graph.encoders.text import TextEncoder
from omg_graph.errors import ConfigError, EncoderError, PlanError
from omg_graph.planner.schema import Schema
from omg_graph.record.trajectory import CandidatePlan

SEMANTIC_WEIGHT = 0.3
"""lambda_s of Eq. 5 (section 4.1 of the paper)."""

SCHEMA_WEIGHT = 0.1
"""gamma of Eq. 5. It is recorded and has no effect: the indicator that it multiplies is infinite."""


@dataclass(frozen=True)
class Reranking:
    """All candidates of one sample with their costs and scores, and which of them is S*."""

    candidates: tuple[CandidatePlan, ...]
    chosen: int

    @property
    def best(self) -> CandidatePlan:
        """S*, with the terms of its score."""
        return self.candidates[self.chosen]

    @property
    def likeliest(self) -> CandidatePlan:
        """The valid candidate with the highest log-probability, the first of equals."""
        valid = [candidate for candidate in self.candidates if candidate.valid]
        return max(valid, key=lambda candidate: sum(candidate.log_probabilities))


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
            raise ConfigError(f"{name}: expected a number of 0 or more, got {weight}")
    if not candidates:
        raise PlanError(
            "expected candidate plans from the planner, got none: ask for at least one (--candidates)"
        )
    costs = semantic_cost(np.asarray(plan_embeddings, dtype=np.float64), observation_embedding)
    scored = tuple(
        _scored(schema, candidate, float(cost), semantic_weight)
        for candidate, cost in zip(candidates, costs, strict=True)
    )
    scores = {index: one.score for index, one in enumerate(scored) if one.score is not None}
    if not scores:
        first = "; ".join(scored[0].violations)
        raise PlanError(
            f"none of {len(scored)} candidate plans obeys schema {schema.name!r} (the first: {first}): "
            "ask for more candidates (--candidates) or use another planner"
        )
    broken = [index for index, score in scores.items() if not math.isfinite(score)]
    if broken:
        raise EncoderError(
            f"the embeddings of plan {scored[broken[0]].values!r} and of the observation are "
            "expected to be finite numbers, and are not: check the input and the encoder"
        )
    return Reranking(scored, max(scores, key=lambda index: (scores[index], -index)))


def rerank(
    schema: Schema,
    text_encoder: TextEncoder,
    candidates: Sequence[Sequence[CandidatePlan]],
    observations: npt.NDArray[np.float32],
    *,
    semantic_weight: float = SEMANTIC_WEIGHT,
) -> list[Reranking]:
    """S* for every sample (Eqs. 5 and 6); the texts of all valid candidates are embedded together.

    Args:
        schema: What the plans must obey.
        text_encoder: g.
        candidates: Omega(X) of each sample.
        observations: u_X, (samples, shared).
        semantic_weight: lambda_s.

    Raises:
        PlanError: if a sample has no valid candidate.
        EncoderError: as ``score_candidates`` does.
    """
    flat = [candidate for plans in candidates for candidate in plans]
    valid = np.array([candidate.valid for candidate in flat], dtype=np.bool_)
    embeddings = np.zeros((len(flat), observations.shape[1]), dtype=np.float32)
    embeddings[valid] = text_encoder.embed([candidate.text for candidate in flat if candidate.valid])
    ends = np.cumsum([len(plans) for plans in candidates])
    return [
        score_candidates(
            schema,
            plans,
            embeddings[end - len(plans) : end],
            observation,
            semantic_weight=semantic_weight,
        )
        for plans, observation, end in zip(candidates, observations, ends, strict=True)
    ]


def _scored(schema: Schema, candidate: CandidatePlan, cost: float, semantic_weight: float) -> CandidatePlan:
    # asked again, since a planner of one's own may put a candidate together by hand
    violations = schema.violations(candidate.values)
    log_probability = sum(candidate.log_probabilities)
    if not all(math.isfinite(value) for value in candidate.log_probabilities):
        violations = (*violations, "its log-probability is not a finite number")
    return candidate.model_copy(
        update={
            "semantic_cost": None if violations else cost,
            "violations": violations,
            "score": None if violations else log_probability - semantic_weight * cost,
        }
    )
