"""What is read of labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omg_graph.data.reader import read_mapping
from omg_graph.errors import DataError

NAN = float("nan")


def only(content: Any, **options: Any) -> Any:
    (split,) = read_mapping(content, source="memory", **options).splits.values()
    return split


def rows(**fields: Any) -> dict[str, Any]:
    return {"id": ["a$_$1", "a$_$2", "b"], "text": np.ones((3, 2)), **fields}


def test_labels_of_one_modality_alone() -> None:
    """CH-SIMS in MMSA's layout; they are labels, and go with their modality."""
    content = {
        "id": ["a", "b"],
        "text": np.ones((2, 3)),
        "audio": np.ones((2, 2)),
        "vision": np.ones((2, 2)),
        "regression_labels": np.array([0.4, -0.2]),
        "regression_labels_T": np.array([0.6, -1.0]),
        "regression_labels_A": [0, None],
        "regression_labels_V": np.array([-0.2, 0.8]),
    }
    data = read_mapping({"train": content}, source="test")
    split = data.splits["train"]
    assert split.labels is not None
    assert split.labels.name == "regression_labels"
    assert split.names == ("text", "audio", "vision")
    assert split.unimodal["text"].tolist() == [0.6, -1.0]
    assert split.unimodal["vision"].tolist() == [-0.2, 0.8]
    np.testing.assert_array_equal(split.unimodal["audio"], [0.0, np.nan])
    assert split.take([1]).unimodal["text"].tolist() == [-1.0]
    assert split.without_labels().unimodal == {}
    assert read_mapping({"train": content}, source="t", with_labels=False).splits["train"].unimodal == {}


@pytest.mark.parametrize(
    ("name", "values", "kind", "names", "expected"),
    [
        ("label", [0.5, NAN, -1.0], "regression", (), [0.5, NAN, -1.0]),
        ("label", [10, 9, None], "classes", ("9", "10"), [1, 0, NAN]),
        ("label", np.array([-1, 1, -1]), "classes", ("-1", "1"), [0, 1, 0]),
        ("label", ["sad", "happy", None], "classes", ("happy", "sad"), [1, 0, NAN]),
        ("label", np.array(["b", "a", "b"]), "classes", ("a", "b"), [1, 0, 1]),
        ("regression_labels", np.array([1, 2, 3]), "regression", (), [1, 2, 3]),
        ("classification_labels", np.array([2.0, 0.0, NAN]), "classes", ("0", "2"), [1, 0, NAN]),
        ("my_label", np.array([[1.5], [2.0], [0.0]]), "regression", (), [1.5, 2.0, 0.0]),
    ],
)
def test_labels(name: str, values: Any, kind: str, names: tuple[str, ...], expected: list[float]) -> None:
    labels = only(rows(**{name: values})).labels
    assert (labels.name, labels.kind, labels.class_names) == (name, kind, names)
    np.testing.assert_array_equal(labels.values, expected)


def test_splits_share_their_class_names() -> None:
    train = {"id": ["a", "b"], "x": np.ones((2, 1)), "label": [3, 1]}
    test = {"id": ["c", "d"], "x": np.ones((2, 1)), "label": [2, 3]}
    splits = read_mapping({"train": train, "test": test}, source="memory").splits
    assert splits["train"].labels is not None
    assert splits["test"].labels is not None
    assert splits["train"].labels.class_names == splits["test"].labels.class_names == ("1", "2", "3")
    assert splits["test"].labels.values.tolist() == [1, 2]


def test_which_label() -> None:
    both = rows(classification_labels=[0, 1, 2], regression_labels=[0.0, 1.0, 2.0], label_T=[1.0, 2.0, 3.0])
    assert only(both).labels.name == "regression_labels"
    assert only(both, label="label_T").labels.name == "label_T"
    assert only(both, with_labels=False).labels is None
    assert only(rows()).labels is None
    assert only(rows(mood=["x", "y", "x"]), label="mood").labels.class_names == ("x", "y")
    two = rows(label_A=[1, 2, 3], label_T=[1, 2, 3])
    with pytest.raises(DataError, match=r"--label.*label_A, label_T"):
        read_mapping(two, source="memory")
    assert only(two, with_labels=False).names == ("text",)
    with pytest.raises(DataError, match="label_V"):
        read_mapping(two, source="memory", label="label_V")


@pytest.mark.parametrize(
    "values", [[1, 2], ["x", "y", []], [float("inf"), 1.0, 2.0], {"a": 1}, np.ones((3, 2))]
)
def test_bad_labels(values: Any) -> None:
    with pytest.raises(DataError, match="label"):
        only(rows(label=values))
    with pytest.raises(DataError, match="expected numbers"):
        only(rows(regression_labels=["x", "y", "z"]))


def test_labels_beyond_single_precision() -> None:
    with pytest.raises(DataError, match="rescale"):
        read_mapping({"id": ["a"], "x": np.ones((1, 2)), "regression_labels": [1e300]}, source="memory")
