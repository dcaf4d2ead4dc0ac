"""The utility of a whole trajectory (Eqs. 2 and 3)."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from omg_graph.record.trajectory import Utility


class UtilityWeights(BaseModel):
    """lambda_s, lambda_e and lambda_p of Eq. 3: other settings than those of the same letters in Eq. 15."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    semantic: float = 0.3
    evidence: float = 0.1
    path: float = 0.1


def utility(
    *,
    reconstruction_losses: Sequence[float],
    semantic_cost: float | None,
    evidence_costs: Sequence[float],
    path_cost: float | None,
    weights: UtilityWeights,
) -> Utility:
    """U = -L_rec - lambda_s C_sem - lambda_e C_evi - lambda_p C_path (Eq. 3).

    L_rec needs the truth, which nobody has when a modality is really missing: it is then left out, and
    the note says so. Several missing modalities count by their mean. C_path is that of
    ``executor.sampling.path_costs``.
    """
    evidence = fmean(evidence_costs) if evidence_costs else None
    loss = fmean(reconstruction_losses) if reconstruction_losses else None
    total = (
        -(loss or 0.0)
        - weights.semantic * (semantic_cost or 0.0)
        - weights.evidence * (evidence or 0.0)
        - weights.path * (path_cost or 0.0)
    )
    note = "L_rec against the hidden truth" if loss is not None else "L_rec left out: the truth isn't known"
    return Utility(
        total=total,
        reconstruction=loss,
        semantic=semantic_cost,
        evidence=evidence,
        path=path_cost,
        weights=weights.model_dump(),
        note=note,
    )
