"""Trajectories in a few words and figures, the same wherever they are told."""

from __future__ import annotations

from collections.abc import Sequence

from omg_graph.record.trajectory import Prediction, Trajectory


def prediction_text(prediction: Prediction | None) -> str:
    """A prediction: its label, and its value or the label's probability; ``-`` where there is none."""
    if prediction is None:
        return "-"
    parts = []
    if prediction.label is not None:
        parts.append(prediction.label)
    if prediction.value is not None:
        parts.append(f"{prediction.value:+.2f}")
    elif prediction.label is not None:
        parts.append(f"p = {prediction.probabilities[prediction.label]:.2f}")
    return "  ".join(parts)


def pooled_errors(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Normalised squared error of each hidden modality over all samples: a sum over a sum."""
    pooled = {}
    for name in dict.fromkeys(name for trajectory in trajectories for name in trajectory.errors):
        errors = [trajectory.errors[name] for trajectory in trajectories if name in trajectory.errors]
        deviation = sum(error.squared_deviation for error in errors)
        pooled[name] = sum(error.squared_error for error in errors) / deviation
    return pooled
