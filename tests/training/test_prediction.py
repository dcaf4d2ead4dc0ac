"""The task head: its direct networks' share, its temperature and its spread, by validation rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from omg_graph.model.folder import load_model, read_manifest
from omg_graph.predictor.calibration import COLDEST, HOTTEST
from omg_graph.predictor.task import TaskHead, TaskHeadConfig
from omg_graph.seeding import seeded
from omg_graph.training.prediction import (
    SHARE_TOLERANCE,
    SHARES,
)


def test_temperature_and_spread_change_what_they_should() -> None:
    config = TaskHeadConfig(
        kind="degrees",
        names=("low", "middle", "high"),
        degrees=(-1.0, 0.0, 1.0),
        target_mean=0.1,
        widths={"a": 3},
        scales={"a": 1.0},
        shared_width=5,
    )
    with seeded("head"):
        head = TaskHead(config).eval()
        torch.nn.init.normal_(head.perceptron[-1].weight)  # type: ignore[arg-type]
        observation, latents = torch.randn(6, 5), {"a": torch.randn(6, 3)}
    before = head(observation, latents)
    head.temperature.fill_(2.5)
    torch.testing.assert_close(head(observation, latents), before / 2.5)
    plain = head.value(before)
    head.spread.fill_(1.1)
    torch.testing.assert_close(head.value(before), (0.1 + 1.1 * (plain - 0.1)).clamp(-1, 1))
    assert torch.equal(head.probabilities(before), before.softmax(1))


def test_a_model_says_its_temperature(tiny_model_folder: Path, tiny_plain_folder: Path) -> None:
    temperature = read_manifest(tiny_model_folder).training["temperature"]
    assert COLDEST <= temperature <= HOTTEST
    assert read_manifest(tiny_plain_folder).training["temperature"] is None


# direct networks


def test_the_share_is_the_one_that_suits_validation_rows_best(tiny_model_folder: Path) -> None:
    direct = read_manifest(tiny_model_folder).training["direct"]
    losses = {float(share): loss for share, loss in direct["losses"].items()}
    assert set(losses) == set(SHARES)
    gain = losses[0.0] - losses[direct["share"]]
    assert direct["share"] == 0 or (
        gain > SHARE_TOLERANCE * losses[0.0] and losses[direct["share"]] == min(losses.values())
    )
    assert len(direct["epochs"]) == 2


def test_a_model_has_networks_where_they_have_a_share(tiny_model_folder: Path) -> None:
    model, direct = load_model(tiny_model_folder), read_manifest(tiny_model_folder).training["direct"]
    head = model.executor.task
    assert head is not None
    assert (head.direct is not None) == (direct["share"] > 0)
    if head.direct is not None:
        assert float(head.share) == direct["share"]
        assert head.direct.config.terms == (
            0 if model.label_regression is None else model.label_regression.words.width
        )


def test_slots_stay_in_the_order_of_the_modalities(tiny_model_folder: Path) -> None:
    model = load_model(tiny_model_folder)
    assert list(model.names) != sorted(model.names)
    assert model.config.task is not None
    assert list(model.config.task.widths) == list(model.names)


@pytest.mark.parametrize("task", [{"direct": {"members": 0}}, {"refit": False}])
def test_without_members_or_a_refit_there_is_none(
    tiny_data_file: Path, train_tiny: Callable[..., Path], tiny_settings: dict[str, Any], task: dict[str, Any]
) -> None:
    folder = train_tiny(
        tiny_data_file, f"no-direct-{next(iter(task))}", overrides=tiny_settings | {"task": task}
    )
    head = load_model(folder).executor.task
    assert head is not None
    assert head.direct is None
    assert read_manifest(folder).training["direct"] is None
