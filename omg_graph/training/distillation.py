"""A distillation: a teacher writes plans of a model's training samples, and its planner learns them."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from omg_graph.data.columns import FillNonfinite
from omg_graph.errors import ConfigError
from omg_graph.files import whole_folder, write_atomically
from omg_graph.model.folder import load_model, save_model
from omg_graph.model.model import Model, default_model_folder
from omg_graph.model.planners import PlannerOptions, make_planner
from omg_graph.planner.interface import sampling_note
from omg_graph.planner.schema import Plan
from omg_graph.planner.schema_files import load_schema
from omg_graph.training.classroom import Classroom, open_classroom
from omg_graph.training.relearning import teach
from omg_graph.training.run import Progress
from omg_graph.training.session import check_output
from omg_graph.training.teachers import (
    LEXICAL,
    LexicalTeacher,
    OnInvalid,
    PlannerTeacher,
    Teacher,
    write_plans,
)
from omg_graph.training.teaching import PLANS, TRAINING_PLANS, PlanTarget, plan_lines
from omg_graph.training.unfinished import UnfinishedPlans

OWN_PLANNER = "distilled"


class DistillationRequest(BaseModel):
    """Who teaches what to which model, and every choice that is the user's."""

    model_config = ConfigDict(extra="forbid")

    teacher: str = Field(description="``lexical``, or the name of a registered planner.")
    data: Path
    model: Path | None = None
    """The model folder; the embedded default if None."""
    output: Path | None = None
    """A folder for the new model; ``model`` itself if None."""
    plans_only: Path | None = None
    """Write the plans here and teach nothing."""
    schema_file: Path | None = None
    """Another schema for the plans, with ``plans_only``."""
    target: PlanTarget = "label"
    on_invalid: OnInvalid = "error"
    candidates: int = Field(default=1, ge=1)
    """Plans that the teacher draws for a sample; the best by Eq. 5 stays."""
    temperature: float | None = Field(default=None, gt=0)
    """Of a teacher that draws on this machine; the model's setting if None. A provider has its own."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Likewise, the share of the likeliest values that it draws from."""
    options: PlannerOptions = PlannerOptions()
    """For the teacher's planner."""
    seed: int | None = None
    """The model's own if None."""
    restart: bool = False
    """Throw away plans that an earlier run has begun."""
    overwrite: bool = False
    label: str | None = None
    fill_nonfinite: FillNonfinite | None = None
    text_encoder: Path | None = None

    @property
    def place(self) -> Path:
        """What is going to be written.

        Raises:
            ConfigError: if nothing says where, or the request contradicts itself.
        """
        if self.plans_only is not None and self.output is not None:
            raise ConfigError(
                "--output or --plans-only was expected, both came: with the latter there is no model"
            )
        if self.schema_file is not None and self.plans_only is None:
            raise ConfigError(
                "--schema goes with --plans-only, as the rest of the model knows its own schema alone: write "
                "the plans, and train on them with omg train --plans ... --schema ..."
            )
        place = self.plans_only or self.output or self.model
        if place is None:
            raise ConfigError(
                "--output was expected, as the embedded default isn't written to: name a folder"
            )
        return place


@dataclass(frozen=True)
class Distillation:
    """What came of it."""

    place: Path
    """The model's folder, or the file of plans."""
    fingerprint: str | None
    """Of the new model."""
    facts: dict[str, Any]
    """The teacher, counts, agreement with the labels, and how the fit went."""
    notes: tuple[str, ...]
    seconds: dict[str, float]
    model: Model | None = None
    """The new model, in memory."""
    classroom: Classroom | None = None
    """The rows that it was taught and chosen on."""
    checked: tuple[Plan | None, ...] = ()
    """The teacher's plans of the validation rows, as the planner was to learn them."""


def distill(request: DistillationRequest, progress: Progress = lambda *_: None) -> Distillation:
    """Have a teacher write plans of the training and validation rows, and teach them to the model's planner.

    Plans are kept as they come. A run that was cut off goes on where it was; with another teacher, prompt,
    schema or other data it doesn't.

    Raises:
        OmgError: if something can't be used, a sample has no valid plan and that is an error, or the teacher
            can't be asked; plans so far are kept.
    """
    place = request.place
    if request.plans_only is not None and request.plans_only.exists() and not request.overwrite:
        raise ConfigError(
            f"--plans-only {place}: it is there already: choose another name, or pass --overwrite"
        )
    if request.output is not None:
        check_output(request.output, request.overwrite)
    model = load_model(request.model, request.text_encoder)
    if request.schema_file is not None:
        model = replace(model, schema=load_schema(request.schema_file))
    asked = model.config.planning.model_copy(update=_drawing(request))
    seed = model.manifest.seed if request.seed is None else request.seed
    classroom = open_classroom(
        model, request.data, label=request.label, fill_nonfinite=request.fill_nonfinite, seed=seed
    )
    asking = replace(model, config=model.config.model_copy(update={"planning": asked}))
    teacher = _teacher(request, asking, classroom, seed)
    instead = LexicalTeacher(classroom.train, model.schema) if request.on_invalid == "lexical" else None
    unfinished = UnfinishedPlans(place)
    kept = unfinished.open(
        _identity(request, model, classroom, teacher, seed), model.schema, restart=request.restart
    )
    writing = write_plans(
        teacher,
        (classroom.train, classroom.valid),
        kept,
        on_invalid=request.on_invalid,
        instead=instead,
        on_progress=lambda done, of: progress(f"plans by {teacher.name}", done, of, None),
    )
    seconds = {"plans": round(writing.seconds, 2)}
    plans = writing.plans
    if classroom.numbered:
        plans = plans.of_rows(classroom.facts["sha256"])
    notes = classroom.notes
    ignored = sampling_note(teacher, _drawing(request))
    notes = notes if ignored is None else (*notes, ignored)
    if not plans.teachers:
        silent = f"teacher {teacher.name} has nothing to say of these samples: plans hold the labels alone"
        notes = (*notes, silent)
    told: dict[str, Any] = {
        "teacher": teacher.name,
        "candidates": request.candidates,
        "failed": writing.failed,
        "on_invalid_plan": request.on_invalid,
        "written_now": writing.written,
        "ms_per_sample": round(1000 * writing.seconds / writing.written, 2) if writing.written else None,
        "calls": teacher.calls,
    }
    if request.plans_only is not None:
        facts = told | plans.facts(classroom.train, classroom.valid, model.schema, request.target)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, plan_lines(plans.plans))
        unfinished.remove()
        return Distillation(place, None, facts, notes, seconds)
    started = time.perf_counter()
    source = request.model or default_model_folder()
    made = teach(
        model,
        classroom,
        plans,
        target=request.target,
        seed=seed,
        facts=told,
        progress=progress,
    )
    seconds["planner"] = round(time.perf_counter() - started, 2)
    with whole_folder(place, replace=request.overwrite or request.output is None) as folder:
        write_atomically(folder / PLANS, plan_lines(plans.plans))
        if (source / TRAINING_PLANS).is_file():
            shutil.copyfile(source / TRAINING_PLANS, folder / TRAINING_PLANS)
        manifest = save_model(made, folder)
    unfinished.remove()
    facts = manifest.training["distillation"]
    return Distillation(
        place,
        manifest.fingerprint,
        facts,
        (*notes, manifest.notes[-1]),
        seconds,
        replace(made, manifest=manifest),
        classroom,
        plans.lesson(classroom.valid, model.schema, request.target).plans,
    )


def _teacher(request: DistillationRequest, model: Model, classroom: Classroom, seed: int) -> Teacher:
    if request.teacher == LEXICAL:
        return LexicalTeacher(classroom.train, model.schema)
    if request.teacher == OWN_PLANNER:
        raise ConfigError(
            f"--teacher: lexical or another planner was expected, {OWN_PLANNER!r} came: the model's own "
            "would learn what it says already"
        )
    options = request.options.model_copy(update={"named_by": "--teacher"})
    planner = make_planner(request.teacher, model, options)
    return PlannerTeacher(model, planner, candidates=request.candidates, seed=seed)


def _identity(
    request: DistillationRequest, model: Model, classroom: Classroom, teacher: Teacher, seed: int
) -> dict[str, Any]:
    """All that a teacher's plans depend on."""
    rows = [(split.name, split.ids) for split in (classroom.train, classroom.valid)]
    # what bounds a planner, or where it keeps its answers, changes none of them
    how = request.options.model_dump(
        mode="json",
        exclude={"model", "max_calls", "on_invalid", "cache", "timeout", "concurrency", "device", "named_by"},
    )
    return {
        "teacher": teacher.name,
        "prompt": None if teacher.prompt is None else teacher.prompt.sha256,
        "schema": model.schema.fingerprint,
        "data": classroom.facts["sha256"],
        "rows": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "model": model.manifest.components,
        "candidates": request.candidates,
        "seed": seed,
        "temperature": request.temperature,
        "top_p": request.top_p,
        **how,
    }


def _drawing(request: DistillationRequest) -> dict[str, float]:
    """How the teacher draws, where that was asked for."""
    told = {"temperature": request.temperature, "top_p": request.top_p}
    return {name: value for name, value in told.items() if value is not None}
