"""Another planner's plans where the first has none that is valid, marked as such."""

from __future__ import annotations

from collections.abc import Sequence

from omg_graph.planner.interface import (
    NoValidPlanError,
    Outcomes,
    Planner,
    PlannerInput,
    RescoringPlanner,
    Sampling,
)
from omg_graph.planner.schema import Plan, Schema
from omg_graph.record.trajectory import CandidatePlan, PlanOrigin


class FallbackPlanner:
    """Asks one planner, and another for the samples that it has no valid plan for."""

    def __init__(self, planner: Planner, instead: Planner) -> None:
        """Put two planners together: ``instead`` is asked where the first has no plan."""
        self._planner = planner
        self._instead = instead

    @property
    def name(self) -> str:
        """The first one's."""
        return self._planner.name

    @property
    def schema(self) -> Schema:
        """The first one's."""
        return self._planner.schema

    @property
    def follows_sampling(self) -> bool:
        """The first one's."""
        return self._planner.follows_sampling

    def propose(self, observations: PlannerInput, sampling: Sampling, seed: int) -> Outcomes:
        """Candidate plans for each sample, each marked with where it comes from.

        Raises:
            PlannerError: if the first planner can't be asked at all: that is no invalid plan.
        """
        outcomes = list(self._planner.propose(observations, sampling, seed))
        failed = [row for row, outcome in enumerate(outcomes) if isinstance(outcome, NoValidPlanError)]
        others = self._instead.propose(observations.take(failed), sampling, seed) if failed else ()
        for row, plans in zip(failed, others, strict=True):
            if not isinstance(plans, NoValidPlanError):
                outcomes[row] = self._marked(plans, outcomes[row])
        return outcomes

    def rescore(self, observations: PlannerInput, plans: Sequence[Plan]) -> list[CandidatePlan | None]:
        """One plan for each sample with the first one's log-probabilities; None where it has none to give.

        Raises:
            PlanError: if a plan violates the schema.
        """
        if not isinstance(self._planner, RescoringPlanner):
            return [None] * len(plans)
        return self._planner.rescore(observations, plans)

    def _marked(self, plans: Sequence[CandidatePlan], why: object) -> list[CandidatePlan]:
        other, reason = self._instead.name, why.reason if isinstance(why, NoValidPlanError) else why
        origin = PlanOrigin(
            planner=f"{other} (fallback)",
            note=f"planner {self.name} gave no valid plan, since {reason}: planner {other} planned instead",
        )
        return [plan.model_copy(update={"origin": origin}) for plan in plans]
