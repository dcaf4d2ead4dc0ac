from __future__ import annotations

import torch
from torch import Tensor

from omg_graph.priors.kernel_fitting import search_factors


def distance(wanted: list[float]) -> object:
    return lambda factors: float((factors.log2() - torch.tensor(wanted).log2()).square().sum()) + 1.0


def test_factors_go_step_by_step_to_where_the_error_is_least() -> None:
    found, error = search_factors(torch.ones(3), distance([8.0, 1.0, 0.25]), step=2.0, gain=0.0)  # type: ignore[arg-type]
    assert found.tolist() == [8.0, 1.0, 0.25]
    assert error == 1.0


def test_what_gains_too_little_is_left() -> None:
    found, _ = search_factors(torch.ones(2), distance([1.3, 1.0]), step=2.0, gain=0.2)  # type: ignore[arg-type]
    assert found.tolist() == [1.0, 1.0]


def test_factors_that_are_not_allowed_are_not_tried() -> None:
    tried: list[Tensor] = []

    def error(factors: Tensor) -> float:
        tried.append(factors)
        return float(factors.sum())

    found, _ = search_factors(
        torch.ones(2), error, step=2.0, gain=0.0, adjust=lambda one: None if one.min() < 0.25 else one
    )
    assert found.tolist() == [0.25, 0.25]
    assert min(float(factors.min()) for factors in tried) == 0.25
