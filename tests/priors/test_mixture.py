from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from torch import Tensor

from omg_graph.priors.mixture import Mixture, nonnegative_least_squares
from omg_graph.priors.prior import Shown
from omg_graph.seeding import generator

WIDTHS = {"keys": 4, "a.b": 4, "items": 4}
PRIORS = ("evidence", "gaussian", "kernel")
PATTERNS = torch.tensor([[True, False, False], [False, False, True], [True, False, True]])


@settings(deadline=None)
@given(st.integers(0, 500), st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.floats(0, 0.99))
def test_weights_are_the_best_non_negative_ones(seed: int, wanted: list[float], shared: float) -> None:
    source = generator("nnls", seed)
    parts = torch.randn(12, 3, generator=source)
    parts[:, 1] = shared * parts[:, 0] + (1 - shared) * parts[:, 1]
    target = parts @ torch.tensor(wanted) + 0.3 * torch.randn(12, generator=source)
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


def fitted(priors: tuple[str, ...] = PRIORS) -> tuple[Mixture, Tensor, Tensor, Tensor]:
    source = generator("anchor")
    parts = torch.randn(90, 4, 3, generator=source)
    observed = torch.zeros(90, 3, dtype=torch.bool)
    observed[:, 0] = True
    observed[30:, 2] = True  # 30 rows observe one modality, 60 two
    evidence, gaussian, kernel = parts.unbind(-1)
    target = torch.where(observed[:, 2:], 0.8 * gaussian, 0.5 * evidence + 0.2 * gaussian + 0.3 * kernel)
    mixture = Mixture(WIDTHS, priors)
    parts = parts[..., [PRIORS.index(name) for name in priors]]
    mixture.fit_weights("a.b", target, parts, observed, PATTERNS)
    return mixture, target, parts, observed


def test_the_mixture_finds_the_weights_of_each_observed_set() -> None:
    mixture, target, parts, observed = fitted()
    assert torch.allclose(mixture.combined("a.b", parts, observed), target, atol=1e-4)
    assert not mixture.weights[[0, 2]].any()
    assert torch.allclose(mixture.spread("a.b", observed), torch.zeros(90), atol=1e-4)


def test_an_observed_set_that_was_not_fitted_takes_what_the_most_similar_has() -> None:
    mixture, _, parts, _ = fitted()
    all_three, without_it = torch.ones(90, 3, dtype=torch.bool), torch.tensor([[True, False, True]] * 90)
    assert torch.equal(mixture.combined("a.b", parts, all_three), mixture.combined("a.b", parts, without_it))


def test_a_fitted_mixture_is_loaded_with_its_observed_sets() -> None:
    mixture, _, parts, observed = fitted()
    loaded = Mixture(WIDTHS, PRIORS)
    assert not loaded.combined("a.b", parts, observed).any()
    loaded.load_state_dict(mixture.state_dict())
    assert torch.equal(loaded.combined("a.b", parts, observed), mixture.combined("a.b", parts, observed))


def test_few_rows_take_the_weights_of_all() -> None:
    source = generator("few")
    parts = torch.randn(60, 4, 3, generator=source)
    observed = torch.tensor([[True, False, False]] * 45 + [[False, False, True]] * 15)
    target = 0.6 * parts[..., 0]
    target[45:] = 0.0
    mixture = Mixture(WIDTHS, PRIORS)
    mixture.fit_weights("a.b", target, parts, observed, PATTERNS)
    assert float(mixture.weights[1, 0, 0]) == pytest.approx(0.6, abs=1e-4)
    assert 0.1 < float(mixture.weights[1, 1, 0]) < 0.6


def test_a_mixture_of_nothing_is_the_training_mean() -> None:
    mixture, target, parts, observed = fitted(())
    assert not mixture.combined("a.b", parts, observed).any()
    shown = Shown(
        ids=("one",) * 90, groups=("one",) * 90, latents=dict.fromkeys(WIDTHS, target), observed=observed
    )
    assert not mixture.predict("a.b", shown).any()


def test_priors_are_weighed_as_they_predict() -> None:
    """What is fitted on estimates is used on the priors' own; one without weight isn't asked."""
    mixture, target, _, observed = fitted(("evidence", "kernel"))
    mixture.weights[1] = torch.tensor([0.5, 0.0])
    shown = Shown(
        ids=("one",) * 90,
        groups=("one",) * 90,
        latents=dict.fromkeys(WIDTHS, target),
        observed=observed,
        evidence=dict.fromkeys(WIDTHS, target),
    )
    assert torch.equal(mixture.predict("a.b", shown), 0.5 * target)


def test_the_fit_is_never_worse_than_the_mean() -> None:
    """Predictions that say nothing of the target must not do harm: weights fall to zero or next to it."""
    source = generator("nothing")
    parts, target = torch.randn(200, 4, 3, generator=source), torch.randn(200, 4, generator=source)
    observed = torch.tensor([[True, False, False]]).expand(200, 3)
    mixture = Mixture(WIDTHS, PRIORS)
    mixture.fit_weights("a.b", target, parts, observed, PATTERNS)
    error = (mixture.combined("a.b", parts, observed) - target).square().sum()
    assert float(error) <= float(target.square().sum())
    assert bool((mixture.weights < 0.2).all())
