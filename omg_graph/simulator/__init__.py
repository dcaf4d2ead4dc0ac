"""Synthetic affect clips from a documented process whose exact posterior is known: ground truth, not data."""

from __future__ import annotations

from omg_graph.simulator.config import ChannelGains, SimulatorConfig
from omg_graph.simulator.content import DEGREES, Content, Contents
from omg_graph.simulator.inference import (
    ContentPosterior,
    GaussianMixture,
    PatternBounds,
    SentencePosterior,
    content_posterior,
    every_pattern,
    measure_bounds,
    missing_mixture,
    missing_sentences,
    normalised_squared_error,
    posterior_mean,
)
from omg_graph.simulator.process import AffectSimulator, Embed, SimulatedSplit

__all__ = [
    "DEGREES",
    "AffectSimulator",
    "ChannelGains",
    "Content",
    "ContentPosterior",
    "Contents",
    "Embed",
    "GaussianMixture",
    "PatternBounds",
    "SentencePosterior",
    "SimulatedSplit",
    "SimulatorConfig",
    "content_posterior",
    "every_pattern",
    "measure_bounds",
    "missing_mixture",
    "missing_sentences",
    "normalised_squared_error",
    "posterior_mean",
]
