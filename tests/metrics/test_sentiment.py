import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from omg_graph.errors import DataError
from omg_graph.metrics.labels import sentiment_scores, sims_classes, sims_scores

sentiments = st.lists(
    st.tuples(st.integers(-6, 6).map(lambda half: half / 2), st.floats(-4, 4, width=32)),
    min_size=2,
    max_size=30,
)


def test_hand_worked_case():
    truth = [-2.0, -1.0, 0.0, 1.0, 3.0]
    value = [-1.6, 0.2, -0.4, 0.4, 3.7]
    scores = sentiment_scores(truth, value)
    # without the neutral one: - - + + against - + + +
    assert scores["acc2"] == pytest.approx(3 / 4)
    # F1 of negative 2*1/(2+1), of positive 2*2/(2+3), two truths each
    assert scores["f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    # non-negative: - - + + + against - + - + +
    assert scores["acc2_has0"] == pytest.approx(3 / 5)
    assert scores["f1_has0"] == pytest.approx((2 * (2 / 4) + 3 * (4 / 6)) / 5)
    # rounded: -2 -1 0 1 3 against -2 0 -0 0 3 (3.7 is clipped)
    assert scores["acc7"] == pytest.approx(3 / 5)
    assert scores["mae"] == pytest.approx((0.4 + 1.2 + 0.4 + 0.6 + 0.7) / 5)
    assert scores["corr"] == pytest.approx(np.corrcoef(truth, value)[0, 1])


@pytest.mark.parametrize(("value", "equal"), [(0.5, 1.0), (1.5, 0.0), (-0.5, 1.0)])
def test_acc7_takes_halves_to_the_even_number(value, equal):
    assert sentiment_scores([0.0, 0.0], [value, value])["acc7"] == equal


def test_f1_is_weighted_by_the_truth_and_not_by_the_prediction():
    # A model that always says "positive": swapped arguments would give 2/3 instead.
    scores = sentiment_scores([1.0, -1.0], [1.0, 1.0])
    assert scores["f1"] == pytest.approx(1 / 3)


def test_zero_is_no_positive_prediction():
    assert sentiment_scores([1.0, -1.0], [0.0, 0.0])["acc2"] == pytest.approx(1 / 2)
    assert sentiment_scores([1.0, -1.0], [0.0, 0.0])["acc2_has0"] == pytest.approx(1 / 2)
    assert sentiment_scores([0.0, 0.0], [0.0, 0.0])["acc2_has0"] == 1.0


def test_undefined_is_none_and_never_a_number():
    neutral = sentiment_scores([0.0, 0.0], [0.3, -0.4])
    assert neutral["acc2"] is None
    assert neutral["f1"] is None
    assert neutral["corr"] is None  # a constant truth
    assert sentiment_scores([1.0, 2.0], [0.1, 0.1])["corr"] is None
    assert all(value is None for value in sentiment_scores([np.nan], [1.0]).values())


def test_samples_without_a_label_change_nothing():
    with_gap = sentiment_scores([1.0, np.nan, -2.0, 0.0], [0.5, np.nan, 1.0, 0.2])
    assert with_gap == sentiment_scores([1.0, -2.0, 0.0], [0.5, 1.0, 0.2])


@pytest.mark.parametrize("value", [[1.0], [1.0, np.nan], [np.inf, 0.0]])
def test_a_prediction_for_every_label_is_asked_for(value):
    with pytest.raises(DataError, match="expected"):
        sentiment_scores([1.0, 2.0], value)


@given(sentiments)
def test_agrees_with_scikit_learn(pairs):
    truth, value = (np.array(part, np.float64) for part in zip(*pairs, strict=True))
    scores = sentiment_scores(truth, value)
    polar = truth != 0
    if polar.any():
        assert scores["acc2"] == pytest.approx(accuracy_score(truth[polar] > 0, value[polar] > 0))
        expected = f1_score(truth[polar] > 0, value[polar] > 0, average="weighted", zero_division=0)
        assert scores["f1"] == pytest.approx(expected)
    assert scores["acc2_has0"] == pytest.approx(accuracy_score(truth >= 0, value >= 0))
    expected = f1_score(truth >= 0, value >= 0, average="weighted", zero_division=0)
    assert scores["f1_has0"] == pytest.approx(expected)


@given(sentiments, st.randoms(use_true_random=False))
def test_order_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    for scores in (sentiment_scores, sims_scores):
        before = scores(*map(list, zip(*pairs, strict=True)))
        after = scores(*map(list, zip(*shuffled, strict=True)))
        assert {k: None if v is None else pytest.approx(v, abs=1e-9) for k, v in before.items()} == after


def test_sims_borders_belong_to_the_class_below():
    values = np.array([-1.0, -0.7, -0.69, -0.1, 0.0, 0.1, 0.11, 0.7, 0.71, 1.0])
    assert sims_classes(values, 2).tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1]
    assert sims_classes(values, 3).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert sims_classes(values, 5).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_sims_borders_hold_however_digits_were_kept():
    """MMSA compares in single precision, where 0.1 kept as a float32 is 0.1."""
    borders = np.array([-0.7, -0.1, 0.1, 0.7], np.float32).astype(np.float64)
    assert sims_classes(borders, 5).tolist() == [0, 1, 2, 3]
    assert sims_classes(borders, 3).tolist() == [0, 0, 1, 2]


def test_sims_hand_worked_case():
    truth = [-1.0, -0.4, 0.0, 0.2, 0.8]
    value = [-0.8, 0.05, -0.05, 0.6, 1.5]
    scores = sims_scores(truth, value)
    # two classes: 0 0 0 1 1 against 0 1 0 1 1
    assert scores["acc2"] == pytest.approx(4 / 5)
    assert scores["f1"] == pytest.approx((3 * (4 / 5) + 2 * (4 / 5)) / 5)
    # three: 0 0 1 2 2 against 0 1 1 2 2; five: 0 1 2 3 4 against 0 2 2 3 4
    assert scores["acc3"] == pytest.approx(4 / 5)
    assert scores["acc5"] == pytest.approx(4 / 5)
    # 1.5 counts as 1
    assert scores["mae"] == pytest.approx((0.2 + 0.45 + 0.05 + 0.4 + 0.2) / 5)
    assert scores["corr"] == pytest.approx(np.corrcoef(truth, np.clip(value, -1, 1))[0, 1])
