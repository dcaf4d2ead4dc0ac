from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

from omg_graph.executor.anchor import Anchor, nonnegative_least_squares
from omg_graph.seeding import generator

NAMES = ("keys", "a.b", "items")


@settings(deadline=None)
@given(st.integers(0, 500), st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 0.99))
def test_weights_are_the_best_non_negative_ones(
    seed: int, first: float, second: float, shared: float
) -> None:
    source = generator("nnls", seed)
    parts = torch.randn(12, 2, generator=source)
    parts[:, 1] = shared * parts[:, 0] + (1 - shared) * parts[:, 1]
    target = parts @ torch.tensor([first, second]) + 0.3 * torch.randn(12, generator=source)
    weights = nonnegative_least_squares(parts, target)
    _, best = nnls(parts.double().numpy(), target.double().numpy())
    assert bool((weights >= 0).all())
    assert float((parts @ weights - target).norm()) == pytest.approx(best, rel=1e-4, abs=1e-5)


def test_useless_parts_get_no_weight() -> None:
    parts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert not nonnegative_least_squares(parts, torch.tensor([-1.0, -2.0])).any()
    assert not nonnegative_least_squares(torch.zeros(3, 2), torch.ones(3)).any()
    assert torch.allclose(
        nonnegative_least_squares(parts, torch.tensor([-1.0, 2.0])), torch.tensor([0.0, 2.0])
    )


def fitted(kind: str) -> tuple[Anchor, Tensor, Tensor, Tensor, Tensor]:
    source = generator("anchor")
    evidence, gaussian = torch.randn(2, 90, 4, generator=source)
    observed = torch.zeros(90, 3, dtype=torch.bool)
    observed[:, 0] = True
    observed[30:, 2] = True  # 30 rows observe one modality, 60 two
    target = torch.where(observed[:, 2:], 0.8 * gaussian, 0.5 * evidence + 0.2 * gaussian)
    anchor = Anchor(NAMES, kind)  # type: ignore[arg-type]
    anchor.fit("a.b", target, evidence, gaussian, observed)
    return anchor, target, evidence, gaussian, observed


def test_the_mixture_finds_the_weights_of_each_count() -> None:
    anchor, target, evidence, gaussian, observed = fitted("mixture")
    assert torch.allclose(anchor("a.b", evidence, gaussian, observed), target, atol=1e-4)
    assert not anchor.weights[[0, 2]].any()


@pytest.mark.parametrize(("kind", "unused"), [("evidence", 1), ("gaussian", 0)])
def test_a_single_source_leaves_the_other_alone(kind: str, unused: int) -> None:
    anchor, _, evidence, gaussian, observed = fitted(kind)
    assert not anchor.weights[..., unused].any()
    assert bool((anchor.weights >= 0).all())
    assert anchor("a.b", evidence, gaussian, observed).any()


def test_none_anchors_on_the_training_mean() -> None:
    anchor, _, evidence, gaussian, observed = fitted("none")
    assert not anchor("a.b", evidence, gaussian, observed).any()


def test_the_fit_is_never_worse_than_the_mean() -> None:
    """Predictions that say nothing of the target must not do harm: weights fall to zero or next to it."""
    source = generator("nothing")
    evidence, gaussian, target = torch.randn(3, 200, 4, generator=source)
    observed = torch.tensor([[True, False, False]]).expand(200, 3)
    anchor = Anchor(NAMES)
    anchor.fit("a.b", target, evidence, gaussian, observed)
    error = (anchor("a.b", evidence, gaussian, observed) - target).square().sum()
    assert float(error) <= float(target.square().sum())
    assert bool((anchor.weights < 0.2).all())
