"""Trajectories and their utility."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from omg_graph.record.artifacts import describe
from omg_graph.record.trajectory import (
    CandidatePlan,
    Constraint,
    DenoisingStep,
    EvidenceEntry,
    Plan,
    Prediction,
    ReconstructionError,
    Trajectory,
    UtilityWeights,
    utility,
)


def made() -> Trajectory:
    constraint = Constraint(field="entity", value="the story", log_probability=-0.1, tokens=3)
    candidate = CandidatePlan(
        text="entity: the story",
        constraints=(constraint,),
        log_probability=-0.1,
        log_probability_per_token=-0.1 / 3,
        greedy=True,
        semantic_cost=0.4,
        score=-0.22,
    )
    ref = describe(np.array([[1.5, np.nan]], np.float32), "memory:x")
    return Trajectory(
        id="video$_$1",
        group="video",
        observed=("text",),
        missing=("a.b",),
        hidden=("a.b",),
        raw_text="ein schöner Film 映画",
        plan=Plan(
            schema_name="triplet",
            planner="distilled",
            text=candidate.text,
            constraints=(constraint,),
            chosen=0,
            semantic_weight=0.3,
            candidates=(candidate,),
        ),
        evidence={"a.b": (EvidenceEntry(id="v", weight=1.0, similarity=0.1 + 0.2, text="t", source="s"),)},
        evidence_cost={"a.b": 0.25},
        left_out={"a.b": 3},
        denoising={
            "a.b": (DenoisingStep(step=1, timestep=999, state_norm=1.0, clean_norm=0.5, clean_change=0.1),)
        },
        reconstruction={"a.b": ref},
        lengths={"a.b": 7},
        errors={"a.b": ReconstructionError(nmse=0.5, squared_error=1.0, squared_deviation=2.0, mse=1e-9)},
        prediction=Prediction(value=-1.25, label="negative", probabilities={"negative": 1.0}),
        utility=utility(
            reconstruction_losses=[0.5],
            semantic_cost=0.4,
            evidence_costs=[0.25],
            path_cost=0.01,
            weights=UtilityWeights(),
        ),
        arrays={"path": ref},
        seed=2**62,
        model="fingerprint",
    )


def test_json_keeps_every_digit() -> None:
    """tau (Eq. 1) as one line, and back."""
    trajectory = made()
    line = trajectory.model_dump_json()
    assert "\n" not in line
    assert Trajectory.model_validate_json(line) == trajectory


def test_a_sample_that_misses_nothing_needs_no_plan() -> None:
    bare = Trajectory(id="x", group="x", observed=("text",), missing=(), seed=0, model="m")
    assert Trajectory.model_validate_json(bare.model_dump_json()) == bare
    assert bare.prediction is None
    assert bare.utility is None


def test_a_trajectory_can_t_be_changed_nor_hold_unknown_things() -> None:
    trajectory = made()
    with pytest.raises(ValidationError, match="frozen"):
        trajectory.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Trajectory.model_validate(trajectory.model_dump() | {"unheard_of": 1})


WEIGHTS = UtilityWeights(semantic=0.3, evidence=0.5, path=0.25)


def test_equation_3_by_hand() -> None:
    """U = -L_rec - lambda_s C_sem - lambda_e C_evi - lambda_p C_path, several modalities by their mean."""
    found = utility(
        reconstruction_losses=[0.5, 1.5],
        semantic_cost=0.5,
        evidence_costs=[0.2, 0.6],
        path_cost=2.0,
        weights=WEIGHTS,
    )
    assert found.total == pytest.approx(-1.0 - 0.3 * 0.5 - 0.5 * 0.4 - 0.25 * 2.0)
    assert (found.reconstruction, found.semantic) == (1.0, 0.5)
    assert (found.evidence, found.path) == (pytest.approx(0.4), 2.0)
    assert found.weights == {"semantic": 0.3, "evidence": 0.5, "path": 0.25}
    assert "hidden truth" in found.note


def test_an_unknown_truth_is_left_out_and_said_so() -> None:
    found = utility(
        reconstruction_losses=[], semantic_cost=0.5, evidence_costs=[0.2], path_cost=1.0, weights=WEIGHTS
    )
    assert found.total == pytest.approx(-0.3 * 0.5 - 0.5 * 0.2 - 0.25 * 1.0)
    assert found.reconstruction is None
    assert "isn't known" in found.note


def test_nothing_reconstructed_costs_nothing() -> None:
    found = utility(
        reconstruction_losses=[], semantic_cost=None, evidence_costs=[], path_cost=None, weights=WEIGHTS
    )
    assert found.total == 0.0
    assert (found.evidence, found.path) == (None, None)
