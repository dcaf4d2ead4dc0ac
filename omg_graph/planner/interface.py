"""What a planner is: anything that turns observations into candidate plans with log-probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from omg_graph.data.recordings import Recording
from omg_graph.errors import ConfigError, PlanError
from omg_graph.planner.schema import Plan, Schema
from omg_graph.record.trajectory import CandidatePlan, PlanOrigin


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


Outcomes = Sequence[Sequence[CandidatePlan] | NoValidPlanError]
"""For each sample its candidates, or why it has none."""


def required(outcomes: Outcomes) -> list[list[CandidatePlan]]:
    """The candidates of all samples.

    Raises:
        NoValidPlanError: if a sample has none, the first one's.
    """
    plans = []
    for outcome in outcomes:
        if isinstance(outcome, NoValidPlanError):
            raise outcome
        plans.append(list(outcome))
    return plans


@dataclass(frozen=True)
class Sampling:
    """How candidates are drawn; log-probabilities are those at temperature 1 whatever it says.

    Raises:
        ConfigError: if a number is out of range.
    """

    candidates: int = 1
    greedy: bool = True
    """Whether the first candidate is greedy: the likeliest token at each place."""
    temperature: float = 1.0
    """Of the other candidates' draws."""
    top_p: float = 1.0
    """They are drawn from the likeliest tokens that together have this share."""

    def __post_init__(self) -> None:
        if self.candidates < 1:
            raise ConfigError(f"candidates: expected 1 or more, got {self.candidates}")
        if not self.temperature > 0:
            raise ConfigError(f"the planner's temperature: expected more than 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"the planner's top-p: expected more than 0 and at most 1, got {self.top_p}")


class PlanWriter(Protocol):
    """Whoever writes plans: a planner, or a teacher of one."""

    @property
    def name(self) -> str:
        """What trajectories call it."""
        ...

    @property
    def follows_sampling(self) -> bool:
        """Whether ``greedy``, ``temperature`` and ``top_p`` count; ``candidates`` always does."""
        ...


class Planner(PlanWriter, Protocol):
    """Progressive planning: c_l ~ pi(. | X, c_<l) (section 3.3)."""

    @property
    def schema(self) -> Schema:
        """What its plans obey."""
        ...

    def propose(self, observations: PlannerInput, sampling: Sampling, seed: int) -> Outcomes:
        """Candidate plans for each sample, or in its place the error that says why there are none.

        What is drawn depends on (seed, id, candidate) alone.
        """
        ...


def sampling_note(writer: PlanWriter, asked: Iterable[str]) -> str | None:
    """A note if sampling settings were asked for and are ignored, else None.

    Args:
        writer: Who plans.
        asked: Names of the settings that were asked for.
    """
    names = [name.removeprefix("include_") for name in asked]
    if not names or writer.follows_sampling:
        return None
    verb = "has" if len(names) == 1 else "have"
    return f"{', '.join(names)} {verb} no effect: {writer.name} ignores sampling settings"


@runtime_checkable
class RescoringPlanner(Protocol):
    """A planner that can say how probable a plan is that it didn't draw, such as one that a person wrote."""

    def rescore(self, observations: PlannerInput, plans: Sequence[Plan]) -> list[CandidatePlan | None]:
        """One plan for each sample, with its log-probabilities; None where it has none to give."""
        ...


@runtime_checkable
class StoredPlanner(Planner, RescoringPlanner, Protocol):
    """A planner that is stored with its model; a class of its name loads it again (``load_planner``)."""

    def save(self, folder: Path) -> None:
        """Write it into a folder, whole."""
        ...


class FallbackPlanner:
    """Asks one planner, and another for the samples that it has no valid plan for."""

    def __init__(self, planner: Planner, instead: Planner) -> None:
        """Put two planners together: ``instead`` is asked where the first has no plan."""
        self._planner, self._instead = planner, instead
        self.name, self.schema = planner.name, planner.schema
        self.follows_sampling = planner.follows_sampling

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
