import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omg_graph.errors import DataError
from omg_graph.metrics.labels import calibration_scores, nearest_degrees


def test_hand_worked_case():
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]
    scores = calibration_scores([0, 1, 1, 1], probabilities)
    # confidence .9 is right half of the time, confidence .6 always
    assert scores["ece"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert scores["nll"] == pytest.approx(-np.log([0.9, 0.1, 0.6, 0.6]).mean())


def test_sure_and_right_costs_nothing_and_sure_and_wrong_is_finite():
    assert calibration_scores([1, 0], [[0.0, 1.0], [1.0, 0.0]]) == {"ece": 0.0, "nll": 0.0}
    wrong = calibration_scores([0], [[0.0, 1.0]])
    assert wrong["ece"] == 1.0
    assert wrong["nll"] == pytest.approx(27.6, abs=0.1)


def test_a_confidence_on_a_border_joins_the_bin_below():
    # 1/3 is the right border of bin 5 of 15; both samples share it.
    scores = calibration_scores([0, 1], [[1 / 3, 1 / 3, 1 / 3]] * 2)
    assert scores["ece"] == pytest.approx(abs(1 / 2 - 1 / 3))


@given(st.integers(0, 10_000))
def test_outcomes_drawn_from_the_probabilities_are_calibrated(seed):
    random = np.random.default_rng(seed)
    first = random.choice([0.55, 0.7, 0.85, 0.95], size=4000)
    truth = (random.random(4000) >= first).astype(int)
    scores = calibration_scores(truth, np.stack([first, 1 - first], axis=1))
    assert scores["ece"] < 0.05
    entropy = -(first * np.log(first) + (1 - first) * np.log(1 - first)).mean()
    assert scores["nll"] == pytest.approx(entropy, abs=0.05)


def test_samples_without_a_label_are_left_out():
    rows = [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]
    assert calibration_scores([0, np.nan, 0], rows) == calibration_scores([0, 0], [rows[0], rows[2]])
    assert calibration_scores([np.nan], rows[:1]) == {"ece": None, "nll": None}


@pytest.mark.parametrize(
    ("truth", "rows"),
    [
        ([0], [[0.5, 0.6]]),
        ([0], [[-0.5, 1.5]]),
        ([0], [[np.nan, 1.0]]),
        ([2], [[0.5, 0.5]]),
        ([0, 1], [[0.5, 0.5]]),
    ],
)
def test_anything_but_distributions_over_the_classes_is_refused(truth, rows):
    with pytest.raises(DataError, match="expected"):
        calibration_scores(truth, rows)


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20))
def test_seven_degrees_round_as_acc7_does(values):
    assert nearest_degrees(values, range(-3, 4)).tolist() == (np.round(values) + 3).tolist()


def test_degrees_in_other_units():
    degrees = [step / 3 for step in range(-3, 4)]
    assert nearest_degrees([-1.0, -0.2, 0.0, 0.6, 5.0], degrees).tolist() == [0, 2, 3, 5, 6]
    assert np.isnan(nearest_degrees([np.nan], degrees)).all()
