"""The trajectory of one sample (Eq. 1) with its utility (Eq. 3): everything that happened to it.

tau = (S, N_K, E, {z_T -> ... -> z_0}, Y^).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import not_
from statistics import fmean
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from omg_graph.errors import PlanError
from omg_graph.record.artifacts import ArrayRef


class Record(BaseModel):
    """Typed, immutable, nothing unknown in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _absent(value: object) -> bool:
    return value is None


def _once(value: object) -> bool:
    return value == 1


class Constraint(Record):
    """One link c_l of a plan's chain."""

    field: str
    value: str
    log_probability: float | None = Field(
        description="log pi(c_l | X, c_<l), nats, value tokens and terminator; null where nobody can tell."
    )
    tokens: int = Field(description="How many tokens the sum runs over; 0 where nobody can tell.")


class SeenRecording(Record):
    """A recording that a planner was given, without what it holds."""

    modality: str
    kind: Literal["audio", "image", "video"]
    sha256: str = Field(description="Of the content.")
    seconds: float | None = Field(default=None, exclude_if=_absent)
    frames: int | None = Field(default=None, exclude_if=_absent, description="Images of a video.")
    width: int | None = Field(default=None, exclude_if=_absent, description="Pixels.")
    height: int | None = Field(default=None, exclude_if=_absent, description="Pixels.")

    def __str__(self) -> str:
        """As it is shown: ``audio (1.2 s)``, ``vision (20 images, 2 s)``, ``vision (640 x 480)``."""
        size = [f"{self.frames} images"] if self.frames is not None else []
        if self.seconds is not None:
            size.append(f"{self.seconds:.3g} s")
        return f"{self.modality} ({', '.join(size) or f'{self.width} x {self.height}'})"


class PlanOrigin(Record):
    """Where a sample's candidates come from, if it isn't the model's own planner and no more to say."""

    planner: str
    prompt_version: str | None = None
    prompt_sha256: str | None = None
    confidence: str | None = None
    decoding: str | None = Field(default=None, exclude_if=_absent)
    recordings: tuple[SeenRecording, ...] = Field(default=(), description="What the planner was given.")
    note: str | None = Field(default=None, description="A message for the user, such as a fall-back.")


class CandidatePlan(Record):
    """A plan that a planner proposed, with every term of its score (Eq. 5); see ``Schema.candidate``."""

    text: str
    constraints: tuple[Constraint, ...]
    log_probability: float | None = Field(
        description="Sum over the constraints: the first term of Eq. 5; null for a plan that a person wrote "
        "and the planner can't score."
    )
    log_probability_per_token: float | None
    greedy: bool = False
    semantic_cost: float | None = Field(default=None, description="C_sem (Eq. 6); null before re-ranking.")
    violations: tuple[str, ...] = Field(default=(), description="What of the schema it breaks.")
    score: float | None = Field(
        default=None,
        description="log-probability less lambda_s C_sem; null if the schema is broken or it has no "
        "log-probability.",
    )
    edited: bool = Field(default=False, exclude_if=not_, description="Whether a person wrote it.")
    times: int = Field(default=1, ge=1, exclude_if=_once, description="How often the planner drew it.")
    origin: PlanOrigin | None = Field(
        default=None,
        exclude=True,
        description="Where it comes from, if there is more to say than the planner's name; the same for all "
        "plans of a sample, so the trajectory keeps it once.",
    )

    @property
    def values(self) -> tuple[str, ...]:
        """One value for each field of the schema."""
        return tuple(link.value for link in self.constraints)

    @property
    def log_probabilities(self) -> tuple[float, ...]:
        """Log pi(c_l | X, c_<l) of each value, nats; NaN where nobody can tell."""
        return tuple(
            math.nan if link.log_probability is None else link.log_probability for link in self.constraints
        )

    @property
    def token_counts(self) -> tuple[int, ...]:
        """How many tokens each of them sums over."""
        return tuple(link.tokens for link in self.constraints)

    @property
    def valid(self) -> bool:
        """Whether it obeys the schema, and so may win."""
        return not self.violations


class Plan(Record):
    """S*: the candidate that won, beside those that didn't."""

    schema_name: str
    planner: str
    text: str
    constraints: tuple[Constraint, ...]
    chosen: int = Field(description="Index of the winner among the candidates.")
    chosen_by: str = Field(
        default="rerank",
        description="Who chose: rerank (the model), utility (of the whole trajectory), person, or edited "
        "(a person wrote it).",
    )
    reviewed: bool = Field(default=False, exclude_if=not_, description="Whether a person saw the candidates.")
    semantic_weight: float = Field(description="lambda_s of Eq. 5.")
    candidates: tuple[CandidatePlan, ...] = Field(description="Each different plan that was drawn, once.")
    prompt_version: str | None = Field(
        default=None, exclude_if=_absent, description="Of the prompt; only where a language model planned."
    )
    prompt_sha256: str | None = Field(
        default=None,
        exclude_if=_absent,
        description="Of the prompt file; only where a language model planned.",
    )
    confidence: str | None = Field(
        default=None,
        exclude_if=_absent,
        description="What a language model's log-probabilities are: its own, or the agreement of candidates.",
    )
    recordings: tuple[SeenRecording, ...] = Field(
        default=(),
        exclude_if=not_,
        description="What the planner was given beside text and features.",
    )
    decoding: str | None = Field(
        default=None,
        exclude_if=_absent,
        description="How values were written: held to the schema, or freely.",
    )

    @property
    def trusted(self) -> bool:
        """Whether a person picked or wrote it: the executor follows it where the observation disagrees."""
        return self.chosen_by in ("person", "edited")

    @property
    def drawn(self) -> int:
        """How many plans were drawn, a plan that came more than once counted as often."""
        return sum(candidate.times for candidate in self.candidates)

    def ranked(self) -> tuple[int, ...]:
        """Indices of the candidates as they are shown and numbered: the winner first, then by score."""

        def place(index: int) -> tuple[bool, float]:
            score = self.candidates[index].score
            return index != self.chosen, float("inf") if score is None else -score

        return tuple(sorted(range(len(self.candidates)), key=place))

    def numbered(self, number: int) -> int:
        """The index of the candidate that is shown as ``number``, counted from 1.

        Raises:
            PlanError: if there is none.
        """
        if not 1 <= number <= len(self.candidates):
            raise PlanError(f"pick: expected a candidate from 1 to {len(self.candidates)}, got {number}")
        return self.ranked()[number - 1]


class EvidenceEntry(Record):
    """One of N_K, traceable to where it came from."""

    id: str = Field(description="The id of the sample that the entry was made from.")
    weight: float = Field(description="alpha_i (Eq. 8).")
    similarity: float = Field(description="Mean cosine over the views that query and entry share.")
    text: str
    source: str = Field(description="Which knowledge base and split it came from.")


class DenoisingStep(Record):
    """One step z_t -> z_{t-1} of draw 0, in numbers."""

    step: int
    timestep: int
    state_norm: float = Field(description="|z_{t-1}| per root dimension.")
    clean_norm: float = Field(description="|z_0|t|, the clean estimate, per root dimension.")
    clean_change: float = Field(description="Root mean squared change of the clean estimate.")


class FilledFrames(Record):
    """Lost frames of a sequence that is observed otherwise, which were filled."""

    frames: tuple[int, ...] = Field(description="Which, from 0.")
    of: int = Field(description="Frames that the sequence has.")


class Prediction(Record):
    """What the task head says."""

    value: float | None = Field(description="In the label's units; null for classes.")
    label: str | None = Field(description="The nearest word of the schema, or the class.")
    probabilities: dict[str, float] = Field(default={})


class ReconstructionError(Record):
    """Against the truth, where a modality was hidden that is really there."""

    nmse: float = Field(
        description="Squared error over squared deviation from the training mean, standard units."
    )
    squared_error: float = Field(description="Its numerator: sum over the scored features.")
    squared_deviation: float = Field(
        description="Its denominator; sums over samples give their common error."
    )
    mse: float = Field(description="Mean squared error in the input's units.")


class Utility(Record):
    """U(tau) with its terms (Eq. 3)."""

    total: float
    reconstruction: float | None = Field(description="L_rec; null where the truth isn't known.")
    semantic: float | None = Field(description="C_sem(S, X).")
    evidence: float | None = Field(description="C_evi(S, E), averaged over missing modalities.")
    path: float | None = Field(description="C_path, averaged over missing modalities.")
    weights: dict[str, float]
    note: str


class RankedTrajectory(Record):
    """One of the trajectories among which the greatest utility wins (Eq. 2)."""

    plan: int = Field(description="Index of its plan among the candidates.")
    draw: int
    utility: float = Field(description="Eq. 3 without L_rec.")
    semantic: float | None = Field(description="C_sem(S, X).")
    evidence: float | None = Field(description="C_evi(S, E), averaged over missing modalities.")
    path: float = Field(description="C_path, averaged over missing modalities.")


class Selection(Record):
    """How whole trajectories were ranked."""

    ranked: tuple[RankedTrajectory, ...] = Field(description="The best first: this trajectory.")
    note: str


class Trajectory(Record):
    """Everything that happened to one sample."""

    id: str
    group: str
    observed: tuple[str, ...]
    missing: tuple[str, ...]
    hidden: tuple[str, ...] = Field(default=(), description="Missing because the caller hid them.")
    raw_text: str | None = None
    candidates: tuple[CandidatePlan, ...] = Field(
        default=(), description="What the planner drew; the re-rank node moves them into the plan."
    )
    plan_origin: PlanOrigin | None = Field(
        default=None, exclude_if=_absent, description="Of the candidates; it too ends up in the plan."
    )
    plan: Plan | None = None
    evidence: dict[str, tuple[EvidenceEntry, ...]] = {}
    evidence_cost: dict[str, float] = Field(default={}, description="C_evi for each modality (Eq. 9).")
    left_out: dict[str, int] = Field(
        default={}, description="Entries of the sample itself or its own group that were never considered."
    )
    denoising: dict[str, tuple[DenoisingStep, ...]] | None = {}
    reconstruction: dict[str, ArrayRef] = {}
    filled: dict[str, FilledFrames] = Field(
        default={},
        exclude_if=not_,
        description="Observed sequences with lost frames; the filled one is the array filled/NAME.",
    )
    lengths: dict[str, int] = Field(
        default={}, description="Frames of a padded sequence that was reconstructed or filled."
    )
    length_source: dict[str, str] = {}
    errors: dict[str, ReconstructionError] = {}
    prediction: Prediction | None = None
    prediction_without: Prediction | None = Field(
        default=None,
        description="The prediction with the training mean in place of what was reconstructed.",
    )
    utility: Utility | None = None
    selection: Selection | None = Field(
        default=None, exclude_if=_absent, description="Where whole trajectories were ranked (Eq. 2)."
    )
    arrays: dict[str, ArrayRef] = Field(
        default={}, description="Embeddings, evidence vectors, paths and draws, by reference."
    )
    notes: tuple[str, ...] = Field(default=(), description="What was degraded, chosen or left out.")
    timings: dict[str, float] = Field(default={}, description="Seconds a node took for this sample's batch.")
    seed: int
    model: str = Field(description="Fingerprint of the model.")


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
