"""Tiny executors: three modalities with awkward names, small enough to check by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from omg_graph.data.dataset import ModalitySpec
from omg_graph.executor.denoiser import Conditions, Denoiser
from omg_graph.executor.executor import Executor, ExecutorConfig, ExecutorInput
from omg_graph.predictor.task import TaskHeadConfig
from omg_graph.seeding import generator, seeded

# not in alphabetical order, and names that a module or a dictionary has for itself
WIDTHS = {"keys": 5, "a.b": 3, "items": 4}
SHARED = 6
ROWS = 7


def random(*shape: int, key: str) -> Tensor:
    return torch.randn(*shape, generator=generator("tests", key, *shape))


def shake(module: nn.Module) -> None:
    """Move every parameter, so that nothing is zero only because training hasn't begun."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.add_(0.3 * random(*parameter.shape, key=name))


@pytest.fixture
def make_denoiser() -> Callable[..., Denoiser]:
    def build(shaken: bool = True, **settings: Any) -> Denoiser:
        with seeded("tests", "denoiser"):
            denoiser = Denoiser(WIDTHS, SHARED, **{"width": 16, "heads": 2, "dropout": 0.0} | settings)
        if shaken:
            shake(denoiser)
        return denoiser.eval()

    return build


@pytest.fixture
def observed() -> Tensor:
    """(rows, modalities): every pattern of three modalities but the empty one."""
    codes = torch.arange(1, ROWS + 1)
    return (codes[:, None] >> torch.arange(3)) % 2 == 1


@pytest.fixture
def latents(observed: Tensor) -> dict[str, Tensor]:
    """Clean latents, zero where they aren't observed."""
    return {
        name: random(ROWS, width, key="clean" + name) * observed[:, column : column + 1]
        for column, (name, width) in enumerate(WIDTHS.items())
    }


@pytest.fixture
def states() -> dict[str, Tensor]:
    return {name: random(ROWS, width, key="state" + name) for name, width in WIDTHS.items()}


@pytest.fixture
def conditions(observed: Tensor) -> Conditions:
    return Conditions(
        observation=nn.functional.normalize(random(ROWS, SHARED, key="observation"), dim=-1),
        plan=nn.functional.normalize(random(ROWS, 4, SHARED, key="plan"), dim=-1),
        evidence={name: random(ROWS, width, key="evidence" + name) for name, width in WIDTHS.items()},
        anchor={name: random(ROWS, width, key="anchor" + name) for name, width in WIDTHS.items()},
        observed=observed,
        trusted=torch.arange(ROWS) % 2 == 0,
        plan_given=torch.arange(ROWS) % 3 > 0,
        evidence_given=torch.arange(ROWS) % 4 > 0,
    )


@pytest.fixture
def batch(latents: dict[str, Tensor], conditions: Conditions) -> ExecutorInput:
    return ExecutorInput(
        ids=tuple(f"sample{row}" for row in range(ROWS)),
        latents=latents,
        observed=conditions.observed,
        observation=conditions.observation,
        plan=conditions.plan,
        evidence=conditions.evidence,
        groups=tuple(f"group{row}" for row in range(ROWS)),
        trusted=conditions.trusted,
    )


@pytest.fixture
def make_executor() -> Callable[..., Executor]:
    def build(task: bool = True, shaken: bool = True, **settings: Any) -> Executor:
        specs = [ModalitySpec(name=name, kind="vector", shape=(width,)) for name, width in WIDTHS.items()]
        config = ExecutorConfig(**{"width": 16, "heads": 2, "dropout": 0.0, "train_steps": 50} | settings)
        with seeded("tests", "executor"):
            executor = Executor(config, specs, WIDTHS, SHARED)
            if task:
                executor.add_task(
                    TaskHeadConfig(
                        kind="degrees",
                        names=("negative", "neutral", "positive"),
                        degrees=(-1.0, 0.0, 1.0),
                        widths=WIDTHS,
                        scales=dict.fromkeys(WIDTHS, 1.0),
                        shared_width=SHARED,
                        hidden=16,
                        dropout=0.0,
                    )
                )
        if shaken:
            shake(executor)
        return executor.eval()

    return build
