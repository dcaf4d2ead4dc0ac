"""Temperature and spread: exact where it can be checked, and never worse where they are fitted."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from omg_graph.predictor.calibration import COLDEST, HOTTEST, fit_spread, fit_temperature
from omg_graph.seeding import generator


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
