from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from omg_graph.bench.ablation.gradients import GradientProbe, gradient_cosine, read_gradients
from omg_graph.bench.ablation.results import conflicts


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 135.0, 180.0])
def test_two_quadratic_losses_meet_at_the_angle_between_their_minima(degrees: float) -> None:
    # at the origin the gradient of |w - a|^2 is -2 a
    weights = nn.Parameter(torch.zeros(2))
    angle = math.radians(degrees)
    first = (weights - torch.tensor([3.0, 0.0])).square().sum()
    second = (weights - 0.5 * torch.tensor([math.cos(angle), math.sin(angle)])).square().sum()
    assert gradient_cosine(first, second, [weights]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_weights_that_one_loss_does_not_reach_count_as_zeros() -> None:
    shared, own = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    # gradients (1, 0) and (1, 1): 45 degrees
    cosine = gradient_cosine(shared.sum(), (shared + own).sum(), [shared, own])
    assert cosine == pytest.approx(math.sqrt(0.5), abs=1e-6)


def test_a_loss_without_any_gradient_has_no_angle() -> None:
    weights = nn.Parameter(torch.ones(2))
    assert gradient_cosine(weights.sum(), torch.zeros(()), [weights]) is None
    assert gradient_cosine(weights.sum(), 0.0 * weights.sum(), [weights]) is None


def test_records_survive_a_training_that_is_cut_off(tmp_path: Path) -> None:
    class Fixed(GradientProbe):
        @staticmethod
        def measure(trainer: object) -> dict[str, list[float]]:
            return {"plan": [0.5], "task": [-0.5]}

    file = tmp_path / "variant" / "seed-0.json"
    Fixed(file).after_epoch(None, 1)  # type: ignore[arg-type]
    resumed = Fixed(file)
    for epoch in range(2, 11):
        resumed.after_epoch(None, epoch)  # type: ignore[arg-type]
    # every epoch at first, then every fifth
    assert [record["epoch"] for record in read_gradients(file)] == [1, 2, 3, 4, 5, 10]
    assert json.loads(file.read_text())[0] == {"epoch": 1, "plan": [0.5], "task": [-0.5]}


def test_the_spread_of_the_cosine_is_that_of_whole_trainings() -> None:
    records = [
        {"seed": 0, "fold": 0, "epoch": 1, "plan": [0.5, 0.3], "task": []},
        {"seed": 0, "fold": 0, "epoch": 2, "plan": [0.4, 0.4], "task": []},
        {"seed": 0, "fold": 1, "epoch": 1, "plan": [-0.2, 0.0], "task": []},
    ]
    found = conflicts(records, "plan")
    assert found is not None
    mean, negative = found
    assert (mean.value, mean.low, mean.high) == pytest.approx((1.4 / 6, -0.1, 0.4))
    assert negative == pytest.approx(1 / 6)
    assert conflicts(records, "task") is None
    single = conflicts(records[:2], "plan")
    assert single is not None
    assert math.isnan(single[0].low)
