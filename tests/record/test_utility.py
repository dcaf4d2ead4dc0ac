from __future__ import annotations

import pytest

from omg_graph.record.utility import UtilityWeights, utility

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
