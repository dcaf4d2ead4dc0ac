import numpy as np
import pytest

from omg_graph.data.dataset import Labels
from omg_graph.errors import ConfigError, DataError
from omg_graph.metrics.labels import choose_family, score


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


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("mosi", {"acc2", "f1", "acc2_has0", "f1_has0", "acc7", "mae", "corr", "ece", "nll"}),
        ("sims", {"acc2", "f1", "acc3", "acc5", "mae", "corr", "ece", "nll"}),
        ("number", {"mae", "corr", "ece", "nll"}),
    ],
)
def test_names_of_numeric_families(family, names):
    scores = score(family, [-0.5, 0.5, np.nan], value=[-0.4, 0.1, 0.0])
    assert set(scores) == names
    assert scores["ece"] is None
    assert all(type(value) is float for name, value in scores.items() if name not in {"ece", "nll"})


def test_probabilities_over_degrees_are_scored_at_the_nearest_degree():
    scores = score(
        "mosi", [-2.8, 1.0], value=[-2.0, 1.0], probabilities=[[1.0, 0.0], [0.25, 0.75]], degrees=[-3.0, 1.0]
    )
    assert scores["nll"] == pytest.approx(-np.log(0.75) / 2)
    assert scores["ece"] == pytest.approx(0.25 / 2)


def test_classes_take_the_most_probable_label_unless_one_is_given():
    probabilities = [[0.2, 0.8], [0.6, 0.4]]
    assert score("classes", [1, 0], probabilities=probabilities)["accuracy"] == 1.0
    given = score("classes", [1, 0], label=[0, 0], probabilities=probabilities)
    assert set(given) == {"accuracy", "macro_f1", "ece", "nll"}
    assert given["accuracy"] == 0.5


def test_no_labels_no_scores():
    assert score("none", [np.nan]) == {}


def test_what_a_family_needs_is_named():
    with pytest.raises(ConfigError, match="give value"):
        score("mosi", [1.0])
    with pytest.raises(ConfigError, match="got neither"):
        score("classes", [1])
    with pytest.raises(ConfigError, match="give degrees"):
        score("mosi", [1.0], value=[1.0], probabilities=[[1.0]])
    with pytest.raises(DataError, match="a column for each"):
        score("mosi", [1.0], value=[1.0], probabilities=[[1.0]], degrees=[0.0, 1.0])
