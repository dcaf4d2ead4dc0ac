"""A distillation: a teacher writes plans of a model's training samples, and its planner learns them."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from omg_graph.data.columns import FillNonfinite
from omg_graph.data.patterns import pattern_pool
from omg_graph.errors import ConfigError, DataError, ModelError
from omg_graph.files import whole_folder, write_atomically
from omg_graph.model.folder import load_model, save_model
from omg_graph.model.model import Model, default_model_folder
from omg_graph.model.planners import PlannerOptions, make_planner
from omg_graph.planner.interface import sampling_note
from omg_graph.planner.schema import Plan
from omg_graph.planner.schemas import load_schema
from omg_graph.priors.prior import Examples
from omg_graph.training.config import StudentSettings, TrainingConfig, recorded_config
from omg_graph.training.model_rows import ModelRows, read_model_rows
from omg_graph.training.priors import label_pairs
from omg_graph.training.raw_states import pair_states
from omg_graph.training.request import Progress, check_output
from omg_graph.training.rows import planned_rows
from omg_graph.training.student import fit_student, plan_texts
from omg_graph.training.teachers import (
    LEXICAL,
    OnInvalid,
    Teacher,
    lexical_teacher,
    planner_teacher,
    write_plans,
)
from omg_graph.training.teaching import (
    PLANS,
    TRAINING_PLANS,
    PlansInProgress,
    PlanTarget,
    TaughtPlans,
    plan_lines,
)
from omg_graph.training.validation import validate

DISTILLED = "the planner was distilled "
KEPT = (
    "psi, the executor and the knowledge base's texts stay as they were trained, on other plans: omg train "
    "--plans fits them all to these"
)


def teach(
    model: Model,
    rows: ModelRows,
    taught: TaughtPlans,
    *,
    target: PlanTarget = "label",
    seed: int | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda *_: None,
) -> Model:
    """Teach a new student the plans, on partial observations of every pattern, as ``omg train`` does.

    Only the planner changes; the model is measured again on validation rows.

    Args:
        model: On the CPU; its psi reads the samples.
        rows: The rows.
        taught: Their plans.
        target: Whose word counts where a sample has a label.
        seed: Decides everything random about the student; the model's own by default.
        facts: More to record in the manifest.
        progress: Called after every epoch.

    Raises:
        DataError: if there is no plan to learn.
        ModelError: if the model's own training settings can't be read.
    """
    schema, train, valid = model.schema, rows.train, rows.valid
    seed = model.manifest.seed if seed is None else seed
    lessons = [taught.lesson(split, schema, target) for split in (train, valid)]
    if not any(lessons[0].plans):
        raise DataError(
            f"expected plans of the {len(train)} training rows, none fits one of them: use another "
            "teacher or other data"
        )
    config, planned = settings_of(model), []
    for split, lesson in zip((train, valid), lessons, strict=True):
        pool = pattern_pool(split.mask(), split.ids, config.planner.patterns, model.manifest.seed)
        if config.missing_rate is not None:
            pool = pool.at_rate(config.missing_rate)
        latents, estimates, states = model.latent_space.encode(split), None, None
        if config.planner.reading and model.label_regression is not None:
            estimates = label_pairs(model.label_regression, Examples.of(split, latents, pool), split)
        if model.hidden_states is not None:
            states = pair_states(model.hidden_states, split, pool)
        planned.append(
            planned_rows(
                split,
                lesson.plans,
                pool,
                latents,
                schema=schema,
                text_encoder=model.text_encoder,
                states=states,
                scale=train,
                label_estimates=estimates,
            )
        )
    student, fit = fit_student(
        schema,
        model.encoder,
        planned[0],
        config.planner.only(StudentSettings),
        seed=seed,
        validation=planned[1],
        on_epoch=lambda done, of, loss: progress("planner", done, of, loss),
    )
    # what the planner may say now is embedded here, so that most runs never load the text encoder
    learnt = dict.fromkeys(plan for lesson in lessons for plan in lesson.plans if plan is not None)
    model.text_encoder.embed(plan_texts(schema, list(learnt)))
    record = {
        "data": rows.facts,
        "seed": seed,
        **taught.facts(train, valid, schema, target),
        "student_epochs": fit.epochs,
        "student_loss": fit.validation_loss,
        "from": model.manifest.fingerprint,
        **(facts or {}),
    }
    manifest = model.manifest
    # one of an earlier distillation says nothing any more
    notes = [note for note in manifest.notes if not note.startswith(DISTILLED)]
    notes.append(f"{DISTILLED}again, from plans by {', '.join(taught.teachers) or 'somebody'}; {KEPT}")
    # a model that another run made is not one that omg train could say it had finished
    training = {name: value for name, value in manifest.training.items() if name != "run"}
    made = replace(
        model,
        planner=student.eval(),
        manifest=manifest.model_copy(
            update={"training": training | {"distillation": record}, "notes": tuple(notes)}
        ),
    )
    metrics = validate(made, train, valid, progress)
    return replace(made, manifest=made.manifest.model_copy(update={"metrics": metrics}))


def settings_of(model: Model) -> TrainingConfig:
    """The settings of the planner and its patterns that a model was trained with; the defaults for others.

    Settings that this version doesn't have are left out.

    Raises:
        ModelError: if this version can't read them.
    """
    try:
        return recorded_config(model.manifest.config)
    except ConfigError as error:
        raise ModelError(
            f"expected the settings that the model was trained with in its manifest, got others ({error}): "
            "train the model again"
        ) from None


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
    """Delete plans that an earlier run has begun."""
    overwrite: bool = False
    label: str | None = None
    fill_nonfinite: FillNonfinite | None = None
    text_encoder: Path | None = None

    @property
    def sampling(self) -> dict[str, float]:
        """How the teacher draws, where that is asked for."""
        asked = {"temperature": self.temperature, "top_p": self.top_p}
        return {name: value for name, value in asked.items() if value is not None}

    @property
    def place(self) -> Path:
        """What is going to be written.

        Raises:
            ConfigError: if nothing says where, or the request contradicts itself.
        """
        if self.plans_only is not None and self.output is not None:
            raise ConfigError(
                "expected --output or --plans-only, got both: with the latter there is no model"
            )
        if self.schema_file is not None and self.plans_only is None:
            raise ConfigError(
                "--schema goes with --plans-only, as the rest of the model knows its own schema alone: write "
                "the plans, and train on them with omg train --plans ... --schema ..."
            )
        place = self.plans_only or self.output or self.model
        if place is None:
            raise ConfigError("expected --output, as the embedded default isn't written to: name a folder")
        return place


@dataclass(frozen=True)
class Distillation:
    """The result of a distillation."""

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
    rows: ModelRows | None = None
    """The rows that it was trained and chosen on."""
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
    seed = model.manifest.seed if request.seed is None else request.seed
    rows = read_model_rows(
        model, request.data, label=request.label, fill_nonfinite=request.fill_nonfinite, seed=seed
    )
    teacher = _teacher(request, model, rows, seed)
    kept = PlansInProgress(
        place, _identity(request, model, rows, teacher, seed), model.schema, restart=request.restart
    )
    writing = write_plans(
        teacher,
        (rows.train, rows.valid),
        kept,
        on_invalid=request.on_invalid,
        fallback=lexical_teacher(rows.train, model.schema) if request.on_invalid == "lexical" else None,
        on_progress=lambda done, of: progress(f"plans by {teacher.name}", done, of, None),
    )
    seconds = {"plans": round(writing.seconds, 2)}
    plans = writing.plans.of_rows(rows.facts["sha256"]) if rows.numbered else writing.plans
    ignored = sampling_note(teacher, request.sampling)
    notes = rows.notes if ignored is None else (*rows.notes, ignored)
    if not plans.teachers:
        silent = f"teacher {teacher.name} has nothing to say of these samples: plans hold the labels alone"
        notes = (*notes, silent)
    record: dict[str, Any] = {
        "teacher": teacher.name,
        "candidates": request.candidates,
        "failed": writing.failed,
        "on_invalid_plan": request.on_invalid,
        "written_now": writing.written,
        "ms_per_sample": round(1000 * writing.seconds / writing.written, 2) if writing.written else None,
        "calls": teacher.calls(),
    }
    if request.plans_only is not None:
        facts = record | plans.facts(rows.train, rows.valid, model.schema, request.target)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, plan_lines(plans.plans))
        kept.remove()
        return Distillation(place, None, facts, notes, seconds)
    started = time.perf_counter()
    source = request.model or default_model_folder()
    made = teach(model, rows, plans, target=request.target, seed=seed, facts=record, progress=progress)
    seconds["planner"] = round(time.perf_counter() - started, 2)
    with whole_folder(place, replace=request.overwrite or request.output is None) as folder:
        write_atomically(folder / PLANS, plan_lines(plans.plans))
        if (source / TRAINING_PLANS).is_file():
            shutil.copyfile(source / TRAINING_PLANS, folder / TRAINING_PLANS)
        manifest = save_model(made, folder)
    kept.remove()
    return Distillation(
        place,
        manifest.fingerprint,
        manifest.training["distillation"],
        (*notes, manifest.notes[-1]),
        seconds,
        replace(made, manifest=manifest),
        rows,
        plans.lesson(rows.valid, model.schema, request.target).plans,
    )


def _teacher(request: DistillationRequest, model: Model, rows: ModelRows, seed: int) -> Teacher:
    if request.teacher == LEXICAL:
        return lexical_teacher(rows.train, model.schema)
    if request.teacher == OWN_PLANNER:
        raise ConfigError(
            f"--teacher: expected lexical or another planner, got {OWN_PLANNER!r}: the model's own "
            "would learn what it says already"
        )
    options = request.options.model_copy(update={"named_by": "--teacher"})
    planner = make_planner(request.teacher, model, options)
    planning = model.config.planning.model_copy(update=request.sampling)
    sampled = replace(model, config=model.config.model_copy(update={"planning": planning}))
    return planner_teacher(sampled, planner, candidates=request.candidates, seed=seed)


def _identity(
    request: DistillationRequest, model: Model, rows: ModelRows, teacher: Teacher, seed: int
) -> dict[str, Any]:
    """All that a teacher's plans depend on."""
    ids = [(split.name, split.ids) for split in (rows.train, rows.valid)]
    # what bounds a planner, or where it keeps its answers, changes none of them
    how = request.options.model_dump(
        mode="json",
        exclude={"model", "max_calls", "on_invalid", "cache", "timeout", "concurrency", "device", "named_by"},
    )
    return {
        "teacher": teacher.name,
        "prompt": None if teacher.prompt is None else teacher.prompt.sha256,
        "schema": model.schema.fingerprint,
        "data": rows.facts["sha256"],
        "rows": hashlib.sha256(json.dumps(ids).encode()).hexdigest(),
        "model": model.manifest.components,
        "candidates": request.candidates,
        "seed": seed,
        "temperature": request.temperature,
        "top_p": request.top_p,
        **how,
    }
