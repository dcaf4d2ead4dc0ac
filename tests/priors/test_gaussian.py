from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.seeding import generator

WIDTHS = {"a": 2, "b": 3, "c": 1}
PATTERNS = [[bool(code >> column & 1) for column in range(3)] for code in range(1, 8)]


def known_gaussian() -> tuple[Tensor, Tensor]:
    source = generator("gaussian")
    factors = torch.randn(6, 3, generator=source, dtype=torch.float64)
    return torch.linspace(-1, 1, 6, dtype=torch.float64), factors @ factors.T + 0.3 * torch.eye(6)


def sampled(rows: int) -> dict[str, Tensor]:
    mean, covariance = known_gaussian()
    noise = torch.randn(rows, 6, generator=generator("rows", rows), dtype=torch.float64)
    x = (mean + noise @ torch.linalg.cholesky(covariance).T).float()
    return dict(zip(WIDTHS, x.split(list(WIDTHS.values()), dim=1), strict=True))


def exact_model() -> GaussianConditional:
    mean, covariance = known_gaussian()
    model = GaussianConditional(WIDTHS)
    model.load_state_dict({"mean": mean.float(), "covariance": covariance.float(), "ridges": torch.zeros(3)})
    return model


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("target", list(WIDTHS))
def test_the_closed_form_for_every_pattern(pattern: list[bool], target: str) -> None:
    """E[z_t | z_o] = m_t + C_to C_oo^-1 (z_o - m_o); a target that is observed is left out of z_o."""
    model, latents = exact_model(), sampled(5)
    mean, covariance = known_gaussian()
    columns = torch.arange(6).split(list(WIDTHS.values()))
    index = list(WIDTHS).index(target)
    others = [columns[i] for i, seen in enumerate(pattern) if seen and i != index]
    wanted = mean[columns[index]].expand(5, -1)
    if others:
        given, x = torch.cat(others), torch.cat(list(latents.values()), dim=1).double()
        gain = covariance[columns[index]][:, given] @ torch.linalg.inv(covariance[given][:, given])
        wanted = wanted + (x[:, given] - mean[given]) @ gain.T
    predicted = model.conditional(target, latents, torch.tensor([pattern] * 5))
    assert torch.allclose(predicted.double(), wanted, atol=1e-4)


def test_complete_rows_give_the_plain_covariance() -> None:
    latents = sampled(50)
    model = GaussianConditional.of(latents, torch.ones(50, 3, dtype=torch.bool))
    x = torch.cat(list(latents.values()), dim=1)
    assert torch.allclose(model.mean, x.mean(0), atol=1e-5)
    assert torch.allclose(model.covariance, torch.cov(x.T, correction=0), atol=1e-4)


def test_em_recovers_a_known_gaussian_from_rows_that_miss_a_third() -> None:
    latents = sampled(6000)
    observed = torch.rand(6000, 3, generator=generator("mask")) > 1 / 3
    hidden = {
        name: value * observed[:, column : column + 1] for column, (name, value) in enumerate(latents.items())
    }
    model = GaussianConditional.of(hidden, observed, iterations=40, ridge=1e-4)
    mean, covariance = known_gaussian()
    assert torch.allclose(model.mean.double(), mean, atol=0.1)
    relative = (model.covariance - covariance).norm() / covariance.norm()
    assert float(relative) < 0.06
    assert torch.allclose(model.covariance, model.covariance.T, atol=1e-5)


def test_what_missing_slots_hold_is_never_read() -> None:
    latents = sampled(60)
    observed = torch.rand(60, 3, generator=generator("mask", 1)) > 0.4
    noisy = {
        name: torch.where(observed[:, column : column + 1], value, 99.0)
        for column, (name, value) in enumerate(latents.items())
    }
    first, second = GaussianConditional.of(latents, observed), GaussianConditional.of(noisy, observed)
    assert torch.allclose(first.covariance, second.covariance)
    for name in WIDTHS:
        assert torch.equal(
            first.conditional(name, latents, observed), first.conditional(name, noisy, observed)
        )


def test_a_row_alone_is_the_row_in_its_batch() -> None:
    model, latents = exact_model(), sampled(7)
    observed = torch.tensor(PATTERNS)
    for name in WIDTHS:
        together = model.conditional(name, latents, observed)
        for row in range(7):
            alone = model.conditional(
                name, {key: value[row : row + 1] for key, value in latents.items()}, observed[row : row + 1]
            )
            assert torch.allclose(alone[0], together[row], rtol=1e-4, atol=1e-5)


def test_a_strong_ridge_predicts_the_mean() -> None:
    model, latents = exact_model(), sampled(4)
    observed = torch.tensor([[True, True, False]] * 4)
    predicted = model.conditional("c", latents, observed, ridge=1e9)
    assert torch.allclose(predicted, model.mean[5:].expand(4, 1), atol=1e-4)


def test_solutions_are_not_kept_beyond_what_they_were_solved_for() -> None:
    """Neither new ridges nor a newly loaded covariance may meet old weights."""
    model, latents = exact_model(), sampled(4)
    observed = torch.tensor([[True, True, False]] * 4)
    before = model.conditional("c", latents, observed)
    model.ridges.fill_(5.0)
    assert torch.equal(
        model.conditional("c", latents, observed), model.conditional("c", latents, observed, ridge=5.0)
    )
    assert not torch.equal(before, model.conditional("c", latents, observed))
    model.load_state_dict(GaussianConditional(WIDTHS).state_dict())
    assert torch.equal(model.conditional("c", latents, observed), torch.zeros(4, 1))
