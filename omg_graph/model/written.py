"""A plan that a person wrote, scored as the planner's own are."""

from __future__ import annotations

from dataclasses import dataclass

from omg_graph.model import steps
from omg_graph.model.model import Model
from omg_graph.planner.interface import CandidatePlan, RescoringPlanner
from omg_graph.planner.rerank import semantic_cost
from omg_graph.planner.schema import Plan
from omg_graph.samples.dataset import FloatArray, Split


@dataclass(frozen=True)
class WrittenPlan:
    """A plan with what can be said of it."""

    plan: Plan
    semantic_cost: float
    """C_sem (Eq. 6)."""
    candidate: CandidatePlan | None
    """With the planner's log-probabilities; None where it can't tell those of a plan that it didn't draw."""


def score_written(
    model: Model, split: Split, embedding: FloatArray, plan: Plan, *, rescore: bool = True
) -> WrittenPlan:
    """Eq. 5's terms for a plan of one sample that the planner didn't draw.

    Args:
        model: Whose planner and text encoder score it.
        split: The one sample.
        embedding: u_X, (1, shared).
        plan: Which obeys the model's schema.
        rescore: Whether the planner is to be asked for log-probabilities.

    Raises:
        PlanError: if it doesn't.
    """
    planner = model.planner
    rescored: list[CandidatePlan | None] = [None]
    if rescore and isinstance(planner, RescoringPlanner):
        rescored = planner.rescore(steps.planner_input(model, split, embedding), [plan])
    cost = semantic_cost(model.text_encoder.embed([model.schema.text(plan)]), embedding)
    return WrittenPlan(plan, float(cost[0]), rescored[0])
