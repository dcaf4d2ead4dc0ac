"""A training as it is asked for, and the data that it reads: once, before any stage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from omg_graph.data.columns import FillNonfinite
from omg_graph.data.dataset import Split
from omg_graph.data.reader import DataFile, read_data_file
from omg_graph.data.splits import training_splits
from omg_graph.encoders.hidden_states import HiddenStates
from omg_graph.encoders.raw_parts import raw_parts
from omg_graph.encoders.text import SentenceEncoder, TextEncoder, locate_text_encoder
from omg_graph.errors import ConfigError, DataError, ModelError, OmgError
from omg_graph.model.components import Components
from omg_graph.model.folder import MANIFEST
from omg_graph.model.thinkers import new_states, thinker_named
from omg_graph.planner.schema import Plan, Schema
from omg_graph.planner.schema_choice import SchemaChoice, choose_schema
from omg_graph.planner.schemas import load_schema
from omg_graph.training.config import TrainingConfig
from omg_graph.training.folds import fold_of
from omg_graph.training.teaching import PlanTarget, TaughtPlans, plans_digest, read_plans

Progress = Callable[[str, int, int, float | None], None]
"""(what, done, of, loss)."""


class TrainingRequest(BaseModel):
    """What to train on, where to put the model, and every choice that is the user's."""

    model_config = ConfigDict(extra="forbid")

    data: str = Field(
        description="A pickle or .npz with a split 'train', and 'valid' to choose on.", examples=["clips.pkl"]
    )
    output: str = Field(description="The model folder to make.")
    config: str | None = Field(default=None, description="'default', 'paper', or a YAML file.")
    overrides: dict[str, Any] = Field(default={}, description="Settings on top, nested as in the YAML.")
    seed: int = Field(default=0, description="Decides everything random.", examples=[0])
    device: str = Field(default="auto", description="auto, cpu or cuda.", examples=["cpu"])
    modalities: list[str] | None = Field(default=None, description="Those to use; all of the file if empty.")
    label: str | None = Field(default=None, description="The field to predict; the usual one if empty.")
    fill_nonfinite: FillNonfinite | None = Field(
        default=None, description="What takes the place of single non-finite numbers: zero or mean."
    )
    schema_file: str | None = Field(default=None, description="A schema of the user's own.")
    plans: str | None = Field(
        default=None,
        description="A file of plans that a teacher wrote, as omg distill makes them; the lexical "
        "annotator's if empty.",
        examples=["plans.jsonl"],
    )
    plan_target: PlanTarget = Field(
        default="label", description="What decides the target of these plans where a sample has a label."
    )
    text_encoder: str | None = Field(
        default=None,
        description="Folder of the text encoder's weights; the thinker's folder or hub name with qwen-omni.",
    )
    folds: int | None = Field(
        default=None, ge=2, description="Cross-validate: 'train' and 'valid' together, in so many folds."
    )
    fold: int = Field(default=0, ge=0, description="Which of them is held out, from 0.")
    shared_stages: str | None = Field(
        default=None, description="A folder of finished stages that trainings with other settings use too."
    )
    resume: bool = Field(default=False, description="Go on with a run that was cut off.")
    overwrite: bool = Field(default=False, description="Replace a model that lies at output.")
    synthetic: bool = Field(default=False, description="The data are simulated: the model says so.")
    source: str | None = Field(
        default=None, description="What evidence calls the data; the file's name if left out."
    )
    feature_names: dict[str, list[str]] = Field(
        default={}, description="Names of a modality's features, in order, where they have any."
    )
    feature_units: dict[str, list[str]] = Field(default={}, description="Their units.")


@dataclass(frozen=True)
class TrainingData:
    """The rows that a training fits and chooses on, with their plans."""

    train: Split
    valid: Split
    origin: dict[str, Any]
    """What tells these rows and plans from others, for the keys of stages."""
    schema: Schema
    plans: tuple[Plan | None, ...]
    """Of training rows, as the teacher wrote them; None where a row has none."""
    valid_plans: tuple[Plan | None, ...]
    text_encoder: TextEncoder | None
    """g; None where hidden states make it."""
    hidden_states: HiddenStates | None = None
    """A large language model's, where psi and g are made of them."""
    source: str = "data"
    """What the entries' provenance calls the training data."""
    synthetic: bool = False
    """Whether the data are simulated."""
    feature_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    feature_units: dict[str, tuple[str, ...]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    """Of the rows, for the manifest."""
    notes: tuple[str, ...] = ()
    taught: TaughtPlans | None = None
    """A teacher's plans, where a file of them was given."""
    teacher: dict[str, Any] = field(default_factory=dict)
    """Who wrote them, for the manifest."""


def read_file(request: TrainingRequest) -> DataFile:
    """The data file, without its test split.

    Raises:
        OmgError: if it can't be used.
    """
    if request.folds is not None and request.fill_nonfinite == "mean":
        raise ConfigError(
            "--fill-nonfinite mean fills with means over what a fold holds out too: give zero with --folds"
        )
    return read_data_file(
        Path(request.data),
        modalities=request.modalities,
        label=request.label,
        fill_nonfinite=request.fill_nonfinite,
        leave_out=("test",),
    )


def read_hidden_states(
    request: TrainingRequest, config: TrainingConfig, device: torch.device
) -> HiddenStates | None:
    """The hidden states that the settings ask for, if they do.

    Raises:
        EncoderError: if no thinker is named, or none is there.
    """
    settings = config.encoder
    if settings.kind == "sentence":
        return None
    return new_states(
        thinker_named(request.text_encoder),
        depth=settings.depth,
        four_bit=settings.four_bit,
        cuda=device.type == "cuda",
    )


def identity_of(
    request: TrainingRequest,
    config: TrainingConfig,
    data: DataFile,
    states: HiddenStates | None,
    components: Components,
) -> dict[str, Any]:
    """What makes two requests ask for the same model."""
    settings = {"config": config.model_dump(mode="json"), **_reading(request, states)}
    settings["components"] = components.names
    if request.folds is not None:
        settings["fold"] = [request.folds, request.fold]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return {"data": data.sha256, "seed": request.seed, "settings": digest}


def _reading(request: TrainingRequest, states: HiddenStates | None) -> dict[str, Any]:
    """What decides how a data file is read."""
    schema = None if request.schema_file is None else load_schema(request.schema_file).model_dump(mode="json")
    plans = None if request.plans is None else [plans_digest(Path(request.plans)), request.plan_target]
    return {
        "modalities": request.modalities,
        "label": request.label,
        "fill_nonfinite": request.fill_nonfinite,
        "schema": schema,
        "plans": plans,
        "thinker": None if states is None else states.record.digest,
    }


def training_data(
    request: TrainingRequest, config: TrainingConfig, data: DataFile, states: HiddenStates | None
) -> TrainingData:
    """The rows of a data file to train on, their schema and plans.

    Raises:
        OmgError: if they can't be trained on.
    """
    encoder: TextEncoder | None = None
    if states is None:
        name = config.encoder.text_encoder
        encoder = SentenceEncoder(locate_text_encoder(name, request.text_encoder), name)
    fold = None if request.folds is None else fold_of(data, request.fold, request.folds)
    if fold is None:
        train, valid, note = training_splits(data, request.seed)
    else:
        # what a fold chooses on is the same for every seed: the seeds then differ in nothing but luck
        train, valid, note = training_splits(fold.data, 0)
        note = f"{fold.note}; {note}"
    if states is not None and not any(raw_parts(train)):
        raise DataError(
            "--encoder qwen-omni: transcripts or recordings were expected in the training rows, there are "
            "none: give raw_text or raw_MODALITY, or use --encoder sentence"
        )
    shares = {name: round(float(1 - train.observed[name].mean()), 4) for name in train.names}
    lost = {name: int(gaps.sum()) for name in train.names if (gaps := train.gaps(name)) is not None}
    choice, valid_plans, taught, teacher = _plans(request, config, train, valid, data.sha256)
    notes = [*data.notes, note, choice.note]
    if not any(valid_plans):
        notes.append("no validation row has a plan: psi and the planner train for all their epochs")
    if any(shares.values()):
        missing = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        notes.append(f"missing by nature in the training rows: {missing}; never scored, nor hidden")
    if len(train) > (kept := config.kernel_rows):
        # their matrices grow with the square of the rows, the time with the cube
        notes.append(f"kernel regressions keep {kept} of {len(train)} training rows (kernel_rows)")
    if lost:
        frames = ", ".join(f"{count} of {name}" for name, count in lost.items())
        notes.append(f"lost frames in the training rows: {frames}; filled for encoding")
    facts = {
        "file": data.path.name,
        "sha256": data.sha256,
        "train_rows": len(train),
        "validation_rows": len(valid),
        "groups": len(set(train.groups)),
        "missing_by_nature": shares,
        "lost_frames": lost,
        "synthetic": request.synthetic,
    }
    if fold is not None:
        facts["fold"] = fold.facts()
    source = request.source or data.path.name
    return TrainingData(
        train=train,
        valid=valid,
        origin={"data": data.sha256, **_reading(request, states)},
        schema=choice.schema,
        plans=choice.plans,
        valid_plans=valid_plans,
        text_encoder=encoder,
        hidden_states=states,
        source=f"synthetic {source}" if request.synthetic else source,
        synthetic=request.synthetic,
        feature_names=_for_each_feature(request.feature_names, train),
        feature_units=_for_each_feature(request.feature_units, train),
        facts=facts,
        notes=tuple(notes),
        taught=taught,
        teacher=teacher,
    )


def _plans(
    request: TrainingRequest, config: TrainingConfig, train: Split, valid: Split, data: str
) -> tuple[SchemaChoice, tuple[Plan | None, ...], TaughtPlans | None, dict[str, Any]]:
    """The schema, the plans of training and validation rows, and who wrote them."""
    given = None if request.schema_file is None else load_schema(request.schema_file)
    if request.plans is None:
        choice = choose_schema(train, given, annotator=config.planner.annotator, seed=request.seed)
        return choice, _validation_plans(valid, choice, request.seed), None, {}
    # a teacher may fill fields that the lexical annotator has no rule for
    schema = given or choose_schema(train, annotator=config.planner.annotator, seed=request.seed).schema
    path = Path(request.plans)
    taught = read_plans(path, schema)
    if taught.of_others(data):
        raise DataError(
            f"--plans {path}: expected plans of the rows of {request.data}, these are of another "
            "file's row numbers: write them for this one, or give both files a field 'id'"
        )
    lessons = [taught.lesson(split, schema, request.plan_target) for split in (train, valid)]
    if not any(lessons[0].plans):
        raise DataError(
            f"--plans {path}: expected plans of the training rows of {request.data}, none of its "
            f"{len(taught)} fits one of them: give the file that was written for these data"
        )
    facts = taught.facts(train, valid, schema, request.plan_target)
    note = f"plans of {', '.join(schema.field_names)}: {taught.summary(lessons[0])}, from {path.name}"
    choice = SchemaChoice(schema, lessons[0].plans, note)
    return choice, lessons[1].plans, taught, {"file": path.name, **facts}


def _validation_plans(valid: Split, choice: SchemaChoice, seed: int) -> tuple[Plan | None, ...]:
    """The teacher's plans of validation rows; None where there can't be any.

    So it is for clusters, which are of training rows, and where the text of these rows can't be read.
    """
    try:
        return choose_schema(valid, choice.schema, seed=seed).plans
    except OmgError:
        return (None,) * len(valid)


def _for_each_feature(words: dict[str, list[str]], split: Split) -> dict[str, tuple[str, ...]]:
    """Names or units, one for each feature."""
    sizes = {spec.name: spec.size for spec in split.modalities}
    for name, given in words.items():
        if len(given) != sizes.get(name):
            raise ConfigError(
                f"a name and unit for each feature of {name} were expected "
                f"({sizes.get(name, 'no')} of them), {len(given)} came: name all of them in order, or none"
            )
    return {name: tuple(given) for name, given in words.items()}


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse a place for a model where something else lies, or another model that isn't to be replaced.

    Raises:
        ModelError: if so.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MANIFEST).is_file():
        raise ModelError(
            f"{output} is there and isn't a model: choose another --output, or remove it yourself"
        )
    if not overwrite:
        raise ModelError(f"{output} holds a model already: choose another --output, or pass --overwrite")
