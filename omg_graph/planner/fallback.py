"""Another planner's plans where the first has none that is valid, marked as such."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from omg_graph.planner.interface import (
    DrawingPlanner,
    HotterPlanner,
    NoValidPlanError,
    PlannerInput,
    RescoringPlanner,
)
from omg_graph.planner.schema import Plan, Schema
from omg_graph.record.trajectory import CandidatePlan, PlanOrigin

Propose = Callable[[PlannerInput, int, int], list[list[CandidatePlan]]]


@runtime_checkable
class AttemptingPlanner(Protocol):
    """A planner that can say for each sample why it has no plan."""

    @property
    def name(self) -> str:
        """What trajectories call it."""
        ...

    @property
    def schema(self) -> Schema:
        """What its plans obey."""
        ...

    def attempt(
        self, observations: PlannerInput, candidates: int, seed: int
    ) -> list[list[CandidatePlan] | NoValidPlanError]:
        """The candidates of each sample, or why there are none."""
        ...


class FallbackPlanner:
    """Asks one planner, and another for the samples that it has no valid plan for."""

    def __init__(self, planner: AttemptingPlanner, instead: Propose, name: str) -> None:
        """Put two planners together.

        Args:
            planner: Asked first, for every sample.
            instead: The other one's ``propose``.
            name: What the other one is called.
        """
        self._planner = planner
        self._instead = instead
        self._instead_name = name

    @property
    def name(self) -> str:
        """The first one's."""
        return self._planner.name

    @property
    def schema(self) -> Schema:
        """The first one's."""
        return self._planner.schema

    @property
    def drawing(self) -> Mapping[str, bool | float]:
        """The first one's."""
        return self._planner.drawing if isinstance(self._planner, DrawingPlanner) else {}

    def propose(self, observations: PlannerInput, candidates: int, seed: int) -> list[list[CandidatePlan]]:
        """``candidates`` plans for each sample, each marked with where it comes from.

        Raises:
            PlannerError: if the first planner can't be asked at all: that is no invalid plan.
        """
        outcomes = self._planner.attempt(observations, candidates, seed)
        failed = [row for row, outcome in enumerate(outcomes) if isinstance(outcome, NoValidPlanError)]
        others = iter(self._instead(observations.take(failed), candidates, seed) if failed else ())
        return [
            self._marked(next(others), outcome) if isinstance(outcome, NoValidPlanError) else outcome
            for outcome in outcomes
        ]

    def hotter(self, heat: float) -> FallbackPlanner:
        """The same two, the first one's draws bolder by ``heat`` where it has bolder ones at hand."""
        planner = self._planner
        if isinstance(planner, HotterPlanner):
            bolder = planner.hotter(heat)
            planner = bolder if isinstance(bolder, AttemptingPlanner) else planner
        return FallbackPlanner(planner, self._instead, self._instead_name)

    def rescore(self, observations: PlannerInput, plans: Sequence[Plan]) -> list[CandidatePlan | None]:
        """One plan for each sample with the first one's log-probabilities; None where it has none to give.

        Raises:
            PlanError: if a plan violates the schema.
        """
        if not isinstance(self._planner, RescoringPlanner):
            return [None] * len(plans)
        return self._planner.rescore(observations, plans)

    def _marked(self, plans: list[CandidatePlan], why: NoValidPlanError) -> list[CandidatePlan]:
        origin = PlanOrigin(
            planner=f"{self._instead_name} (fallback)",
            note=(
                f"planner {self.name} gave no valid plan, since {why.reason}: planner {self._instead_name} "
                "planned instead"
            ),
        )
        return [plan.model_copy(update={"origin": origin}) for plan in plans]
