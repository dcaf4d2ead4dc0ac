"""What there is to know of a run beside its trajectories: the model, its modalities and the settings."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from omg_graph.data.dataset import ModalitySpec

if TYPE_CHECKING:
    from omg_graph.model.model import Model
    from omg_graph.state import Settings


class RunFacts(BaseModel):
    """Enough to tell a run's story without its model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(description="Of omg-graph.")
    model: str = Field(description="The model's name.")
    fingerprint: str
    synthetic: bool = Field(description="Whether the model was trained on simulated data.")
    modalities: tuple[ModalitySpec, ...]
    feature_names: dict[str, tuple[str, ...]] = {}
    feature_units: dict[str, tuple[str, ...]] = {}
    label: str | None = Field(default=None, description="What is predicted.")
    degrees: dict[str, float] | None = Field(
        default=None, description="The number that each word of an ordered label stands for."
    )
    settings: dict[str, JsonValue] = {}

    @classmethod
    def of(cls, model: Model, settings: Settings) -> RunFacts:
        """The facts of a run that is about to start."""
        config = model.config
        return cls(
            version=version("omg-graph"),
            model=config.name,
            fingerprint=model.manifest.fingerprint,
            synthetic=config.synthetic,
            modalities=model.latent_space.specs,
            feature_names=config.feature_names,
            feature_units=config.feature_units,
            label=None if config.target is None else config.target.name,
            degrees=model.schema.degrees,
            settings=settings.model_dump(mode="json"),
        )
