from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError

from omg_graph.executor.denoiser import Conditions
from omg_graph.executor.executor import (
    Executor,
    ExecutorConfig,
    ExecutorInput,
)

Build = Callable[..., Executor]


def anchor_on_everything(executor: Executor, weight: float) -> None:
    """The same weight for every part and observed set."""
    anchor = executor.anchor
    anchor.patterns = torch.ones(1, len(executor.names), dtype=torch.bool)
    anchor.weights = torch.full((len(executor.names), 1, len(anchor.priors)), weight)


def test_the_estimate_has_every_modality_s_shape(make_executor: Build, batch: ExecutorInput) -> None:
    executor = make_executor()
    estimates = executor.estimate(batch, executor.conditions(batch, executor.anchors(batch)))
    assert {name: tuple(value.shape) for name, value in estimates.items()} == {
        name: (len(batch.ids), width) for name, width in executor.widths.items()
    }


def test_without_trust_the_estimate_is_the_anchor(make_executor: Build, batch: ExecutorInput) -> None:
    executor = make_executor()
    anchor_on_everything(executor, 0.5)
    executor.trust.zero_()
    anchors = executor.anchors(batch)
    estimates = executor.estimate(batch, executor.conditions(batch, anchors))
    for name, anchor in anchors.items():
        assert anchor.any()
        assert torch.equal(estimates[name], anchor)


def test_trust_and_scale_multiply_the_residual(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions
) -> None:
    executor = make_executor()
    executor.trust.fill_(0.25)
    executor.residual_scale.copy_(torch.tensor([1.0, 2.0, 3.0]))
    residuals = executor.mean_residuals(batch, conditions)
    estimates = executor.estimate(batch, conditions)
    for scale, name in enumerate(executor.names, start=1):
        expected = conditions.anchor[name] + 0.25 * scale * residuals[name]
        assert torch.allclose(estimates[name], expected, atol=1e-6)


def test_the_anchor_of_what_is_observed_is_zero(make_executor: Build, batch: ExecutorInput) -> None:
    executor = make_executor()
    anchor_on_everything(executor, 1.0)
    for column, (_, anchor) in enumerate(executor.anchors(batch).items()):
        seen = batch.observed[:, column]
        assert not anchor[seen].any()
        assert bool(anchor[~seen].any(dim=1).all())


def test_filling_keeps_what_is_observed(make_executor: Build, batch: ExecutorInput) -> None:
    executor = make_executor()
    estimates = {name: torch.full_like(value, 9.0) for name, value in batch.latents.items()}
    for column, (name, value) in enumerate(executor.fill(batch, estimates).items()):
        seen = batch.observed[:, column]
        assert torch.equal(value[seen], batch.latents[name][seen])
        assert bool((value[~seen] == 9.0).all())


def test_an_executor_s_weights_can_be_carried_over(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions
) -> None:
    first, second = make_executor(), make_executor(shaken=False)
    second.load_state_dict(first.state_dict())
    left, right = first.estimate(batch, conditions), second.estimate(batch, conditions)
    assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"width": 18, "heads": 4}, "multiple of heads; 18 and 4 came"),
        ({"width": 15, "heads": 3}, "width must be even"),
        ({"deep_layers": (4,)}, r"from 0 to 3; \[4\] came"),
        ({"train_steps": 10}, "can't exceed train_steps; 20 and 10 came"),
    ],
)
def test_settings_that_can_t_be_built_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ExecutorConfig.model_validate({"sample_steps": 20, "layers": 4} | settings)
