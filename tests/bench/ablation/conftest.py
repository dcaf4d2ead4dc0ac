"""Every variant trained for one epoch on the tiny clips, from stages that they share."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from omg_graph.bench.ablation.ablate import ablate
from omg_graph.bench.ablation.runs import AblationRequest, train_variant
from omg_graph.bench.ablation.variants import VARIANTS
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model


def silent(_what: str, _done: int, _of: int) -> None:
    return None


@pytest.fixture(scope="session")
def request_for(tiny_data_file: Path, tiny_settings: dict[str, Any]) -> Callable[..., AblationRequest]:
    def build(output: Path, **settings: Any) -> AblationRequest:
        shared = {name: block for name, block in tiny_settings.items() if name != "name"}
        return AblationRequest(
            **{
                "data": tiny_data_file,
                "output": output,
                "epochs": 1,
                "overrides": shared,
                "split": "valid",
                "mask_seeds": 1,
            }
            | settings
        )

    return build


@pytest.fixture(scope="session")
def finished(
    request_for: Callable[..., AblationRequest], tmp_path_factory: pytest.TempPathFactory
) -> AblationRequest:
    """An ablation that was run: the default, and mean pooling in training and at inference."""
    request = request_for(
        tmp_path_factory.mktemp("ablate") / "out",
        only=("mean-pooling", "mean-pooling@inference"),
        beside_paper="mosi",
    )
    ablate(request, silent)
    return request


@pytest.fixture(scope="session")
def trained(finished: AblationRequest) -> Callable[[str], Model]:
    """The model of a variant, trained at its first use from the stages of that ablation."""
    by_name = {variant.name: variant for variant in VARIANTS}

    @cache
    def model(name: str) -> Model:
        variant = by_name[name]
        folder = train_variant(finished, variant, 0, silent)
        return load_model(folder, components=variant.components)

    return model
