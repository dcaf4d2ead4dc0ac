"""The YAML files beside this one, read and checked: contents, sentences and features."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DegreeRecipe(_Strict):
    """One degree of sentiment."""

    word: str
    weight: float


class EntityRecipe(_Strict):
    """One entity that a clip can be about."""

    weight: float
    lean: float


class ContentRecipe(_Strict):
    """``content.yaml``: the prior over what a clip says."""

    degrees: dict[int, DegreeRecipe]
    actions: dict[str, dict[int, float]]
    entities: dict[str, EntityRecipe]


class EntityPhrase(_Strict):
    """A way to name an entity."""

    say: str
    plural: bool = False


class ActionWording(_Strict):
    """How an action is put: frames, and the phrases that fill them with their weight per degree."""

    frames: tuple[str, ...]
    phrases: dict[str, dict[int, float]]


class OpenLine(_Strict):
    """A line that can be said with several sentiments."""

    say: str
    actions: tuple[str, ...]
    degrees: dict[int, float]


class SentenceRecipe(_Strict):
    """``sentences.yaml``: the words."""

    vague_share: float
    open_share: float
    entities: dict[str, tuple[EntityPhrase, ...]]
    vague: tuple[EntityPhrase, ...]
    actions: dict[str, ActionWording]
    open_lines: tuple[OpenLine, ...]


class FeatureRecipe(_Strict):
    """One feature of the face or the voice."""

    name: str
    unit: str
    mean: float
    sd: float
    polarity: float
    strength: float


class ChannelRecipe(_Strict):
    """``features.yaml``: the features of both channels."""

    vision: tuple[FeatureRecipe, ...]
    audio: tuple[FeatureRecipe, ...]


def _read(name: str) -> Any:
    return yaml.safe_load(files("omg_graph.simulator").joinpath(name).read_text(encoding="utf-8"))


@cache
def content_recipe() -> ContentRecipe:
    """What clips can be about."""
    return ContentRecipe.model_validate(_read("content.yaml"))


@cache
def sentence_recipe() -> SentenceRecipe:
    """The words of the clips."""
    return SentenceRecipe.model_validate(_read("sentences.yaml"))


@cache
def channel_recipe() -> ChannelRecipe:
    """The features of face and voice."""
    return ChannelRecipe.model_validate(_read("features.yaml"))
