"""Simulators for the tests, with a text encoder that hashes sentences to random unit vectors."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from omg_graph.simulator import AffectSimulator, Embed, SimulatorConfig


@pytest.fixture(scope="session")
def hashed_embed(hashed: Callable[[int], Embed]) -> Embed:
    return hashed(384)


@pytest.fixture(scope="session")
def simulator(hashed_embed: Embed) -> AffectSimulator:
    return AffectSimulator(SimulatorConfig(), hashed_embed)


@pytest.fixture(scope="session")
def small_simulator(hashed_embed: Embed) -> AffectSimulator:
    config = SimulatorConfig(
        entities=("story", "music"),
        actions=("praises", "criticises", "hesitates"),
        audio_features=3,
        vision_features=2,
    )
    return AffectSimulator(config, hashed_embed)
