import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from omg_graph.metrics.labels import number_scores, pearson

finite = st.floats(-1e6, 1e6)


def test_hand_worked_case():
    scores = number_scores([0.0, 1.0, 2.0], [1.0, 1.0, 4.0])
    assert scores["mae"] == pytest.approx(1.0)
    assert scores["corr"] == pytest.approx(np.sqrt(3) / 2)


def test_correlation_with_a_constant_or_of_one_sample_is_undefined():
    assert pearson(np.array([1.0, 2.0, 3.0]), np.full(3, 0.1)) is None
    assert pearson(np.array([1.0]), np.array([2.0])) is None
    assert number_scores([], []) == {"mae": None, "corr": None}


def test_tiny_deviations_still_correlate():
    values = np.array([0.0, 1e-200, 2e-200])
    assert pearson(values, values) == pytest.approx(1.0)


@given(arrays(np.float64, (2, 9), elements=finite), st.floats(0.1, 10), finite)
def test_correlation_ignores_scale_and_shift(pair, scale, shift):
    assume(np.ptp(pair, axis=1).min() > 1.0)
    truth, value = pair
    moved = pearson(truth, scale * value + shift)
    assert moved == pytest.approx(pearson(truth, value), abs=1e-6)
    assert -1.0 <= moved <= 1.0
    assert pearson(truth, -value) == pytest.approx(-pearson(truth, value), abs=1e-9)
