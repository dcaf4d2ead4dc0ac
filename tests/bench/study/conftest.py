"""A small world for each setting, with sentences hashed to random vectors, and one tiny study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omg_graph.bench.study.settings import SETTINGS, StudySetting
from omg_graph.bench.study.study import Study, StudyRequest, run_study
from omg_graph.bench.study.world import World, make_world
from omg_graph.simulator import AffectSimulator, Embed

DRAWS = 3
TRAINED = ("modes", "rare-details", "compositions")
SMALL = {"train": 12, "valid": 4, "later": 6, "test": 6}


def small(name: str) -> StudySetting:
    return SETTINGS[name].smaller(SMALL, 5)


@pytest.fixture(scope="session")
def worlds(hashed: Callable[[int], Embed]) -> dict[str, World]:
    made = {}
    for name in TRAINED:
        setting = small(name)
        made[name] = make_world(setting, AffectSimulator(setting.simulator, hashed(24)), 0)
    return made


@pytest.fixture(scope="session")
def hashed_world(hashed: Callable[[int], Embed]) -> World:
    """Rare details with as many clips as a real run has."""
    setting = SETTINGS["rare-details"].smaller({"train": 60, "valid": 1, "later": 20, "test": 1}, 10)
    return make_world(setting, AffectSimulator(setting.simulator, hashed(24)), 0)


@pytest.fixture(scope="session")
def study_settings(tiny_settings: dict[str, Any]) -> dict[str, Any]:
    return tiny_settings | {"task": tiny_settings["task"] | {"epochs": 2}}


@pytest.fixture(scope="session")
def small_settings() -> tuple[StudySetting, ...]:
    return small("modes"), small("rare-details")


@pytest.fixture(scope="session")
def tiny_study(
    study_settings: dict[str, Any],
    small_settings: tuple[StudySetting, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Study, Path, list[str]]:
    """Two settings and a seed, what they were told of, and where the results are."""
    folder = tmp_path_factory.mktemp("study")
    told: list[str] = []
    request = StudyRequest(folder, small_settings, 1, training=study_settings, draws=DRAWS)
    return run_study(request, lambda run, what, *_: told.append(f"{run}: {what}")), folder, told
