"""What a planner is: anything that turns observations into candidate plans with log-probabilities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from omg_graph.data.recordings import Recording
from omg_graph.errors import PlanError
from omg_graph.planner.schema import Plan, Schema
from omg_graph.record.trajectory import CandidatePlan


@dataclass(frozen=True)
class PlannerInput:
    """A batch of observations, as a planner sees them."""

    ids: tuple[str, ...]
    embeddings: npt.NDArray[np.float32]
    """u_X = psi(X), (samples, width)."""
    raw_text: tuple[str | None, ...]
    """The transcript, None where there is none or where text is missing."""
    modalities: tuple[str, ...] = ()
    """The model's modalities, in order; none where the caller doesn't say."""
    observed: tuple[tuple[str, ...], ...] = ()
    """Which of them each sample has."""
    recordings: Mapping[str, tuple[Recording | None, ...]] = field(default_factory=dict)
    """Modality to the recordings behind it, None where there is none or where it is missing."""
    label_estimates: npt.NDArray[np.float32] | None = None
    """The label by closed-form regression, (samples, values); None where the model has none."""

    def take(self, rows: Sequence[int]) -> PlannerInput:
        """Some of the samples."""
        return PlannerInput(
            tuple(self.ids[row] for row in rows),
            self.embeddings[list(rows)],
            tuple(self.raw_text[row] for row in rows),
            self.modalities,
            tuple(self.observed[row] for row in rows) if self.observed else (),
            {name: tuple(found[row] for row in rows) for name, found in self.recordings.items()},
            None if self.label_estimates is None else self.label_estimates[list(rows)],
        )


class NoValidPlanError(PlanError):
    """A planner has no valid plan for a sample."""

    def __init__(self, sample_id: str, planner: str, reason: str) -> None:
        super().__init__(
            f"sample {sample_id!r}: a plan was expected from planner {planner}, and {reason}: "
            "use another model, or --on-invalid-plan distilled"
        )
        self.reason = reason


def required(outcomes: Sequence[list[CandidatePlan] | NoValidPlanError]) -> list[list[CandidatePlan]]:
    """The candidates of all samples.

    Raises:
        NoValidPlanError: if a sample has none, the first one's.
    """
    plans = []
    for outcome in outcomes:
        if isinstance(outcome, NoValidPlanError):
            raise outcome
        plans.append(outcome)
    return plans


class Planner(Protocol):
    """Progressive planning: c_l ~ pi(. | X, c_<l) (section 3.3)."""

    @property
    def name(self) -> str:
        """What trajectories call it."""
        ...

    @property
    def schema(self) -> Schema:
        """What its plans obey."""
        ...

    def propose(self, observations: PlannerInput, candidates: int, seed: int) -> list[list[CandidatePlan]]:
        """``candidates`` plans for each sample; what is drawn depends on (seed, id, candidate) alone."""
        ...


@runtime_checkable
class HotterPlanner(Protocol):
    """A planner with bolder draws at hand, for a person who wants other plans than the likely ones."""

    def hotter(self, heat: float) -> Planner:
        """The same planner, its temperature higher by ``heat`` and no greedy plan among its candidates."""
        ...


@runtime_checkable
class DrawingPlanner(Protocol):
    """A planner that was told how to draw when it was made."""

    @property
    def drawing(self) -> Mapping[str, bool | float]:
        """What it goes by of ``greedy``, ``temperature`` and ``top_p``."""
        ...


def drawing_without_effect(planner: Planner, asked: Mapping[str, bool | float]) -> str | None:
    """What to tell someone who asked a planner to draw otherwise than it does; None where it does as asked.

    Args:
        planner: One that isn't told anew in each run.
        asked: What was asked for, of ``greedy``, ``temperature`` and ``top_p``.
    """
    heeded = planner.drawing if isinstance(planner, DrawingPlanner) else {}
    idle = [name for name, value in asked.items() if heeded.get(name) != value]
    if not idle:
        return None
    verb = "has" if len(idle) == 1 else "have"
    return f"{', '.join(idle)} {verb} no effect: planner {planner.name} draws in its own way"


@runtime_checkable
class RescoringPlanner(Protocol):
    """A planner that can say how probable a plan is that it didn't draw, such as one that a person wrote."""

    def rescore(self, observations: PlannerInput, plans: Sequence[Plan]) -> list[CandidatePlan | None]:
        """One plan for each sample, with its log-probabilities; None where it has none to give."""
        ...
