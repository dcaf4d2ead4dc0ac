"""The task head: its direct networks' share, its temperature and its spread, by validation rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from omg_graph.model.folder import load_model, read_manifest
from omg_graph.predictor.task import TaskHead, TaskHeadConfig
from omg_graph.seeding import generator, seeded
from omg_graph.training.prediction import (
    COLDEST,
    HOTTEST,
    SHARE_TOLERANCE,
    SHARES,
    fit_spread,
    fit_temperature,
)


def labelled(seed: int, rows: int, sharpness: float) -> tuple[Tensor, Tensor]:
    """Logits, and classes drawn from their softmax: calibrated; then the logits times ``sharpness``."""
    source = generator("calibration", seed)
    logits = 2 * torch.randn(rows, 4, generator=source)
    classes = torch.multinomial(logits.softmax(1), 1, generator=source)[:, 0]
    return logits * sharpness, classes


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 3.0])
def test_the_temperature_undoes_overconfidence_and_the_opposite(sharpness: float) -> None:
    outputs, classes = labelled(0, 20_000, sharpness)
    assert fit_temperature(outputs, classes) == pytest.approx(sharpness, rel=0.05)


def test_what_is_calibrated_stays_exactly_as_it_is() -> None:
    assert fit_temperature(*labelled(1, 5_000, 1.0)) == 1.0


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.integers(1, 40), st.floats(0.1, 10))
def test_it_is_never_worse_on_the_rows_it_was_fitted_on(seed: int, rows: int, sharpness: float) -> None:
    outputs, classes = labelled(seed, rows, sharpness)
    temperature = fit_temperature(outputs, classes)
    assert COLDEST <= temperature <= HOTTEST
    before = F.cross_entropy(outputs.double(), classes)
    assert float(F.cross_entropy(outputs.double() / temperature, classes)) <= float(before) + 1e-12


def test_the_spread_undoes_what_shrank_and_leaves_the_rest_alone() -> None:
    truth = torch.randn(20_000, generator=generator("spread"))
    noise = 0.3 * torch.randn(20_000, generator=generator("spread noise"))
    assert fit_spread(truth / 1.2, truth + noise) == pytest.approx(1.2, rel=0.02)
    assert fit_spread(truth, truth + noise) == 1.0


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
