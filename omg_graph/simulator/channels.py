"""Face and voice: linear-Gaussian features, given what is said, who says it and in which recording."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omg_graph.errors import ConfigError
from omg_graph.seeding import derived_seed
from omg_graph.simulator.config import ChannelGains, SimulatorConfig
from omg_graph.simulator.content import Contents, Float64Array, Recipe, read_recipe

CHANNELS = ("audio", "vision")
HABITS = 2
"""Nuisance factors that look like affect: a resting face or tone (polarity) and liveliness (strength)."""


class FeatureRecipe(Recipe):
    """One feature of the face or the voice."""

    name: str
    unit: str
    mean: float
    sd: float
    polarity: float
    strength: float


class ChannelRecipe(Recipe):
    """``features.yaml``: the features of both channels."""

    vision: tuple[FeatureRecipe, ...]
    audio: tuple[FeatureRecipe, ...]


@dataclass(frozen=True)
class Channel:
    """x = content_means[k] + speaker_loadings s + recording_loadings r + noise_sd * eps.

    All in each feature's own unit; s, r and eps are independent standard normals.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    content_means: Float64Array
    """(contents, features)."""
    speaker_loadings: Float64Array
    """(features, factors)."""
    recording_loadings: Float64Array
    """(features, factors)."""
    noise_sd: Float64Array
    """(features,)."""
    mean: Float64Array
    """(features,): over all clips, exactly."""
    sd: Float64Array
    """(features,): over all clips, exactly."""


def factor_count(config: SimulatorConfig) -> int:
    """How many numbers s has, and r as well: factors in common, then those of each channel alone."""
    return HABITS + config.common_factors + len(CHANNELS) * (HABITS + config.own_factors)


def build_channels(config: SimulatorConfig, contents: Contents) -> dict[str, Channel]:
    """Draws the patterns and loadings of both channels from the config's seed.

    Raises:
        ConfigError: if more features are asked for than are named.
    """
    recipe = ChannelRecipe.model_validate(read_recipe("features.yaml"))
    channels = {}
    for name in CHANNELS:
        features: Sequence[FeatureRecipe] = getattr(recipe, name)
        wanted: int = getattr(config, f"{name}_features")
        if wanted > len(features):
            raise ConfigError(
                f"{name}_features can be at most {len(features)}, got {wanted}: choose a smaller number"
            )
        channels[name] = _channel(name, features[:wanted], config, getattr(config, name), contents)
    return channels


def _channel(
    name: str,
    features: Sequence[FeatureRecipe],
    config: SimulatorConfig,
    gains: ChannelGains,
    contents: Contents,
) -> Channel:
    polarity = gains.polarity * np.array([feature.polarity for feature in features])
    strength = gains.strength * np.array([feature.strength for feature in features])
    rng = np.random.default_rng(derived_seed(config.seed, "simulator", name, "patterns"))
    width = len(features)
    entity_patterns = gains.entity * rng.standard_normal((len(contents.entities), width))
    action_patterns = gains.action * rng.standard_normal((len(contents.actions), width))
    raw = (
        np.outer(_standardised(contents.degree, contents.prior), polarity)
        + np.outer(_standardised(np.abs(contents.degree), contents.prior), strength)
        + contents.entity_indicator @ entity_patterns
        + contents.action_indicator @ action_patterns
    )
    if contents.details:
        rng = np.random.default_rng(derived_seed(config.seed, "simulator", name, "details"))
        raw += contents.detail_indicator @ (gains.detail * rng.standard_normal((contents.details, width)))
    raw -= contents.prior @ raw
    habits = np.stack([gains.polarity_habit * polarity, gains.strength_habit * strength], axis=1)
    speaker = np.sqrt(config.speaker_share) * _loadings(name, "speaker", config, gains, habits)
    recording = np.sqrt(1 - config.speaker_share) * _loadings(name, "recording", config, gains, habits)
    variance = (
        contents.prior @ raw**2 + (speaker**2).sum(axis=1) + (recording**2).sum(axis=1) + gains.noise**2
    )
    mean = np.array([feature.mean for feature in features])
    sd = np.array([feature.sd for feature in features])
    scale = sd / np.sqrt(variance)
    return Channel(
        names=tuple(feature.name for feature in features),
        units=tuple(feature.unit for feature in features),
        content_means=mean + scale * raw,
        speaker_loadings=scale[:, None] * speaker,
        recording_loadings=scale[:, None] * recording,
        noise_sd=scale * gains.noise,
        mean=mean,
        sd=sd,
    )


def _loadings(
    name: str, level: str, config: SimulatorConfig, gains: ChannelGains, habits: Float64Array
) -> Float64Array:
    """(features, factors), with the other channel's own factors at zero."""
    rng = np.random.default_rng(derived_seed(config.seed, "simulator", name, level))
    width = len(habits)
    common = _spread(rng, width, config.common_factors, gains.common)
    own = _spread(rng, width, config.own_factors, gains.own)
    blocks = [np.sqrt(config.common_habit) * habits, common]
    for other in CHANNELS:
        if other == name:
            blocks += [np.sqrt(1 - config.common_habit) * habits, own]
        else:
            blocks.append(np.zeros((width, HABITS + config.own_factors)))
    return np.concatenate(blocks, axis=1)


def _spread(rng: np.random.Generator, width: int, factors: int, deviation: float) -> Float64Array:
    """Random loadings whose factors together give a feature ``deviation`` squared of variance on average."""
    return deviation / math.sqrt(max(factors, 1)) * rng.standard_normal((width, factors))


def _standardised(values: npt.NDArray[np.int64], prior: Float64Array) -> Float64Array:
    """Mean 0 and variance 1 under the prior; all zero where the values don't differ."""
    centred: Float64Array = values - prior @ values
    deviation = np.sqrt(prior @ centred**2)
    return np.asarray(centred / deviation if deviation > 0 else centred)
