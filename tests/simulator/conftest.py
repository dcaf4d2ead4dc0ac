"""Simulators for the tests, with a text encoder that hashes sentences to random unit vectors."""

from __future__ import annotations

import numpy as np
import pytest

from omg_graph.seeding import derived_seed
from omg_graph.simulator import AffectSimulator, Embed, SimulatorConfig


@pytest.fixture(scope="session")
def hashed_embed() -> Embed:
    def embed(texts: list[str]) -> np.ndarray:
        rows = [np.random.default_rng(derived_seed("test", text)).standard_normal(384) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)

    return embed


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
