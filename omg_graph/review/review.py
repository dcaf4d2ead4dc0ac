"""A person in the loop: the run stops after re-ranking, shows the candidates, and takes what the person says.

It is LangGraph's interrupt, one sample at a time: its value is a ``ReviewRequest``, and the run goes on by
``Command(resume=...)`` with a ``ReviewAnswer``. An answer that can't be used makes no run fail: the same
request comes again, with the error in it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Literal

from langgraph.config import get_stream_writer
from langgraph.types import interrupt
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from omg_graph import pipeline
from omg_graph.data.arrays import printable
from omg_graph.data.dataset import Split
from omg_graph.errors import OmgError, PlanError, first_fault
from omg_graph.model.model import Model
from omg_graph.pipeline import Observation
from omg_graph.planner.schema import Schema
from omg_graph.record import markdown
from omg_graph.record.trajectory import CandidatePlan, PlanOrigin, Trajectory
from omg_graph.review.edits import check_edits, replanned
from omg_graph.seeding import derived_seed
from omg_graph.state import ReconstructionState, Reviewing, Settings
from omg_graph.trajectories import counted, timed

HOW_TO_ANSWER = (
    'resume with {"accept": true} to take the first plan, the chosen one; {"pick": 2} to take number 2; '
    '{"set": {"FIELD": "VALUE"}} to edit it (with pick: to edit that one); {"redraw": true} for new '
    'candidates; {"accept_rest": true} to take the chosen plans of this and all further samples'
)

HEAT = 0.5
"""What each round of new candidates adds to the distilled planner's temperature: likely plans are known."""

_WORDS: dict[str, dict[str, Any]] = {
    "accept": {"accept": True},
    "accept_rest": {"accept_rest": True},
    "redraw": {"redraw": True},
}


class ReviewField(BaseModel):
    """What one field of a plan may say."""

    model_config = ConfigDict(frozen=True)

    name: str
    description: str = ""
    values: tuple[str, ...] | None = Field(default=None, description="What is allowed; null for free text.")
    within: dict[str, tuple[str, ...]] | None = Field(
        default=None, description="Which values may follow which value of the field before."
    )
    max_words: int | None = Field(default=None, description="For free text.")


class _Numbered(BaseModel):
    number: int = Field(description="Its place in the list, from 1: what to pick it by.")


class ReviewCandidate(CandidatePlan, _Numbered):
    """One of the different plans that were drawn, with every term of its score."""


class ReviewRequest(BaseModel):
    """What a person is shown of one sample: the interrupt's value."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["review_plan"] = "review_plan"
    sample: str = Field(description="The sample's id.")
    number: int = Field(description="Which sample of the batch, from 1.")
    of: int = Field(description="Samples in the batch.")
    raw_text: str | None
    observed: tuple[str, ...]
    missing: tuple[str, ...]
    candidates: tuple[ReviewCandidate, ...] = Field(
        description="As the trace shows them: the one that the re-rank node chose first, then by score."
    )
    semantic_weight: float = Field(description="lambda_s of Eq. 5.")
    fields: tuple[ReviewField, ...] = Field(description="What an edited plan may say.")
    notes: tuple[str, ...] = ()
    how_to_answer: str = HOW_TO_ANSWER
    error: str | None = Field(default=None, description="Why the last answer couldn't be used.")


class ReviewAnswer(BaseModel):
    """What a person says of it: the value to resume with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accept: bool = Field(default=False, description="Whether the chosen plan, the first, is taken.")
    pick: int | None = Field(default=None, ge=1, description="Number of the candidate to take, or to edit.")
    set: dict[str, str] = Field(default={}, description="Values to put into it, by the schema's fields.")
    redraw: bool = Field(default=False, description="Whether new candidates are wanted instead.")
    accept_rest: bool = Field(
        default=False, description="Whether the chosen plans of this and all further samples are taken."
    )

    @model_validator(mode="after")
    def _says_one_thing(self) -> ReviewAnswer:
        own_choice = self.pick is not None or bool(self.set)
        said = sum((self.accept, own_choice, self.redraw, self.accept_rest))
        if said != 1:
            came = "more than one" if said else "none"
            raise ValueError(f"expected one of accept, pick or set, redraw and accept_rest, got {came}")
        return self


Reviewer = Callable[[ReviewRequest], ReviewAnswer]
"""Somebody who answers at once, such as a prompt in a terminal."""


def read_answer(answer: object) -> ReviewAnswer:
    """What a person said, in any of the forms that forms and consoles send.

    Beside the mapping: a number picks, ``"accept"``, ``"redraw"`` and ``"accept_rest"`` are words for
    themselves, and text may hold the JSON.

    Raises:
        PlanError: if it can't be understood, with what can.
    """
    if isinstance(answer, str):
        word = answer.strip()
        if word in _WORDS:
            answer = _WORDS[word]
        else:
            try:
                answer = json.loads(word)
            except ValueError:
                raise PlanError(f"expected an answer, got {word[:80]!r}: {HOW_TO_ANSWER}") from None
    if isinstance(answer, int) and not isinstance(answer, bool):
        answer = {"pick": answer}
    try:
        return ReviewAnswer.model_validate(answer)
    except ValidationError as error:
        raise PlanError(f"{first_fault(error, 'the answer')}: {HOW_TO_ANSWER}") from None


def reviewed(
    model: Model,
    sample: Callable[[int], tuple[Split, Observation]],
    state: ReconstructionState,
) -> dict[str, Any]:
    """The update of the review node: a fork's edits, or one sample's plan as a person settles it.

    Each call settles one sample, so that a checkpoint follows every answer.

    Args:
        model: With the planner of the run.
        sample: One row of the batch; where nothing is changed, none is read.
        state: Past re-ranking.

    Raises:
        PlanError: if a fork's edit can't be carried out.
    """
    trajectories, count = list(state.trajectories), len(state.trajectories)
    done = min(state.reviewing.done, count)
    check_edits(state.edits, trajectories)
    edited = [
        (row, edit)
        for edit in state.edits
        for row, trajectory in enumerate(trajectories)
        if edit.changes_plan and edit.concerns(trajectory.id)
    ]

    def settled(row: int, pick: int | None, changes: dict[str, str]) -> Trajectory:
        return replanned(model, *sample(row), trajectories[row], pick=pick, changes=changes)

    if edited:
        for row, edit in edited:
            trajectories[row] = settled(row, edit.pick, edit.set)
        left = [edit for edit in state.edits if edit.drop_evidence]
        return _settled(trajectories, count) | {"edits": left}
    if not state.reviewing.asked or done == count:
        return {"reviewing": Reviewing(done=count)}
    request, error = review_request(model.schema, trajectories[done], done + 1, count), None
    while True:
        answer = interrupt(request.model_copy(update={"error": error}).model_dump(mode="json"))
        try:
            said = read_answer(answer)
            if said.redraw:
                return {"reviewing": state.reviewing.model_copy(update={"redraw": True})}
            if said.accept_rest:
                trajectories[done] = _seen(trajectories[done])
                return _settled(trajectories, count)
            if said.accept:
                trajectories[done] = _seen(trajectories[done])
            else:
                trajectories[done] = settled(done, said.pick, said.set)
        except OmgError as problem:
            error = printable(str(problem))
            continue
        plan = trajectories[done].plan
        event = {"node": "review", "sample": trajectories[done].id, "plan": plan and plan.text}
        get_stream_writer()(event | {"chosen_by": plan and plan.chosen_by})
        return _settled(trajectories, done + 1)


def after_rerank(state: ReconstructionState) -> Literal["review", "retriever"]:
    """To the review where a person is asked or a fork changes something; else straight on."""
    return "review" if state.reviewing.asked or state.edits else "retriever"


def after_review(state: ReconstructionState) -> Literal["planner", "review", "retriever"]:
    """Back to the planner for new candidates, on to the next sample, or to the retriever with all plans."""
    if state.reviewing.redraw:
        return "planner"
    return "review" if state.reviewing.asked else "retriever"


def redrawn(
    model: Model, split: Split, observation: Observation, state: ReconstructionState, settings: Settings
) -> dict[str, Any]:
    """The update of the planner where a person asked for new candidates of one sample.

    They are drawn with a seed of their own, hotter each time; those that are new join the earlier ones, and
    all are ranked.
    """
    started, row, rounds = time.perf_counter(), state.reviewing.done, state.reviewing.rounds + 1
    trajectory = state.trajectories[row]
    if trajectory.plan is None:
        raise PlanError(f"sample {trajectory.id!r} has no plan yet: run the re-rank node first")
    known = trajectory.plan.candidates
    count = settings.candidates or model.config.planning.candidates
    seed = derived_seed(settings.seed, "new candidates", rounds)
    (drawn,) = pipeline.propose(
        model, split.take([row]), observation.take([row]), count, seed, heat=HEAT * rounds
    )
    get_stream_writer()({"node": "planner", "candidates": count, "samples": 1})
    texts = {candidate.text for candidate in known}
    new = [one for one in counted(drawn) if one.text not in texts]
    remark = (
        f"new candidates were asked for {rounds} times" if rounds > 1 else "new candidates were asked for"
    )
    notes = tuple(note for note in trajectory.notes if not note.startswith("new candidates were asked for"))
    nothing_new = () if new else (f"nothing new came up among {count} new candidates",)
    origin = drawn[0].origin if drawn and drawn[0].origin is not None else _origin(trajectory)
    waiting = trajectory.model_copy(
        update={
            # a plan that only a person can vouch for can't be ranked
            "candidates": (*(one for one in known if one.log_probability is not None), *new),
            "plan": None,
            "plan_origin": origin,
            "notes": (*notes, remark, *nothing_new),
        }
    )
    trajectories = list(state.trajectories)
    (trajectories[row],) = timed([waiting], "planner", started)
    reviewing = state.reviewing.model_copy(update={"redraw": False, "rounds": rounds})
    return {"trajectories": trajectories, "reviewing": reviewing}


def review_request(schema: Schema, trajectory: Trajectory, number: int, of: int) -> ReviewRequest:
    """What a person is shown of one sample.

    Args:
        schema: What an edited plan must obey.
        trajectory: Past re-ranking.
        number: Which sample of its batch, from 1.
        of: Samples in the batch.

    Raises:
        PlanError: if it has no plan yet.
    """
    plan = trajectory.plan
    if plan is None:
        raise PlanError(f"sample {trajectory.id!r} has no plan yet: run the re-rank node first")
    return ReviewRequest(
        sample=trajectory.id,
        number=number,
        of=of,
        raw_text=trajectory.raw_text,
        observed=trajectory.observed,
        missing=trajectory.missing,
        candidates=tuple(
            ReviewCandidate(number=number, **plan.candidates[index].model_dump())
            for number, index in enumerate(plan.ranked(), start=1)
        ),
        semantic_weight=plan.semantic_weight,
        fields=tuple(
            ReviewField(
                name=field.name,
                description=field.description,
                values=field.values,
                within=field.within,
                max_words=field.max_words,
            )
            for field in schema.fields
        ),
        notes=trajectory.notes,
    )


def _settled(trajectories: list[Trajectory], done: int) -> dict[str, Any]:
    return {
        "trajectories": trajectories,
        "in_words": markdown.plans(trajectories),
        "reviewing": Reviewing(asked=done < len(trajectories), done=done),
    }


def _seen(trajectory: Trajectory) -> Trajectory:
    plan = trajectory.plan
    return (
        trajectory
        if plan is None
        else trajectory.model_copy(update={"plan": plan.model_copy(update={"reviewed": True})})
    )


def _origin(trajectory: Trajectory) -> PlanOrigin | None:
    plan = trajectory.plan
    return (
        None
        if plan is None
        else PlanOrigin(
            planner=plan.planner,
            prompt_version=plan.prompt_version,
            prompt_sha256=plan.prompt_sha256,
            confidence=plan.confidence,
            recordings=plan.recordings,
            decoding=plan.decoding,
        )
    )
