"""The direct head is fitted beside the head, and kept only where validation rows gain by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omg_graph.model.folder import load_model, read_manifest
from omg_graph.training.direct import SHARES, TOLERANCE


def test_the_share_is_the_one_that_suits_validation_rows_best(tiny_model_folder: Path) -> None:
    told = read_manifest(tiny_model_folder).training["direct"]
    losses = {float(share): loss for share, loss in told["losses"].items()}
    assert set(losses) == set(SHARES)
    gain = losses[0.0] - losses[told["share"]]
    assert told["share"] == 0 or (
        gain > TOLERANCE * losses[0.0] and losses[told["share"]] == min(losses.values())
    )
    assert len(told["epochs"]) == 2


def test_a_model_has_networks_where_they_have_a_share(tiny_model_folder: Path) -> None:
    model, told = load_model(tiny_model_folder), read_manifest(tiny_model_folder).training["direct"]
    head = model.executor.task
    assert head is not None
    assert (head.direct is not None) == (told["share"] > 0)
    if head.direct is not None:
        assert float(head.share) == told["share"]
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
