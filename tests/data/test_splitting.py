"""Which split is read for what."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omg_graph.data.reader import DataFile, read_mapping
from omg_graph.data.splits import choose_split, training_splits
from omg_graph.errors import DataError


def rows(name: str, count: int, groups: int | None = None) -> dict[str, Any]:
    ids = [f"{name}{row % groups}$_${row}" if groups else f"{name}{row}" for row in range(count)]
    return {"id": ids, "x": np.arange(count * 2.0).reshape(count, 2) + 1, "label": np.arange(count) / 7}


def data(**splits: Any) -> DataFile:
    return read_mapping(splits, source="memory")


def test_a_split_is_chosen() -> None:
    a, b, c = rows("a", 3), rows("b", 3), rows("c", 3)
    assert choose_split(data(train=a, valid=b, test=c), None)[0].name == "test"
    assert choose_split(data(train=a, valid=b), None)[0].name == "valid"
    assert choose_split(data(train=a), None)[0].name == "train"
    assert choose_split(data(**a), None)[0].name == "data"
    split, note = choose_split(data(train=a, valid=b), "train")
    assert split.name == "train"
    assert "train" in note
    with pytest.raises(DataError, match=r"train, valid.*'test'"):
        choose_split(data(train=a, valid=b), "test")
    with pytest.raises(DataError, match="--split"):
        choose_split(data(train=a, other=b), None)


def test_valid_is_used_where_it_is_and_test_is_not() -> None:
    train, valid, note = training_splits(data(train=rows("a", 5), valid=rows("b", 3), test=rows("c", 4)), 0)
    assert (train.ids, len(valid)) == (tuple(f"a{i}" for i in range(5)), 3)
    assert "test" not in note


def test_a_tenth_is_held_out_by_group() -> None:
    file = data(train=rows("a", 60, groups=12), test=rows("c", 4))
    train, valid, note = training_splits(file, 3)
    assert "by group" in note
    assert not set(train.groups) & set(valid.groups)
    assert sorted(train.ids + valid.ids) == sorted(file.splits["train"].ids)
    assert 6 <= len(valid) <= 10
    assert training_splits(file, 3)[1].ids == valid.ids
    assert any(training_splits(file, seed)[1].ids != valid.ids for seed in range(4, 8))


def test_who_is_held_out_does_not_depend_on_the_order() -> None:
    content = rows("a", 40)
    _, valid, _ = training_splits(data(**content), 1)
    turned = {name: value[::-1] for name, value in content.items()}
    assert set(training_splits(data(**turned), 1)[1].ids) == set(valid.ids)


def test_one_group_is_held_out_by_rows() -> None:
    train, valid, note = training_splits(data(train=rows("a", 20, groups=1)), 0)
    assert (len(train), len(valid)) == (18, 2)
    assert "only one group" in note


def test_any_single_split_but_test_is_trained_on() -> None:
    for content in ({"mine": rows("a", 10)}, {"valid": rows("a", 10)}, rows("a", 10)):
        train, valid, _ = training_splits(data(**content), 0)
        assert (len(train), len(valid)) == (9, 1)
    for splits in ({"test": rows("a", 10)}, {"valid": rows("a", 10), "test": rows("b", 10)}):
        with pytest.raises(DataError, match="'train' was expected"):
            training_splits(data(**splits), 0)


def test_one_sample_is_not_enough() -> None:
    with pytest.raises(DataError, match="at least two"):
        training_splits(data(id="a", x=[1.0, 2.0]), 0)


def test_rows_and_modalities_that_are_never_there_are_left_out() -> None:
    train = rows("a", 4)
    train["x"][1] = np.nan
    train["y"] = np.full((4, 3), np.nan)
    valid = {"id": ["v", "w"], "y": np.ones((2, 3)), "x": [None, [1.0, 2.0]]}
    fitted, chosen, note = training_splits(data(train=train, valid=valid), 0)
    assert fitted.names == chosen.names == ("x",)
    assert fitted.ids == ("a0", "a2", "a3")
    assert chosen.ids == ("w",)
    assert "left out" in note
    with pytest.raises(DataError, match="nothing is observed"):
        training_splits(data(train={"id": ["a", "b"], "y": np.full((2, 3), np.nan)}), 0)


def test_what_is_left_out_is_told() -> None:
    train = rows("a", 20) | {"z": np.full((20, 3), np.nan)}
    fitted, chosen, note = training_splits(data(train=train, val=rows("b", 3)), 0)
    assert "not read: val; a split to choose on is called 'valid'" in note
    assert "z left out: no row of 'train' has it" in note
    assert fitted.names == chosen.names == ("x",)


def test_names_that_results_have_no_place_for_are_refused() -> None:
    with pytest.raises(DataError, match="x_std"):
        training_splits(data(train=rows("a", 20) | {"x_std": np.ones((20, 2))}), 0)
