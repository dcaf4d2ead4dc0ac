"""Teachers, which write plans of complete samples, and the collection of their plans."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from omg_graph.data.dataset import Split
from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.errors import PlanError
from omg_graph.model.model import Model
from omg_graph.pipeline import observe, planner_input, rerank
from omg_graph.planner.annotator import LexicalAnnotator
from omg_graph.planner.interface import NoValidPlanError, Planner
from omg_graph.planner.prompting import Prompt
from omg_graph.planner.schema import Schema
from omg_graph.planner.schema_choice import choose_schema, unreadable_text
from omg_graph.training.teaching import PlansInProgress, TaughtPlan, TaughtPlans

LEXICAL: Final = "lexical"
BATCH: Final = 8
"""Samples that a teacher is given at once: as many as a chat planner asks for at a time."""

OnInvalid = Literal["error", "lexical", "skip"]
"""What becomes of a sample that a teacher has no valid plan for."""


@dataclass(frozen=True)
class Teacher:
    """Writes plans of samples that are seen whole, never of their labels."""

    name: str
    write: Callable[[Split], list[TaughtPlan]]
    """One plan for each sample; ``constraints`` is None, with a reason, where there is none."""
    follows_sampling: bool = False
    prompt: Prompt | None = None
    """Of a language model."""
    calls: Callable[[], int | None] = lambda: None
    """How many calls to a provider it has made; None where it makes none."""


def planner_teacher(model: Model, planner: Planner, *, candidates: int = 1, seed: int = 0) -> Teacher:
    """A planner as a teacher: the best of its candidates by Eq. 5, as in use, but with nothing hidden.

    Writing raises a PlannerError if the planner's language model can't be asked at all.

    Args:
        model: Whose psi and g rank the candidates, and whose schema the plans obey.
        planner: Asked for the plans.
        candidates: How many for each sample, of which the best stays.
        seed: Of what the planner draws.
    """
    # what ranking embeds stays here: the model that comes out doesn't depend on what was kept before
    texts = CachedTextEncoder(model.text_encoder.encoder, dict(model.text_encoder.table))
    model, schema = replace(model, text_encoder=texts), model.schema
    prompt: Prompt | None = getattr(planner, "prompt", None)

    def write(split: Split) -> list[TaughtPlan]:
        shown = split.without_labels()
        observation = observe(model, shown)
        sampling = model.config.planning.sampling(candidates)
        outcomes = planner.propose(planner_input(shown, observation), sampling, seed)
        plans = []
        for row, (sample_id, outcome) in enumerate(zip(split.ids, outcomes, strict=True)):
            values, reason = None, None
            if isinstance(outcome, NoValidPlanError):
                reason = outcome.reason
            else:
                try:
                    (ranked,) = rerank(model, [outcome], observation.embedding[row : row + 1])
                    values = dict(zip(schema.field_names, ranked.best.values, strict=True))
                except PlanError:
                    reason = f"none of its {len(outcome)} plans obeys schema {schema.name!r}"
            plans.append(
                TaughtPlan(
                    id=sample_id,
                    split=split.name,
                    constraints=values,
                    teacher=planner.name,
                    prompt_version=prompt and prompt.version,
                    prompt_sha256=prompt and prompt.sha256,
                    reason=reason,
                )
            )
        return plans

    calls = lambda: getattr(planner, "calls", None)  # noqa: E731
    return Teacher(planner.name, write, planner.follows_sampling, prompt, calls)


def lexical_teacher(train: Split, schema: Schema) -> Teacher:
    """The lexical annotator as a teacher: its own target is what the words say, without the label.

    Args:
        train: The training samples: by their texts it is decided whether texts can be read.
        schema: What its plans obey.

    Raises:
        SchemaError: if it has a field that no rule fills from these data.
    """
    choose_schema(train, schema)
    readable, annotator = unreadable_text(train) is None, LexicalAnnotator(schema)

    def write(split: Split) -> list[TaughtPlan]:
        texts = split.raw_text if split.raw_text is not None and readable else (None,) * len(split)
        return [
            TaughtPlan(id=sample_id, split=split.name, constraints=values, teacher=LEXICAL)
            for sample_id, values in zip(split.ids, annotator.read(texts), strict=True)
        ]

    return Teacher(LEXICAL, write)


@dataclass(frozen=True)
class Writing:
    """Plans of some samples, and how they were written."""

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
    kept: PlansInProgress,
    *,
    on_invalid: OnInvalid = "error",
    fallback: Teacher | None = None,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> Writing:
    """Have a plan of every sample written, unless there is one already.

    Args:
        teacher: Who writes.
        splits: The samples.
        kept: Where plans go as soon as they are written, and where earlier ones are.
        on_invalid: What becomes of samples without a valid plan.
        fallback: Who writes the plans of those, for ``lexical``.
        on_progress: Called with (samples done, of).

    Raises:
        PlanError: if a sample has no valid plan and that is an error; other plans so far are kept.
        PlannerError: if the teacher can't be asked at all.
    """
    total = sum(len(split) for split in splits)
    batches = []
    for split in splits:
        rows = [row for row, sample in enumerate(split.ids) if (split.name, sample) not in kept.plans]
        batches += [split.take(rows[start : start + BATCH]) for start in range(0, len(rows), BATCH)]
    left = written = sum(len(batch) for batch in batches)
    seconds = 0.0
    on_progress(total - left, total)
    for batch in batches:
        started = time.perf_counter()
        plans = teacher.write(batch)
        seconds += time.perf_counter() - started
        # a failure that ends the run isn't kept: it is tried again, with another model perhaps
        kept.add([plan for plan in plans if on_invalid != "error" or plan.constraints is not None])
        _refuse_failures(plans, on_invalid)
        left -= len(plans)
        on_progress(total - left, total)
    whole: list[TaughtPlan] = []
    failed = 0
    for split in splits:
        plans = [kept.plans[split.name, sample_id] for sample_id in split.ids]
        _refuse_failures(plans, on_invalid)
        lost = [row for row, plan in enumerate(plans) if plan.constraints is None]
        failed += len(lost)
        if fallback is not None and lost:
            for row, plan in zip(lost, fallback.write(split.take(lost)), strict=True):
                why = f"{teacher.name} gave no valid plan: {plans[row].reason}"
                plans[row] = plan.model_copy(update={"teacher": f"{plan.teacher} (fallback)", "reason": why})
        whole += plans
    return Writing(TaughtPlans(whole), written, seconds, failed)


def _refuse_failures(plans: Sequence[TaughtPlan], on_invalid: OnInvalid) -> None:
    failure = next((plan for plan in plans if plan.constraints is None), None)
    if failure is not None and on_invalid == "error":
        raise PlanError(
            f"sample {failure.id!r}: expected a plan from teacher {failure.teacher}, but "
            f"{failure.reason}: use another model, or --on-invalid-plan lexical or skip"
        )
