"""The settings that fix a simulator: which contents, how many features, how strong each influence is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ChannelGains(BaseModel):
    """How strongly each influence moves one channel's features, before they are scaled to their own units.

    Only the ratios count: every feature is scaled to the mean and deviation that ``features.yaml`` gives it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    polarity: float = Field(ge=0)
    """Of the sentiment's sign and size, along each feature's ``polarity``."""
    strength: float = Field(ge=0)
    """Of the sentiment's absolute size, along each feature's ``strength``."""
    polarity_habit: float = Field(ge=0)
    """Deviation of what a person shows from the sentiment meant, in deviations of the polarity itself."""
    strength_habit: float = Field(ge=0)
    """The same for the strength."""
    entity: float = Field(ge=0)
    action: float = Field(ge=0)
    detail: float = Field(default=0.0, ge=0)
    """Of the detail, if the config has any."""
    common: float = Field(ge=0)
    """Nuisance that voice and face have in common."""
    own: float = Field(ge=0)
    """Nuisance of this channel alone, with a few factors."""
    noise: float = Field(gt=0)
    """Independent noise of every feature, which nothing can recover."""


class SimulatorConfig(BaseModel):
    """Everything that a simulator is made from, besides the text encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    """Of the parameters (patterns and loadings), not of the samples."""
    entities: tuple[str, ...] | None = None
    """A subset of those in ``content.yaml``; all of them when None."""
    actions: tuple[str, ...] | None = None
    details: int = Field(default=0, ge=0)
    """How many details there are: a part of the content that no sentence tells, all equally likely, each with
    a pattern of its own in voice and face. 0 for none."""
    audio_features: int = Field(default=74, ge=1)
    """The first so many of ``features.yaml``."""
    vision_features: int = Field(default=35, ge=1)
    common_factors: int = Field(default=3, ge=0)
    own_factors: int = Field(default=3, ge=0)
    common_habit: float = Field(default=0.3, ge=0, le=1)
    """Part of the habit's variance that voice and face share."""
    speaker_share: float = Field(default=0.6, ge=0, le=1)
    """Part of all nuisance variance that stays with the speaker; the rest changes with the recording."""
    audio: ChannelGains = ChannelGains(
        polarity=1.4,
        strength=1.7,
        polarity_habit=2.4,
        strength_habit=0.7,
        entity=0.12,
        action=0.05,
        common=0.5,
        own=0.3,
        noise=0.45,
    )
    vision: ChannelGains = ChannelGains(
        polarity=1.5,
        strength=1.3,
        polarity_habit=1.15,
        strength_habit=1.5,
        entity=0.12,
        action=0.06,
        common=0.45,
        own=0.3,
        noise=0.4,
    )
