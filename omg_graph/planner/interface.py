"""What a planner is: anything that turns observations into candidate plans with log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from omg_graph.planner.schema import Schema


@dataclass(frozen=True)
class PlannerInput:
    """A batch of observations, as a planner sees them."""

    ids: tuple[str, ...]
    embeddings: npt.NDArray[np.float32]
    """u_X = psi(X), (samples, width)."""
    raw_text: tuple[str | None, ...]
    """The transcript, None where there is none or where text is missing."""


@dataclass(frozen=True)
class CandidatePlan:
    """One plan: a value for each field of the schema, with the policy's log-probabilities."""

    constraints: tuple[str, ...]
    log_probabilities: tuple[float, ...]
    """log pi(c_l | X, c_<l) of each value's tokens and its terminator, in nats (Eq. 5's first term)."""
    token_counts: tuple[int, ...]
    """How many tokens each of them sums over."""
    greedy: bool = False


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
