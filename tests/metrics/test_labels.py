"""Label metrics by hand, beside scikit-learn's, and what every one of them must do."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import accuracy_score, f1_score

from omg_graph.data.dataset import Labels
from omg_graph.errors import ConfigError, DataError
from omg_graph.metrics.labels import choose_family, nearest_degrees, score

sentiments = st.lists(
    st.tuples(st.integers(-6, 6).map(lambda half: half / 2), st.floats(-4, 4, width=32)),
    min_size=2,
    max_size=30,
)
classes = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)
UNKNOWN = {"ece": None, "nll": None}


def mosi(truth, value):
    return score("mosi", truth, value=value)


def test_mosi_by_hand():
    truth = [-2.0, -1.0, 0.0, 1.0, 3.0]
    value = [-1.6, 0.2, -0.4, 0.4, 3.7]
    scores = mosi(truth, value)
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


def test_sims_by_hand():
    truth = [-1.0, -0.4, 0.0, 0.2, 0.8]
    value = [-0.8, 0.05, -0.05, 0.6, 1.5]
    scores = score("sims", truth, value=value)
    # two classes: 0 0 0 1 1 against 0 1 0 1 1
    assert scores["acc2"] == pytest.approx(4 / 5)
    assert scores["f1"] == pytest.approx((3 * (4 / 5) + 2 * (4 / 5)) / 5)
    # three: 0 0 1 2 2 against 0 1 1 2 2; five: 0 1 2 3 4 against 0 2 2 3 4
    assert scores["acc3"] == pytest.approx(4 / 5)
    assert scores["acc5"] == pytest.approx(4 / 5)
    # 1.5 counts as 1
    assert scores["mae"] == pytest.approx((0.2 + 0.45 + 0.05 + 0.4 + 0.2) / 5)
    assert scores["corr"] == pytest.approx(np.corrcoef(truth, np.clip(value, -1, 1))[0, 1])


def test_classes_by_hand():
    scores = score("classes", [0, 0, 1, 2], label=[0, 1, 1, 0])
    assert scores["accuracy"] == pytest.approx(1 / 2)
    # F1 of the three classes: 2*1/(2+2), 2*1/(1+2), 0
    assert scores["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


def test_calibration_by_hand():
    probabilities = [[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.4, 0.6]]
    scores = score("classes", [0, 1, 1, 1], probabilities=probabilities)
    # confidence .9 is right half of the time, confidence .6 always
    assert scores["ece"] == pytest.approx(0.5 * 0.4 + 0.5 * 0.4)
    assert scores["nll"] == pytest.approx(-np.log([0.9, 0.1, 0.6, 0.6]).mean())


@given(sentiments)
def test_mosi_agrees_with_scikit_learn(pairs):
    truth, value = (np.array(part, np.float64) for part in zip(*pairs, strict=True))
    scores, polar = mosi(truth, value), truth != 0
    sides = {"f1_has0": (truth >= 0, value >= 0), "f1": (truth[polar] > 0, value[polar] > 0)}
    for name, (positive, predicted) in sides.items():
        if len(positive):
            expected = f1_score(positive, predicted, average="weighted", zero_division=0)
            assert scores[name] == pytest.approx(expected)
            assert scores[name.replace("f1", "acc2")] == pytest.approx(accuracy_score(positive, predicted))


@given(classes)
def test_classes_agree_with_scikit_learn(drawn):
    truth, label = (np.array(part) for part in zip(*drawn, strict=True))
    scores = score("classes", truth, label=label)
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, label))
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, label, average="macro", zero_division=0))


@given(classes, st.permutations(range(5)))
def test_renaming_classes_changes_nothing(drawn, names):
    truth, label = map(list, zip(*drawn, strict=True))
    renamed = score("classes", [names[i] for i in truth], label=[names[i] for i in label]) | UNKNOWN
    expected = score("classes", truth, label=label)
    assert {k: v if v is None else pytest.approx(v) for k, v in expected.items()} == renamed


@given(sentiments, st.randoms(use_true_random=False))
def test_order_does_not_matter(pairs, random):
    shuffled = list(pairs)
    random.shuffle(shuffled)
    for family in ("mosi", "sims"):
        (truth, value), (other_truth, other_value) = (zip(*part, strict=True) for part in (pairs, shuffled))
        before, after = score(family, truth, value=value), score(family, other_truth, value=other_value)
        assert {k: None if v is None else pytest.approx(v, abs=1e-9) for k, v in before.items()} == after


@given(arrays(np.float64, (2, 9), elements=st.floats(-1e6, 1e6)), st.floats(0.1, 10), st.floats(-1e6, 1e6))
def test_correlation_ignores_scale_and_shift(pair, scale, shift):
    assume(np.ptp(pair, axis=1).min() > 1.0)
    truth, value = pair
    plain, moved, turned = (
        score("number", truth, value=v)["corr"] for v in (value, scale * value + shift, -value)
    )
    assert moved == pytest.approx(plain, abs=1e-6)
    assert -1.0 <= moved <= 1.0
    assert turned == pytest.approx(-plain, abs=1e-9)


def test_tiny_deviations_still_correlate():
    values = np.array([0.0, 1e-200, 2e-200])
    assert score("number", values, value=values)["corr"] == pytest.approx(1.0)


@given(st.integers(0, 10_000))
def test_outcomes_drawn_from_the_probabilities_are_calibrated(seed):
    random = np.random.default_rng(seed)
    first = random.choice([0.55, 0.7, 0.85, 0.95], size=4000)
    truth = (random.random(4000) >= first).astype(int)
    scores = score("classes", truth, probabilities=np.stack([first, 1 - first], axis=1))
    assert scores["ece"] < 0.05
    entropy = -(first * np.log(first) + (1 - first) * np.log(1 - first)).mean()
    assert scores["nll"] == pytest.approx(entropy, abs=0.05)


def test_sure_and_right_costs_nothing_and_sure_and_wrong_is_finite():
    right = score("classes", [1, 0], probabilities=[[0.0, 1.0], [1.0, 0.0]])
    assert (right["ece"], right["nll"]) == (0.0, 0.0)
    wrong = score("classes", [0], probabilities=[[0.0, 1.0]])
    assert wrong["ece"] == 1.0
    assert wrong["nll"] == pytest.approx(27.6, abs=0.1)


def test_a_confidence_on_a_border_joins_the_bin_below():
    # 2/3 is the right border of bin 10 of 15: it shares the bin of .65, and two misses there add up
    scores = score("classes", [0, 1], probabilities=[[2 / 3, 1 / 3], [0.65, 0.35]])
    assert scores["ece"] == pytest.approx(abs(1 / 3 - 0.65) / 2)


@pytest.mark.parametrize(("value", "equal"), [(0.5, 1.0), (1.5, 0.0), (-0.5, 1.0)])
def test_acc7_takes_halves_to_the_even_number(value, equal):
    assert mosi([0.0, 0.0], [value, value])["acc7"] == equal


def test_f1_is_weighted_by_the_truth_and_not_by_the_prediction():
    # A model that always says "positive": swapped arguments would give 2/3 instead.
    assert mosi([1.0, -1.0], [1.0, 1.0])["f1"] == pytest.approx(1 / 3)


def test_zero_is_no_positive_prediction():
    assert mosi([1.0, -1.0], [0.0, 0.0])["acc2"] == pytest.approx(1 / 2)
    assert mosi([1.0, -1.0], [0.0, 0.0])["acc2_has0"] == pytest.approx(1 / 2)
    assert mosi([0.0, 0.0], [0.0, 0.0])["acc2_has0"] == 1.0


def test_sims_borders_belong_to_the_class_below():
    """In single precision, where 0.1 kept as a float32 is 0.1."""
    borders = {
        "acc3": [(-0.1, -1.0), (0.1, 0.0)],
        "acc5": [(-0.7, -1.0), (-0.1, -0.5), (0.1, 0.0), (0.7, 0.5)],
    }
    for metric, pairs in borders.items():
        for border, below in pairs:
            for kept in (border, float(np.float32(border))):
                assert score("sims", [below], value=[kept])[metric] == 1.0
                assert score("sims", [below], value=[kept + 0.01])[metric] == 0.0
    assert score("sims", [-1.0], value=[0.0])["acc2"] == 1.0


def test_undefined_is_none_and_never_a_number():
    neutral = mosi([0.0, 0.0], [0.3, -0.4])
    assert neutral["acc2"] is neutral["f1"] is None
    assert neutral["corr"] is None  # a constant truth
    assert mosi([1.0, 2.0, 3.0], [0.1, 0.1, 0.1])["corr"] is None
    assert mosi([1.0], [2.0])["corr"] is None
    assert all(value is None for value in mosi([np.nan], [1.0]).values())
    assert score("number", [], value=[]) == {"mae": None, "corr": None} | UNKNOWN
    assert score("classes", [np.nan], label=[0]) == {"accuracy": None, "macro_f1": None} | UNKNOWN
    assert score("none", [np.nan]) == {}


def test_samples_without_a_label_change_nothing():
    assert mosi([1.0, np.nan, -2.0, 0.0], [0.5, np.nan, 1.0, 0.2]) == mosi([1.0, -2.0, 0.0], [0.5, 1.0, 0.2])
    rows = [[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]
    with_gap = score("classes", [0, np.nan, 0], probabilities=rows)
    assert with_gap == score("classes", [0, 0], probabilities=[rows[0], rows[2]])


@pytest.mark.parametrize(
    ("family", "truth", "predictions"),
    [
        ("mosi", [1.0, 2.0], {"value": [1.0]}),
        ("mosi", [1.0, 2.0], {"value": [1.0, np.nan]}),
        ("number", [1.0, 2.0], {"value": [np.inf, 0.0]}),
        ("classes", [0, 1], {"label": [0, -1]}),
        ("classes", [0, 1], {"label": [0, 0.5]}),
        ("classes", [0], {"probabilities": [[0.5, 0.6]]}),
        ("classes", [0], {"probabilities": [[-0.5, 1.5]]}),
        ("classes", [0], {"probabilities": [[np.nan, 1.0]]}),
        ("classes", [2], {"probabilities": [[0.5, 0.5]]}),
        ("classes", [0, 1], {"probabilities": [[0.5, 0.5]]}),
        ("mosi", [1.0], {"value": [1.0], "probabilities": [[1.0]], "degrees": [0.0, 1.0]}),
    ],
)
def test_predictions_that_do_not_fit_are_refused(family, truth, predictions):
    with pytest.raises(DataError, match="expected"):
        score(family, truth, **predictions)


@pytest.mark.parametrize(
    ("family", "given"),
    [("mosi", {}), ("classes", {}), ("mosi", {"value": [1.0], "probabilities": [[1.0]]})],
)
def test_what_a_family_needs_is_named(family, given):
    with pytest.raises(ConfigError, match="give"):
        score(family, [1.0], **given)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("mosi", {"acc2", "f1", "acc2_has0", "f1_has0", "acc7", "mae", "corr"}),
        ("sims", {"acc2", "f1", "acc3", "acc5", "mae", "corr"}),
        ("number", {"mae", "corr"}),
    ],
)
def test_names_of_numeric_families(family, names):
    scores = score(family, [-0.5, 0.5, np.nan], value=[-0.4, 0.1, 0.0])
    assert scores.keys() == names | UNKNOWN.keys()
    assert scores["ece"] is None
    assert all(type(scores[name]) is float for name in names)


def test_probabilities_over_degrees_are_scored_at_the_nearest_degree():
    scores = score(
        "mosi", [-2.8, 1.0], value=[-2.0, 1.0], probabilities=[[1.0, 0.0], [0.25, 0.75]], degrees=[-3.0, 1.0]
    )
    assert scores["nll"] == pytest.approx(-np.log(0.75) / 2)
    assert scores["ece"] == pytest.approx(0.25 / 2)


def test_classes_take_the_most_probable_label_unless_one_is_given():
    probabilities = [[0.2, 0.8], [0.6, 0.4]]
    assert score("classes", [1, 0], probabilities=probabilities)["accuracy"] == 1.0
    assert score("classes", [1, 0], label=[0, 0], probabilities=probabilities)["accuracy"] == 0.5


@given(st.lists(st.floats(-3, 3), min_size=1, max_size=20))
def test_seven_degrees_round_as_acc7_does(values):
    assert nearest_degrees(values, range(-3, 4)).tolist() == (np.round(values) + 3).tolist()


def test_degrees_in_other_units():
    degrees = [step / 3 for step in range(-3, 4)]
    assert nearest_degrees([-1.0, -0.2, 0.0, 0.6, 5.0], degrees).tolist() == [0, 2, 3, 5, 6]
    assert np.isnan(nearest_degrees([np.nan], degrees)).all()


def numbers(*values):
    return Labels("regression_labels", "regression", np.array(values, np.float64))


CLASSES = Labels("classification_labels", "classes", np.array([0.0, 1.0, np.nan]), ("0", "1"))


@pytest.mark.parametrize(
    ("labels", "family"),
    [
        (numbers(-2.4, 0.0, 3.0), "mosi"),
        (numbers(-1.0, 0.2, np.nan), "sims"),
        (numbers(-40.0, 3.0), "number"),
        (numbers(0.2, 0.9), "number"),
        (numbers(np.nan, np.nan), "none"),
        (CLASSES, "classes"),
        (None, "none"),
    ],
)
def test_family_by_kind_and_range(labels, family):
    assert choose_family(labels) == family


def test_a_family_that_is_asked_for_wins_if_it_fits_the_labels():
    assert choose_family(numbers(-1.0, 1.0), "mosi") == "mosi"
    for labels, family in ((numbers(-1.0, 1.0), "classes"), (CLASSES, "mosi"), (CLASSES, "acc2")):
        with pytest.raises(ConfigError, match="expected"):
            choose_family(labels, family)
