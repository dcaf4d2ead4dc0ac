"""Splits put together: rows in order, what one lacks missing, sequences as long as the longest."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from omg_graph.data.dataset import Split
from omg_graph.data.reader import read_data_file
from omg_graph.data.splits import choose_split, pooled
from omg_graph.errors import DataError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    frames = np.arange(24.0).reshape(2, 4, 3)
    frames[1, 1] = np.nan  # a lost frame
    content = {
        "train": {
            "id": ["a$_$1", "b"],
            "text": np.ones((2, 2)),
            "steps": frames,
            "raw_text": ["one", "two"],
            "labels": ["x", "y"],
        },
        "valid": {"id": ["c"], "steps": np.ones((1, 2, 3)), "extra": np.ones((1, 1)), "labels": ["y"]},
        "test": {"id": ["d"], "text": np.zeros((1, 2))},
    }
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def test_rows_of_all_splits(path: Path) -> None:
    rows, note = choose_split(read_data_file(path), "all")
    assert rows.ids == ("a$_$1", "b", "c", "d")
    assert rows.groups == ("a", "b", "c", "d")
    assert "train, valid, test" in note
    assert rows.observed["text"].tolist() == [True, True, False, True]
    assert rows.observed["extra"].tolist() == [False, False, True, False]
    assert rows.arrays["steps"].shape == (4, 4, 3)
    assert rows.lengths["steps"].tolist() == [4, 4, 2, 0]
    assert rows.lost["steps"].sum(axis=1).tolist() == [0, 1, 0, 0]
    assert not rows.arrays["steps"][2, 2:].any()
    assert rows.raw_text == ("one", "two", None, None)
    assert rows.labels is not None
    assert rows.labels.class_names == ("x", "y")
    assert rows.labels.values[:3].tolist() == [0, 1, 1]
    assert np.isnan(rows.labels.values[3])


def test_every_field_comes_along(path: Path) -> None:
    """What a split holds more than these has to be pooled too."""
    assert {field.name for field in fields(Split)} == {
        *("name", "ids", "groups", "modalities", "arrays", "observed", "lengths", "lost", "unimodal"),
        *("raw_text", "recordings", "labels"),
    }
    splits = read_data_file(path).splits
    alone = replace(splits["train"], unimodal={"text": np.array([1.0, -1.0])})
    rows = pooled([alone, splits["valid"]], "data.pkl")
    assert rows.unimodal["text"][:2].tolist() == [1.0, -1.0]
    assert np.isnan(rows.unimodal["text"][2])


def test_one_split_is_itself(path: Path) -> None:
    (train, *_) = read_data_file(path).splits.values()
    rows = pooled([train], "data.pkl")
    assert (rows.name, rows.ids) == ("all", train.ids)
    assert rows.arrays["steps"] is train.arrays["steps"]


def test_ids_that_come_twice_are_refused(path: Path) -> None:
    splits = read_data_file(path).splits
    with pytest.raises(DataError, match=r"'c' comes in 2"):
        pooled([splits["valid"], splits["valid"]], "data.pkl")


def test_shapes_that_differ_are_refused(tmp_path: Path) -> None:
    content = {
        "train": {"text": np.ones((2, 2)), "id": [1, 2]},
        "valid": {"text": np.ones((1, 3)), "id": [3]},
    }
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="2 numbers a sample were expected, 3 came"):
        choose_split(read_data_file(path), "all")


def test_a_split_called_all_is_that_split(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps({"all": {"text": np.ones((2, 2))}, "test": {"text": np.ones((1, 2))}}))
    assert len(choose_split(read_data_file(path), "all")[0]) == 2
