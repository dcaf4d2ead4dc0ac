"""The recipe of the embedded default: what is simulated, and how it is trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from omg_graph.errors import ConfigError
from omg_graph.simulator.config import SimulatorConfig

RECIPE = Path(__file__).parents[2] / "knowledge_base" / "embedded.yaml"
"""In the repository; an installed wheel has the model, not its recipe."""


class SampleRecipe(BaseModel):
    """The clip of ``examples/sample.pkl``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    speaker: int = Field(ge=0)
    """Number of a speaker that is in no split."""
    clip: int = Field(ge=0)
    missing: tuple[str, ...]


class EmbeddedRecipe(BaseModel):
    """Everything that decides what the embedded default is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    simulator: SimulatorConfig
    clips_seed: int
    clips: int = Field(ge=1)
    """Of each speaker."""
    speakers: dict[str, int]
    """Split to how many."""
    source: str
    """What the evidence calls the training data."""
    sample: SampleRecipe
    seed: int
    threads: int = Field(ge=1)
    training: dict[str, Any]
    """Changes to the training configuration's defaults."""


def load_recipe(path: Path = RECIPE) -> EmbeddedRecipe:
    """Read a recipe.

    Raises:
        ConfigError: if it can't be read, a setting is unknown or out of range, or the sample's speaker is
            in the corpus.
    """
    try:
        recipe = EmbeddedRecipe.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path}: expected a recipe in YAML, it can't be read ({' '.join(str(error).split())}): "
            "run this in a checkout of the repository, or pass --recipe"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise ConfigError(f"{path}: {place}: {first['msg']} (got {first['input']!r})") from error
    taken = sum(recipe.speakers.values())
    if recipe.sample.speaker < taken:
        raise ConfigError(
            f"{path}: the sample's speaker should be in no split, which have 0 to {taken - 1}; "
            f"got {recipe.sample.speaker}: choose a larger number"
        )
    return recipe
