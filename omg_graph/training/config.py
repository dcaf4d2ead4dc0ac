"""Every setting of a training run, with the defaults; the paper's literal reading is ``--config paper``."""

from __future__ import annotations

from copy import deepcopy
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from omg_graph.codecs.autoencoder import AutoencoderSettings
from omg_graph.encoders.text import MINILM
from omg_graph.errors import ConfigError
from omg_graph.executor.executor import ExecutorConfig
from omg_graph.executor.objective import ObjectiveWeights

Part = TypeVar("Part", bound=BaseModel)
UNKNOWN = "extra_forbidden"
"""Pydantic's word for a setting that there isn't."""


class Settings(BaseModel):
    """A block of settings: unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def only(self, part: type[Part]) -> Part:
        """The settings of one part of the block, which is all that a stage is given."""
        return part(**{name: getattr(self, name) for name in part.model_fields})


class EncoderSettings(Settings):
    """psi and its alignment with g."""

    kind: Literal["sentence", "qwen-omni"] = "sentence"
    """What g and psi are made of: a sentence encoder's texts and features, or, beside these features, what a
    Qwen2.5-Omni thinker makes of texts and recordings."""
    text_encoder: str = MINILM
    """The sentence encoder's name."""
    depth: float = Field(default=0.75, gt=0, le=1)
    """qwen-omni: how deep the layer lies that is read, as a share of all."""
    four_bit: bool = False
    """qwen-omni: load the thinker's weights in four bits."""
    hidden: int = Field(default=256, ge=8)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    epochs: int = Field(default=60, ge=1)
    unimodal_weight: float = Field(default=0.0, ge=0)
    """Weight of telling each modality's own label, where the data have such labels (CH-SIMS)."""


class StudentSettings(Settings):
    """The distilled student."""

    width: int = Field(default=32, ge=8)
    epochs: int = Field(default=60, ge=1)
    degree_spread: float = Field(default=1.0, ge=0)
    """How far a target's degree spreads over its neighbours in what the student is taught, in steps."""


class PlanChoiceSettings(Settings):
    """How a plan is drawn and chosen (Eq. 5)."""

    candidates: int = Field(default=5, ge=1)
    """|Omega(X)|."""
    include_greedy: bool = True
    temperature: float = Field(default=1.0, gt=0)
    """Of the draws; log-probabilities are those at temperature 1."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draws come from the likeliest values that together have this share."""
    semantic_weight: float = Field(default=0.3, ge=0)
    """lambda_s of Eq. 5."""


class PlannerSettings(PlanChoiceSettings, StudentSettings):
    """The student, what it learns from, and how its plans are chosen."""

    annotator: Literal["auto", "lexical", "labels", "clusters"] = "auto"
    reading: bool = True
    """Whether the student reads the closed-form estimate of the label beside u_X, where there is one."""
    folds: int = Field(default=5, ge=2)
    """Cross-fitting: plans and u_X of a training row come from models that never saw its group."""
    patterns: int = Field(default=24, ge=1)
    """Missing patterns prepared for each training row, at most; all of them where there are fewer."""


class RetrieverSettings(Settings):
    """Top-K, temperature and the query."""

    kind: str = "chroma"
    """What searches: its name among the entry points ``omg_graph.retrievers``."""
    top_k: int = Field(default=10, ge=1)
    temperature: float = Field(default=0.07, gt=0)
    query: Literal["corrected", "raw", "literal"] = "corrected"
    """``corrected``: Eq. 7 as a learned correction to the raw query; ``literal``: Eq. 7 as printed."""
    epochs: int = Field(default=8, ge=0)
    """Of the correction."""
    plan_view: bool = False
    """Whether entries are also compared by their plans in words; not with ``literal``, which has one view."""
    entries: int | None = Field(default=None, ge=1)
    """Training rows in the knowledge base at most, drawn by the seed; all of them by default."""

    @model_validator(mode="after")
    def _views_fit(self) -> RetrieverSettings:
        if self.plan_view and self.query == "literal":
            raise ValueError("a literal query has a single view: leave out plan_view")
        return self


class OptimiserSettings(Settings):
    """How the executor is trained."""

    epochs: int = Field(default=100, ge=1)
    batch_size: int = Field(default=64, ge=2)
    learning_rate: float = Field(default=1e-3, gt=0)
    patience: int = Field(default=30, ge=1)
    """Epochs without improvement before training stops; after a third of them the learning rate is halved."""
    average: float = Field(default=0.995, ge=0, lt=1)
    """Decay of the moving average of the weights; 0 keeps the last ones."""
    precision: Literal["float32", "bf16"] = "float32"


class DirectSettings(Settings):
    """Networks from what is observed straight to the label, averaged into the prediction."""

    members: int = Field(default=4, ge=0)
    """How many; 0 leaves them out."""
    hidden: int = Field(default=512, ge=1)
    epochs: int = Field(default=100, ge=1)
    """At most; each network stops at its own best."""


class TaskSettings(Settings):
    """What predicts the label."""

    epochs: int = Field(default=60, ge=1)
    """Of the head that is fitted on the finished executor's estimates."""
    predictor: str = "head"
    """Its name among the entry points ``omg_graph.predictors``."""
    refit: bool = True
    """Off: the head that was trained jointly stays, the literal Eq. 18."""
    reading: Literal["words", "features", "none"] = "words"
    """What a refitted head reads beside u_X and slots: a closed-form estimate of the label from features and
    ``words``, from ``features`` alone, or ``none``."""
    calibrate: bool = True
    """Whether a temperature and the spread of a sentiment's value are fitted on validation rows."""
    direct: DirectSettings = DirectSettings()
    """What a refitted head is averaged with."""


class TrainingConfig(Settings):
    """Everything that decides what a training run makes, besides data and seed."""

    name: str = "default"
    missing_rate: float | None = Field(default=None, ge=0, le=1)
    """Draw each batch's patterns so that this share of slots is missing; all equally likely if None."""
    kernel_rows: int = Field(default=2000, ge=2)
    """Training rows that each kernel regression keeps at most, drawn by the seed; costs grow cubically."""
    autoencoder: AutoencoderSettings = AutoencoderSettings()
    encoder: EncoderSettings = EncoderSettings()
    planner: PlannerSettings = PlannerSettings()
    retriever: RetrieverSettings = RetrieverSettings()
    executor: ExecutorConfig = ExecutorConfig()
    objective: ObjectiveWeights = ObjectiveWeights()
    optimiser: OptimiserSettings = OptimiserSettings()
    task: TaskSettings = TaskSettings()


PAPER: dict[str, Any] = {
    "name": "paper",
    "autoencoder": {"kind": "vae", "max_width": 64},
    "planner": {"include_greedy": False, "reading": False, "degree_spread": 0.0},
    "retriever": {"query": "literal", "epochs": 20},
    "executor": {
        "prediction": "epsilon",
        "sampler": "ddpm",
        "sample_steps": 100,
        "priors": (),
        "point_estimate": "sample",
        "observed_slots": False,
    },
    "objective": {"mean_share": 0.0},
    "optimiser": {"learning_rate": 2e-3, "batch_size": 32, "average": 0.0},
    "task": {"refit": False, "calibrate": False},
}
"""The literal reading of the paper and of its Appendix A, as changes to the defaults."""


def load_config(source: str | Path | None, overrides: dict[str, Any] | None = None) -> TrainingConfig:
    """A configuration by name, or from a YAML file of changes to the defaults.

    Args:
        source: ``default``, ``paper``, a data set's recipe (``mosi``, ``mosei``, ``sims``), a path, or None
            for the defaults. A file may say ``base: paper``, or name a recipe there.
        overrides: Nested changes on top, e.g. ``{"optimiser": {"epochs": 1}}``.

    Raises:
        ConfigError: if the file can't be read, or a setting is unknown or out of range.
    """
    named = _named(str(source or "default"))
    settings = _read_yaml(Path(source)) if named is None and source is not None else named or {}
    merged = _merge(settings, overrides or {})
    try:
        return TrainingConfig.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        what = f"{first['msg']} (came: {first['input']!r})"
        if first["type"] == UNKNOWN:
            what = "this version has no such setting: leave it out"
        raise ConfigError(f"configuration {source or 'default'}: {place}: {what}") from error


def recorded_config(settings: dict[str, Any]) -> TrainingConfig:
    """The settings in a model's manifest; those that only version 0.1.0 had are left out.

    Raises:
        ConfigError: if one of the others is out of range.
    """
    kept = deepcopy(settings)
    try:
        return TrainingConfig.model_validate(kept)
    except ValidationError as error:
        for refused in error.errors():
            if refused["type"] == UNKNOWN:
                *blocks, name = map(str, refused["loc"])
                block = kept
                for part in blocks:
                    block = block[part]
                del block[name]
    return load_config(None, kept)


def recipes() -> dict[str, dict[str, Any]]:
    """Settings that ship with the package for well-known data sets, by name, as changes to the defaults."""
    folder = files("omg_graph.training").joinpath("recipes")
    found = {
        entry.name.removesuffix(".yaml"): yaml.safe_load(entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    return dict(sorted(found.items()))


def is_named(source: str | Path | None) -> bool:
    """Whether a configuration goes by a name, and isn't a file."""
    return _named(str(source or "default")) is not None


def _named(name: str) -> dict[str, Any] | None:
    """The changes to the defaults that go by a name; None if nothing does."""
    return ({"default": {}, "paper": PAPER} | recipes()).get(name)


def _names() -> str:
    return ", ".join(("default", "paper", *recipes()))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(
            f"a configuration is one of {_names()}, or a YAML file; there is no file {path}"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} can't be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} should hold settings by name, {type(content).__name__} came")
    base = content.pop("base", "default")
    start = _named(base) if isinstance(base, str) else None
    if start is None:
        raise ConfigError(f"{path}: base is one of {_names()}, {base!r} came")
    return _merge(start, {"name": path.stem} | content)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
