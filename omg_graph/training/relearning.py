"""A trained model's planner learns a teacher's plans anew; everything else of the model stays as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from omg_graph.errors import DataError, ModelError
from omg_graph.model.model import Model
from omg_graph.planner.choosing import SchemaChoice
from omg_graph.planner.schema import Plan
from omg_graph.training.classroom import Classroom
from omg_graph.training.config import TrainingConfig
from omg_graph.training.readers import planned_rows
from omg_graph.training.run import Progress, RunData
from omg_graph.training.teaching import PlanTarget, TaughtPlans
from omg_graph.training.understanding import fit_student
from omg_graph.training.validation import validate
from omg_graph.training.workspace import Workspace

ANEW = "the planner was distilled anew from plans by"
KEPT = (
    "psi, the executor and the knowledge base's texts stay as they were trained, on other plans: omg train "
    "--plans fits them all to these"
)


def teach(
    model: Model,
    classroom: Classroom,
    taught: TaughtPlans,
    *,
    target: PlanTarget = "label",
    seed: int | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda *_: None,
) -> Model:
    """Teach a new student the plans, on partial observations of every pattern, as ``omg train`` does.

    Only the planner changes; the model is measured anew on validation rows.

    Args:
        model: On the CPU; its psi reads the samples.
        classroom: The rows.
        taught: Their plans.
        target: Whose word counts where a sample has a label.
        seed: Decides everything random about the student; the model's own by default.
        facts: More to record in the manifest.
        progress: Told of every epoch.

    Raises:
        DataError: if there is no plan to learn.
        ModelError: if the model's own training settings can't be read.
    """
    schema, train, valid = model.schema, classroom.train, classroom.valid
    seed = model.manifest.seed if seed is None else seed
    lessons = [taught.lesson(split, schema, target) for split in (train, valid)]
    if not any(lessons[0].plans):
        raise DataError(
            f"plans of the {len(train)} training rows were expected, none fits one of them: use another "
            "teacher or other data"
        )
    run = RunData(
        train=train,
        valid=valid,
        choice=SchemaChoice(schema, lessons[0].plans, ""),
        valid_plans=lessons[1].plans,
        config=settings_of(model),
        seed=model.manifest.seed,
        text_encoder=model.text_encoder,
        hidden_states=model.hidden_states,
        workspace=Workspace(Path()),
        progress=progress,
    )
    space, reader = model.latent_space, model.label_regression if run.config.planner.reading else None
    rows = planned_rows(run, train, lessons[0].plans, run.train_pool, space, reader)
    checked = planned_rows(run, valid, lessons[1].plans, run.valid_pool, space, reader)
    student, fit = fit_student(
        schema,
        model.encoder,
        rows,
        run.config.planner,
        seed=seed,
        validation=checked,
        on_epoch=run.told("planner"),
    )
    _remember_texts(model, [plan for lesson in lessons for plan in lesson.plans if plan is not None])
    told = {
        "data": classroom.facts,
        "seed": seed,
        **taught.facts(train, valid, schema, target),
        "student_epochs": fit.epochs,
        "student_loss": fit.validation_loss,
        "from": model.manifest.fingerprint,
        **(facts or {}),
    }
    manifest = model.manifest
    # one of an earlier distillation says nothing any more
    notes = [note for note in manifest.notes if not note.startswith(ANEW)]
    notes.append(f"{ANEW} {', '.join(taught.teachers) or 'somebody'}; {KEPT}")
    # a model that another run made is not one that omg train could say it had finished
    training = {name: value for name, value in manifest.training.items() if name != "run"}
    made = replace(
        model,
        planner=student.eval(),
        manifest=manifest.model_copy(
            update={"training": training | {"distillation": told}, "notes": tuple(notes)}
        ),
    )
    metrics = validate(made, train, valid, progress)
    return replace(made, manifest=made.manifest.model_copy(update={"metrics": metrics}))


def settings_of(model: Model) -> TrainingConfig:
    """The settings that a model was trained with.

    Raises:
        ModelError: if this version can't read them.
    """
    try:
        return TrainingConfig.model_validate(model.manifest.config)
    except ValidationError as error:
        raise ModelError(
            f"the model's own training settings were expected in its manifest, and {error.error_count()} of "
            "them can't be read by this version: train the model again"
        ) from None


def _remember_texts(model: Model, plans: Sequence[Plan]) -> None:
    """Embed what the planner may say now, so that most runs never load the text encoder."""
    schema = model.schema
    model.text_encoder.embed(
        [
            text
            for plan in dict.fromkeys(plans)
            for text in (schema.text(plan), *schema.constraint_texts(plan))
        ]
    )
