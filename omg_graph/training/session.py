"""A training run as it goes from stage to stage: from a request in JSON to a model folder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.columns import FillNonfinite
from omg_graph.data.dataset import Split
from omg_graph.data.reader import DataFile, read_data_file
from omg_graph.data.splits import training_splits
from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.errors import ConfigError, DataError, ModelError, OmgError
from omg_graph.files import whole_folder, write_atomically
from omg_graph.model.folder import MANIFEST, load_model, read_manifest, save_model
from omg_graph.model.model import Model, choose_device
from omg_graph.planner.choosing import SchemaChoice, choose_schema
from omg_graph.planner.schema import Plan
from omg_graph.planner.schemas import load_schema
from omg_graph.training.assembly import assemble, executor_trainer, first_manifest, train_executor
from omg_graph.training.config import TrainingConfig, load_config
from omg_graph.training.encoders import require_raw_parts, text_encoder_maker, thinker_states
from omg_graph.training.encoding import frame_filling, latent_space
from omg_graph.training.estimates import Estimates, estimate_pairs
from omg_graph.training.execution import ExecutorTrainer
from omg_graph.training.folds import fold_of
from omg_graph.training.preparation import Prepared, prepare_pairs, training_entries
from omg_graph.training.readers import Understanding, understand
from omg_graph.training.run import Progress, RunData
from omg_graph.training.sharing import SharedStages
from omg_graph.training.teachers import annotated
from omg_graph.training.teaching import (
    TRAINING_PLANS,
    PlanTarget,
    TaughtPlans,
    plan_lines,
    plans_digest,
    read_plans,
)
from omg_graph.training.validation import validate
from omg_graph.training.workspace import IDENTITY, Workspace


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
        default=None, description="A folder for finished stages that runs of other settings can use too."
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


@dataclass
class TrainingSession:
    """The live objects of one run; each stage fills in what the next needs."""

    request: TrainingRequest
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    own_stages: frozenset[str] = frozenset()
    """Stages that this run makes in a way of its own, which its settings don't tell: they aren't shared."""

    def __post_init__(self) -> None:
        self.finished_before = False
        self.plans: TaughtPlans | None = None
        self.estimates: Estimates | None = None
        self.output = Path(self.request.output)
        self.workspace = Workspace.beside(self.output)
        self.config: TrainingConfig = load_config(self.request.config, self.request.overrides)
        self.device = choose_device(self.request.device)

    def stage(self, name: str, work: Callable[[], Any]) -> None:
        """Run one stage and note its time; there is nothing to run where the model is finished already."""
        if self.finished_before:
            return
        started = time.perf_counter()
        work()
        self.seconds[name] = round(time.perf_counter() - started, 2)

    def prepare(self) -> None:
        """Read the data, choose the schema, and open the workspace.

        Raises:
            OmgError: if the data can't be used, or the output is taken.
        """
        request = self.request
        check_output(self.output, request.overwrite or request.resume)
        _check_filling(request)
        data = read_data_file(
            Path(self.request.data),
            modalities=self.request.modalities,
            label=self.request.label,
            fill_nonfinite=self.request.fill_nonfinite,
            leave_out=("test",),
        )
        self.hidden_states = thinker_states(self.config.encoder, request.text_encoder, self.device)
        self.identity = self._identity(data)
        if request.resume and self._is_finished():
            return
        check_output(self.output, request.overwrite)
        encoder_for = text_encoder_maker(
            self.config.encoder, request.text_encoder, self.hidden_states, self.progress
        )
        fold = None if request.folds is None else fold_of(data, request.fold, request.folds)
        if fold is None:
            train, valid, note = training_splits(data, request.seed)
        else:
            # what a fold chooses on is the same for every seed: the seeds then differ in nothing but luck
            train, valid, note = training_splits(fold.data, 0)
            note = f"{fold.note}; {note}"
        require_raw_parts(self.hidden_states, train)
        self._open_workspace()
        self._share_stages(data, train, valid)
        choice, valid_plans, self.lessons = self._taught(train, valid, data.sha256)
        source = request.source or data.path.name
        self.notes += [*data.notes, note, choice.note]
        if not any(valid_plans):
            self.notes.append("no validation row has a plan: psi and the planner train for all their epochs")
        self.run = RunData(
            train=train,
            valid=valid,
            choice=choice,
            valid_plans=valid_plans,
            config=self.config,
            seed=self.request.seed,
            text_encoder=CachedTextEncoder(encoder_for(choice, self.workspace)),
            hidden_states=self.hidden_states,
            workspace=self.workspace,
            device=self.device,
            progress=self.progress,
            source=f"synthetic {source}" if self.request.synthetic else source,
            synthetic=self.request.synthetic,
            feature_names=_fitting(self.request.feature_names, train),
            feature_units=_fitting(self.request.feature_units, train),
        )
        shares = _missing_shares(train)
        if any(shares.values()):
            told = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
            self.notes.append(f"missing by nature in the training rows: {told}; never scored, nor hidden")
        lost = {name: int(gaps.sum()) for name in train.names if (gaps := train.gaps(name)) is not None}
        if len(train) > (kept := self.config.anchor.rows):
            # their matrices grow with the square of the rows, the time with the cube
            self.notes.append(f"kernel regressions keep {kept} of {len(train)} training rows (anchor.rows)")
        if lost:
            told = ", ".join(f"{count} of {name}" for name, count in lost.items())
            self.notes.append(f"lost frames in the training rows: {told}; filled for encoding")
        self.facts = {
            "file": data.path.name,
            "sha256": data.sha256,
            "train_rows": len(train),
            "validation_rows": len(valid),
            "groups": len(set(train.groups)),
            "missing_by_nature": shares,
            "lost_frames": lost,
            "synthetic": self.request.synthetic,
        }
        if fold is not None:
            self.facts["fold"] = fold.facts()
        if (rate := self.config.missing_rate) is not None:
            realised = round(self.run.train_pool.missing_rate, 4)
            self.facts["missing_rate"] = {"nominal": rate, "realised": realised}
            self.notes.append(f"trained for the missing rate {rate:g} alone; {realised:g} is realised")

    def _taught(
        self, train: Split, valid: Split, data: str
    ) -> tuple[SchemaChoice, tuple[Plan | None, ...], dict[str, Any]]:
        """The schema, the plans of training and validation rows, and who wrote them."""
        request = self.request
        if request.plans is None:
            choice = self._choose(train)
            return choice, _validation_plans(valid, choice, request.seed), {}
        # a teacher may fill fields that the lexical annotator has no rule for
        schema = load_schema(request.schema_file) if request.schema_file else self._choose(train).schema
        path = Path(request.plans)
        taught = read_plans(path, schema)
        if taught.of_others(data):
            raise DataError(
                f"--plans {path}: plans of the rows of {request.data} were expected, these are of another "
                "file's row numbers: write them for this one, or give both files a field 'id'"
            )
        self.plans = taught
        lessons = [taught.lesson(split, schema, request.plan_target) for split in (train, valid)]
        if not any(lessons[0].plans):
            raise DataError(
                f"--plans {path}: plans of the training rows of {request.data} were expected, none of its "
                f"{len(taught)} fits one of them: give the file that was written for these data"
            )
        facts = taught.facts(train, valid, schema, request.plan_target)
        note = f"plans of {', '.join(schema.field_names)}: {taught.told(lessons[0])}, from {path.name}"
        return SchemaChoice(schema, lessons[0].plans, note), lessons[1].plans, {"file": path.name, **facts}

    def _choose(self, train: Split) -> SchemaChoice:
        schema = None if self.request.schema_file is None else load_schema(self.request.schema_file)
        return annotated(train, self.config.planner, schema, self.request.seed)

    def _identity(self, data: DataFile) -> dict[str, Any]:
        """What makes two requests ask for the same model."""
        request = self.request
        settings: list[Any] = [
            self.config.model_dump(mode="json"),
            request.modalities,
            request.label,
            request.fill_nonfinite,
            _content_of(request.schema_file),
        ]
        if request.folds is not None:
            settings.append([request.folds, request.fold])
        if self.hidden_states is not None:
            settings.append(self.hidden_states.record.digest)
        settings += [] if request.plans is None else [self._plans_identity()]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
        return {"data": data.sha256, "seed": request.seed, "settings": digest}

    def _plans_identity(self) -> list[str] | None:
        plans = self.request.plans
        return None if plans is None else [plans_digest(Path(plans)), self.request.plan_target]

    def _is_finished(self) -> bool:
        """Whether the model is there already, as the same run made it; what that run left behind goes."""
        if not (self.output / MANIFEST).is_file():
            return False
        manifest = read_manifest(self.output)
        if manifest.training.get("run") != self.identity:
            return False
        if self.workspace.has(IDENTITY) and self.workspace.load(IDENTITY)[1] == self.identity:
            self.workspace.remove()
        self.metrics = manifest.metrics
        self.seconds = dict(manifest.training.get("seconds", {}))
        self.notes = [*manifest.notes, "the model was finished already: there was nothing left to do"]
        self.finished_before = True
        return True

    def _open_workspace(self) -> None:
        if self.workspace.is_foreign():
            raise ConfigError(
                f"{self.workspace.folder} is where this training would keep what it has done, and something "
                "else is there: choose another --output, or move it away yourself"
            )
        started = self.workspace.folder.is_dir() and any(self.workspace.folder.iterdir())
        if started and not self.request.resume:
            self.workspace.remove()
        self.workspace.create()
        if self.workspace.has(IDENTITY):
            _, kept = self.workspace.load(IDENTITY)
            different = [name for name, value in self.identity.items() if kept.get(name) != value]
            if different:
                raise ConfigError(
                    f"--resume goes on with the same data, seed and settings; {', '.join(different)} differ "
                    f"from what {self.workspace.folder} was started with: leave out --resume to start anew"
                )
        else:
            self.workspace.save(IDENTITY, {}, self.identity)

    def _share_stages(self, data: DataFile, train: Split, valid: Split) -> None:
        request = self.request
        if request.shared_stages is None:
            return
        rows = {
            "data": data.sha256,
            "modalities": request.modalities,
            "label": request.label,
            "fill_nonfinite": request.fill_nonfinite,
            "schema": _content_of(request.schema_file),
            "plans": self._plans_identity(),
            "thinker": None if self.hidden_states is None else self.hidden_states.record.digest,
            "train": train.ids,
            "valid": valid.ids,
        }
        settings = self.config.model_dump(mode="json")
        self.workspace.shared = SharedStages(
            Path(request.shared_stages), settings, rows, request.seed, self.own_stages
        )

    def autoencoders(self) -> None:
        """Standard units and autoencoders."""
        self.space: LatentSpace = latent_space(self.run)

    def planner(self) -> None:
        """Psi and the student, cross-fitted."""
        self.read: Understanding = understand(self.run, self.space)
        self.notes += self.read.notes

    def executor(self) -> None:
        """Evidence, anchor, and the executor under the whole objective."""
        kb = training_entries(self.run, self.space, self.read.encoder)
        if self.estimates is None:
            self.estimates = estimate_pairs(self.run, self.space)
        self.prepared: Prepared = prepare_pairs(self.run, self.space, self.read, kb, self.estimates)
        self.trainer: ExecutorTrainer = executor_trainer(self.run, self.space, self.read, self.prepared)
        self.report = train_executor(self.run, self.trainer)

    def knowledge_base(self) -> None:
        """Put the model together, with its knowledge base."""
        training = {
            "run": self.identity,
            "reader": self.read.facts,
            "plans": self.lessons,
            "query_projection": vars(self.prepared.projection),
            "executor_history": self.report["history"],
            "executor_epochs": len(self.report["history"]),
            "trust": self.report["trust"],
            "starts": self.report["starts"],
            "direct": self.report["direct"],
            "temperature": self.report["temperature"],
            "spread": self.report["spread"],
            "frame_filling": frame_filling(self.space),
        }
        manifest = first_manifest(self.run, self.facts, training, tuple(self.notes))
        self.model: Model = assemble(
            self.run, self.space, self.read, self.prepared, self.trainer.executor, manifest
        )

    def validate(self) -> None:
        """Measure the model on validation rows, every pattern, beside simple floors."""
        self.metrics = validate(self.model, self.run.train, self.run.valid, self.progress)

    def save(self) -> None:
        """Write the folder whole, then drop the workspace."""
        manifest = self.model.manifest.model_copy(
            update={
                "metrics": self.metrics,
                "training": self.model.manifest.training | {"seconds": self.seconds},
            }
        )
        finished = replace(self.model, manifest=manifest)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        with whole_folder(self.output, replace=self.request.overwrite) as folder:
            if self.plans is not None:
                write_atomically(folder / TRAINING_PLANS, plan_lines(self.plans.plans))
            save_model(finished, folder)
        self.workspace.remove()

    def finished(self) -> Model:
        """The saved model, as anyone would load it."""
        return load_model(self.output, self.request.text_encoder)


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


def _check_filling(request: TrainingRequest) -> None:
    if request.folds is not None and request.fill_nonfinite == "mean":
        raise ConfigError(
            "--fill-nonfinite mean fills with means over what a fold holds out too: give zero with --folds"
        )


def _validation_plans(valid: Split, choice: SchemaChoice, seed: int) -> tuple[Plan | None, ...]:
    """The teacher's plans of validation rows; None where they can't be told.

    So it is for clusters, which are of training rows, and where the text of these rows can't be read.
    """
    try:
        return choose_schema(valid, choice.schema, seed=seed).plans
    except OmgError:
        return (None,) * len(valid)


def _missing_shares(split: Split) -> dict[str, float]:
    return {name: round(float(1 - split.observed[name].mean()), 4) for name in split.names}


def _fitting(words: dict[str, list[str]], split: Split) -> dict[str, tuple[str, ...]]:
    """Names or units, one for each feature."""
    sizes = {spec.name: spec.size for spec in split.modalities}
    for name, given in words.items():
        if len(given) != sizes.get(name):
            raise ConfigError(
                f"a name and unit for each feature of {name} were expected "
                f"({sizes.get(name, 'no')} of them), {len(given)} came: name all of them in order, or none"
            )
    return {name: tuple(given) for name, given in words.items()}


def _content_of(schema: str | None) -> str | None:
    return None if schema is None else load_schema(schema).model_dump_json()
