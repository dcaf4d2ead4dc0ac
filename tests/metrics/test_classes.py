import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from omg_graph.errors import DataError
from omg_graph.metrics.labels import class_scores, weighted_f1

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


def test_hand_worked_case():
    scores = class_scores([0, 0, 1, 2], [0, 1, 1, 0])
    assert scores["accuracy"] == pytest.approx(1 / 2)
    # F1 of the three classes: 2*1/(2+2), 2*1/(1+2), 0
    assert scores["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)


@given(pairs)
def test_agrees_with_scikit_learn(drawn):
    truth, label = (np.array(part) for part in zip(*drawn, strict=True))
    scores = class_scores(truth, label)
    assert scores["accuracy"] == pytest.approx(accuracy_score(truth, label))
    assert scores["macro_f1"] == pytest.approx(f1_score(truth, label, average="macro", zero_division=0))
    expected = f1_score(truth, label, average="weighted", zero_division=0)
    assert weighted_f1(truth, label) == pytest.approx(expected)


@given(pairs, st.permutations(range(5)))
def test_renaming_classes_changes_nothing(drawn, names):
    truth, label = map(list, zip(*drawn, strict=True))
    renamed = class_scores([names[i] for i in truth], [names[i] for i in label])
    assert renamed == pytest.approx(class_scores(truth, label))


def test_samples_without_a_label_are_left_out():
    assert class_scores([1.0, np.nan, 0.0], [1, 0, 1]) == class_scores([1, 0], [1, 1])
    assert class_scores([np.nan], [0]) == {"accuracy": None, "macro_f1": None}


@pytest.mark.parametrize(("truth", "label"), [([0, 1], [0, -1]), ([0, 1], [0, 0.5]), ([0, 1], [0])])
def test_anything_but_class_indexes_is_refused(truth, label):
    with pytest.raises(DataError, match="expected"):
        class_scores(truth, label)
