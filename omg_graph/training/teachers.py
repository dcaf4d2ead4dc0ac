"""Teachers: whoever writes plans of samples that are seen whole, and how their plans are gathered."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol, runtime_checkable

from omg_graph.data.dataset import FloatArray, Split
from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.errors import PlanError
from omg_graph.model.model import Model
from omg_graph.pipeline import observe, planner_input, rerank
from omg_graph.planner.annotator import LexicalAnnotator
from omg_graph.planner.choosing import SchemaChoice, choose_schema, unreadable_text
from omg_graph.planner.interface import NoValidPlanError, Planner, PlanWriter
from omg_graph.planner.prompting import Prompt
from omg_graph.planner.schema import Schema
from omg_graph.record.trajectory import CandidatePlan
from omg_graph.training.config import PlannerSettings
from omg_graph.training.teaching import GrowingPlans, TaughtPlan, TaughtPlans

LEXICAL: Final = "lexical"
BATCH: Final = 8
"""Samples that a teacher is given at once: as many as a chat planner asks for at a time."""

OnInvalid = Literal["error", "lexical", "skip"]
"""What becomes of a sample that a teacher has no valid plan for."""


class Teacher(PlanWriter, Protocol):
    """Writes plans of samples that are seen whole, never of their labels."""

    @property
    def prompt(self) -> Prompt | None:
        """What it was told, if it is a language model."""
        ...

    @property
    def calls(self) -> int | None:
        """How many calls to a provider it has made, where it makes any."""
        ...

    def write(self, split: Split) -> list[TaughtPlan]:
        """One plan for each sample; ``constraints`` is None, with a reason, where there is none."""
        ...


@runtime_checkable
class PromptedPlanner(Protocol):
    """A planner that follows a prompt file."""

    @property
    def prompt(self) -> Prompt:
        """The file as it was read."""
        ...


class PlannerTeacher:
    """A planner as a teacher: the best of its candidates by Eq. 5, as in use, but with nothing hidden."""

    def __init__(self, model: Model, planner: Planner, *, candidates: int = 1, seed: int = 0) -> None:
        """Make a teacher.

        Args:
            model: Whose psi and g rank the candidates, and whose schema the plans obey.
            planner: Asked for the plans.
            candidates: How many for each sample, of which the best stays.
            seed: Of what the planner draws.
        """
        # what ranking embeds stays here: the model that comes out doesn't depend on what was kept before
        texts = CachedTextEncoder(model.text_encoder.encoder, dict(model.text_encoder.table))
        self._model, self._planner = replace(model, text_encoder=texts), planner
        self._candidates, self._seed = candidates, seed

    @property
    def name(self) -> str:
        """The planner's."""
        return self._planner.name

    @property
    def prompt(self) -> Prompt | None:
        """The planner's, where it has one."""
        return self._planner.prompt if isinstance(self._planner, PromptedPlanner) else None

    @property
    def calls(self) -> int | None:
        """The planner's, where it counts them."""
        made = getattr(self._planner, "calls", None)
        return made if isinstance(made, int) else None

    @property
    def follows_sampling(self) -> bool:
        """The planner's."""
        return self._planner.follows_sampling

    def write(self, split: Split) -> list[TaughtPlan]:
        """One plan for each sample.

        Raises:
            PlannerError: if the planner's language model can't be asked at all.
        """
        shown = split.without_labels()
        observation = observe(self._model, shown)
        embedding = observation.embedding
        outcomes = self._planner.propose(
            planner_input(shown, observation),
            self._model.config.planning.sampling(self._candidates),
            self._seed,
        )
        return [
            self._taught(sample_id, split.name, outcome, embedding[row : row + 1])
            for row, (sample_id, outcome) in enumerate(zip(split.ids, outcomes, strict=True))
        ]

    def _taught(
        self,
        sample_id: str,
        split: str,
        outcome: Sequence[CandidatePlan] | NoValidPlanError,
        embedding: FloatArray,
    ) -> TaughtPlan:
        prompt, schema = self.prompt, self._model.schema
        values: dict[str, str] | None = None
        reason: str | None = None
        if isinstance(outcome, NoValidPlanError):
            reason = outcome.reason
        else:
            try:
                (ranked,) = rerank(self._model, [outcome], embedding)
                values = dict(zip(schema.field_names, ranked.best.values, strict=True))
            except PlanError:
                reason = f"none of its {len(outcome)} plans obeys schema {schema.name!r}"
        return TaughtPlan(
            id=sample_id,
            split=split,
            constraints=values,
            teacher=self.name,
            prompt_version=None if prompt is None else prompt.version,
            prompt_sha256=None if prompt is None else prompt.sha256,
            reason=reason,
        )


class LexicalTeacher:
    """The lexical annotator as a teacher: its own target is what the words say, without the label."""

    @property
    def name(self) -> str:
        """What plans say of where they come from."""
        return LEXICAL

    @property
    def prompt(self) -> Prompt | None:
        """None: it follows word lists."""
        return None

    @property
    def calls(self) -> int | None:
        """None: it asks nobody."""
        return None

    def __init__(self, split: Split, schema: Schema) -> None:
        """Make a teacher of a data set.

        Args:
            split: The training samples: by their texts it is decided whether texts can be read.
            schema: What its plans obey.

        Raises:
            SchemaError: if it has a field that no rule fills from these data.
        """
        choose_schema(split, schema)
        self._reads = unreadable_text(split) is None
        self._schema = schema
        self._annotator = LexicalAnnotator(schema)

    @property
    def follows_sampling(self) -> bool:
        """It draws nothing."""
        return False

    def write(self, split: Split) -> list[TaughtPlan]:
        """One plan for each sample, without its target where the words don't tell it."""
        texts = split.raw_text if split.raw_text is not None and self._reads else (None,) * len(split)
        return [
            TaughtPlan(id=sample_id, split=split.name, constraints=values, teacher=self.name)
            for sample_id, values in zip(split.ids, self._annotator.read(texts), strict=True)
        ]


def annotated(
    train: Split, settings: PlannerSettings, schema: Schema | None = None, seed: int = 0
) -> SchemaChoice:
    """The schema that suits training rows, and their plans by the lexical annotator, labels or clusters.

    Args:
        train: The rows.
        settings: Where plans come from.
        schema: One of the user's own.
        seed: Of the clusters.

    Raises:
        OmgError: if plans can't be had in this way.
    """
    if settings.annotator == "clusters":
        return choose_schema(replace(train, raw_text=None, labels=None), schema, seed=seed)
    return choose_schema(train, schema, annotator=settings.annotator, seed=seed)


@dataclass(frozen=True)
class Writing:
    """Plans of some samples, and how they came about."""

    plans: TaughtPlans
    """In the samples' order."""
    written: int
    """How many were written now; the others were kept from before."""
    seconds: float
    """What writing them took."""
    failed: int
    """Samples that the teacher had no valid plan for."""


def write_plans(
    teacher: Teacher,
    splits: Sequence[Split],
    kept: GrowingPlans,
    *,
    on_invalid: OnInvalid = "error",
    instead: Teacher | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Writing:
    """Have a plan of every sample written, unless there is one already.

    Args:
        teacher: Who writes.
        splits: The samples.
        kept: Where plans go as soon as they are written, and where earlier ones are found.
        on_invalid: What becomes of samples without a valid plan.
        instead: Who writes the plans of those, for ``lexical``.
        on_progress: Told of (samples done, of).

    Raises:
        PlanError: if a sample has no valid plan and that is an error; other plans so far are kept.
        PlannerError: if the teacher can't be asked at all.
    """
    parts = [part for split in splits for part in _open_parts(split, kept)]
    total = sum(len(split) for split in splits)
    done = total - sum(len(part) for part in parts)
    seconds, written = 0.0, 0
    if on_progress is not None:
        on_progress(done, total)
    for part in parts:
        started = time.perf_counter()
        made = teacher.write(part)
        seconds += time.perf_counter() - started
        written += len(made)
        # a failure that ends the run isn't kept: it is tried again, with another model perhaps
        kept.add([plan for plan in made if on_invalid != "error" or plan.constraints is not None])
        _refuse_failures(made, on_invalid)
        done += len(made)
        if on_progress is not None:
            on_progress(done, total)
    plans: list[TaughtPlan] = []
    failed = 0
    for split in splits:
        found = [kept.plans[split.name, sample_id] for sample_id in split.ids]
        _refuse_failures(found, on_invalid)
        lost = [row for row, plan in enumerate(found) if plan.constraints is None]
        failed += len(lost)
        if instead is not None and lost:
            for row, plan in zip(lost, instead.write(split.take(lost)), strict=True):
                why = f"{teacher.name} gave no valid plan: {found[row].reason}"
                found[row] = plan.model_copy(update={"teacher": f"{plan.teacher} (fallback)", "reason": why})
        plans += found
    return Writing(TaughtPlans(plans), written, seconds, failed)


def _open_parts(split: Split, kept: GrowingPlans) -> list[Split]:
    """The samples whose plans are still to be written, as many at a time as a teacher is given."""
    rows = [row for row, sample in enumerate(split.ids) if (split.name, sample) not in kept.plans]
    return [split.take(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]


def _refuse_failures(plans: Sequence[TaughtPlan], on_invalid: OnInvalid) -> None:
    failure = next((plan for plan in plans if plan.constraints is None), None)
    if failure is not None and on_invalid == "error":
        raise PlanError(
            f"sample {failure.id!r}: a plan was expected from teacher {failure.teacher}, and "
            f"{failure.reason}: use another model, or --on-invalid-plan lexical or skip"
        )
