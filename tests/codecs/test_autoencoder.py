from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_graph.codecs.autoencoder import AutoencoderSettings, PrincipalComponents, VariationalAutoencoder
from omg_graph.seeding import generator


def toy(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    source = generator("pca", seed, rows, columns)
    x = torch.randn(rows, columns, generator=source) * torch.linspace(2.0, 0.1, columns)
    return x - x.mean(0)


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 30), st.integers(2, 30), st.integers(1, 12), st.integers(0, 9))
def test_decoding_loses_exactly_what_was_left_out(rows: int, columns: int, width: int, seed: int) -> None:
    """The lost sum of squares is the tail of the eigenvalues, wide or tall."""
    x = toy(rows, columns, seed)
    model = PrincipalComponents.fit(x, variance=1.0, max_width=width)
    eigenvalues = torch.linalg.svdvals(x.double()).square()
    lost = (model.decode(model.encode(x)) - x).square().sum()
    total = float(eigenvalues.sum())
    assert float(lost) == pytest.approx(float(eigenvalues[model.width :].sum()), abs=1e-5 * total)
    assert torch.allclose(model.components.T @ model.components, torch.eye(model.width), atol=1e-5)


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99])
def test_no_more_components_than_the_variance_asks_for(variance: float) -> None:
    x = toy(60, 10)
    model = PrincipalComponents.fit(x, variance=variance)
    share = torch.linalg.svdvals(x.double()).square().cumsum(0)
    share = share / share[-1]
    assert float(share[model.width - 1]) >= variance
    assert model.width == 1 or float(share[model.width - 2]) < variance


def test_wide_and_tall_agree() -> None:
    """Repeating the rows makes a tall table of a wide one, with the same components."""
    x = toy(6, 12)
    wide, tall = PrincipalComponents.fit(x), PrincipalComponents.fit(x.repeat(4, 1))
    assert wide.width == tall.width <= 6
    assert torch.allclose(wide.components, tall.components, atol=1e-5)


def test_the_same_data_give_the_same_components() -> None:
    x = toy(20, 7)
    first, second = PrincipalComponents.fit(x), PrincipalComponents.fit(x.clone())
    assert torch.equal(first.components, second.components)


@pytest.mark.parametrize("shape", [(8, 3), (3, 8)])
def test_features_that_never_vary_have_one_empty_latent(shape: tuple[int, int]) -> None:
    model = PrincipalComponents.fit(torch.zeros(shape))
    assert model.width == 1
    assert not model.decode(model.encode(torch.zeros(shape))).any()


def test_the_vae_learns_toy_data() -> None:
    """A line in five dimensions fits through a latent of one."""
    source = generator("vae")
    x = torch.randn(64, 1, generator=source) * torch.tensor([1.0, -1.0, 0.5, 2.0, 0.0])
    sizes = AutoencoderSettings(kind="vae", max_width=1, epochs=150)
    model = VariationalAutoencoder.fit(x, sizes, 0, "line")
    error = (model.decode(model.encode(x)) - x).square().mean()
    assert error.item() < 0.2 * float(x.square().mean())


def test_the_divergence_is_that_from_the_standard_normal() -> None:
    """With posterior N(0, 1) for every row it is zero: only the squared error is left."""
    model = VariationalAutoencoder(3, 2, hidden=4)
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.ones(5, 3)
    assert model.loss(x, torch.zeros(5, 2), weight=100.0).item() == pytest.approx(1.0)
    with torch.no_grad():
        model.encoder[2].bias[0] = 3.0  # a mean of 3 in one latent: KL = 9 / 2
    assert model.loss(x, torch.zeros(5, 2), weight=2.0).item() == pytest.approx(1.0 + 2.0 * 4.5 / 3)
