"""Which rows are used, made to fit a model, hidden, or put together."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.data.dataset import ModalityKind, ModalitySpec, Split
from omg_graph.data.reader import DataFile, read_data_file, read_mapping
from omg_graph.data.splits import choose_split, conform, hide_modalities, pooled, training_splits
from omg_graph.errors import DataError


def rows(name: str, count: int, groups: int | None = None) -> dict[str, Any]:
    ids = [f"{name}{row % groups}$_${row}" if groups else f"{name}{row}" for row in range(count)]
    return {"id": ids, "x": np.arange(count * 2.0).reshape(count, 2) + 1, "label": np.arange(count) / 7}


def file_of(**splits: Any) -> DataFile:
    return read_mapping(splits, source="memory")


def test_a_split_is_chosen() -> None:
    a, b, c = rows("a", 3), rows("b", 3), rows("c", 3)
    assert choose_split(file_of(train=a, valid=b, test=c), None)[0].name == "test"
    assert choose_split(file_of(train=a, valid=b), None)[0].name == "valid"
    assert choose_split(file_of(train=a), None)[0].name == "train"
    assert choose_split(file_of(**a), None)[0].name == "data"
    split, note = choose_split(file_of(train=a, valid=b), "train")
    assert split.name == "train"
    assert "train" in note
    with pytest.raises(DataError, match=r"train, valid.*'test'"):
        choose_split(file_of(train=a, valid=b), "test")
    with pytest.raises(DataError, match="--split"):
        choose_split(file_of(train=a, other=b), None)


def test_valid_is_used_where_it_is_and_test_is_not() -> None:
    train, valid, note = training_splits(
        file_of(train=rows("a", 5), valid=rows("b", 3), test=rows("c", 4)), 0
    )
    assert (train.ids, len(valid)) == (tuple(f"a{i}" for i in range(5)), 3)
    assert "test" not in note


def test_a_tenth_is_held_out_by_group() -> None:
    file = file_of(train=rows("a", 60, groups=12), test=rows("c", 4))
    train, valid, note = training_splits(file, 3)
    assert "by group" in note
    assert not set(train.groups) & set(valid.groups)
    assert sorted(train.ids + valid.ids) == sorted(file.splits["train"].ids)
    assert 6 <= len(valid) <= 10
    assert training_splits(file, 3)[1].ids == valid.ids
    assert any(training_splits(file, seed)[1].ids != valid.ids for seed in range(4, 8))


def test_who_is_held_out_does_not_depend_on_the_order() -> None:
    content = rows("a", 40)
    _, valid, _ = training_splits(file_of(**content), 1)
    turned = {name: value[::-1] for name, value in content.items()}
    assert set(training_splits(file_of(**turned), 1)[1].ids) == set(valid.ids)


def test_one_group_is_held_out_by_rows() -> None:
    train, valid, note = training_splits(file_of(train=rows("a", 20, groups=1)), 0)
    assert (len(train), len(valid)) == (18, 2)
    assert "only one group" in note


def test_any_single_split_but_test_is_trained_on() -> None:
    for content in ({"mine": rows("a", 10)}, {"valid": rows("a", 10)}, rows("a", 10)):
        train, valid, _ = training_splits(file_of(**content), 0)
        assert (len(train), len(valid)) == (9, 1)
    for splits in ({"test": rows("a", 10)}, {"valid": rows("a", 10), "test": rows("b", 10)}):
        with pytest.raises(DataError, match="expected a split 'train'"):
            training_splits(file_of(**splits), 0)


def test_one_sample_is_not_enough() -> None:
    with pytest.raises(DataError, match="at least two"):
        training_splits(file_of(id="a", x=[1.0, 2.0]), 0)


def test_rows_and_modalities_that_are_never_there_are_left_out() -> None:
    train = rows("a", 4)
    train["x"][1] = np.nan
    train["y"] = np.full((4, 3), np.nan)
    valid = {"id": ["v", "w"], "y": np.ones((2, 3)), "x": [None, [1.0, 2.0]]}
    fitted, chosen, note = training_splits(file_of(train=train, valid=valid), 0)
    assert fitted.names == chosen.names == ("x",)
    assert fitted.ids == ("a0", "a2", "a3")
    assert chosen.ids == ("w",)
    assert "left out" in note
    with pytest.raises(DataError, match="nothing is observed"):
        training_splits(file_of(train={"id": ["a", "b"], "y": np.full((2, 3), np.nan)}), 0)


def test_what_is_left_out_is_told() -> None:
    train = rows("a", 20) | {"z": np.full((20, 3), np.nan)}
    fitted, chosen, note = training_splits(file_of(train=train, val=rows("b", 3)), 0)
    assert "not read: val; a split to choose on is called 'valid'" in note
    assert "z left out: no row of 'train' has it" in note
    assert fitted.names == chosen.names == ("x",)


def test_names_that_results_have_no_place_for_are_refused() -> None:
    with pytest.raises(DataError, match="x_std"):
        training_splits(file_of(train=rows("a", 20) | {"x_std": np.ones((20, 2))}), 0)


def split_of(**fields: Any) -> Split:
    (split,) = read_mapping({"id": ["a", "b"], **fields}, source="memory").splits.values()
    return split


def spec(name: str, kind: ModalityKind, *shape: int) -> ModalitySpec:
    return ModalitySpec(name=name, kind=kind, shape=shape)


def test_what_fits_is_left_alone() -> None:
    split = split_of(x=np.ones((2, 3)), y=np.ones((2, 4, 2)))
    result, notes = conform(split, split.modalities, "file")
    assert not notes
    assert result.modalities == split.modalities
    for name in split.names:
        np.testing.assert_array_equal(result.arrays[name], split.arrays[name])


def test_an_absent_modality_is_missing_in_every_row_and_an_unknown_one_left_out() -> None:
    split = split_of(raw_text=["p", "q"], x=np.ones((2, 3)), z=np.ones((2, 9)))
    result, notes = conform(split, [spec("text", "sequence", 4, 5), spec("x", "vector", 3)], "file")
    assert result.names == ("text", "x")
    assert result.mask().tolist() == [[False, True], [False, True]]
    assert result.arrays["text"].shape == (2, 4, 5)
    assert result.raw_text == ("p", "q")
    assert any("text" in note for note in notes)
    assert any("z left out" in note for note in notes)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((3,), spec("x", "sequence", 1, 3)),
        ((1, 3), spec("x", "vector", 3)),
        ((4, 3), spec("x", "image", 1, 4, 3)),
        ((1, 4, 3), spec("x", "image", 4, 3)),
        ((1, 1, 3), spec("x", "vector", 3)),
    ],
)
def test_axes_of_length_one_come_and_go(shape: tuple[int, ...], wanted: ModalitySpec) -> None:
    values = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    result, _ = conform(split_of(x=values), [wanted], "file")
    assert result.arrays["x"].shape == (2, *wanted.shape)
    assert result.arrays["x"].ravel().tolist() == values.ravel().tolist()


def test_shorter_sequences_are_padded() -> None:
    result, _ = conform(
        split_of(x=[np.ones((2, 3)), None], y=np.ones((2, 1))),
        [spec("x", "sequence", 4, 3), spec("y", "vector", 1)],
        "file",
    )
    assert result.arrays["x"].sum(axis=(1, 2)).tolist() == [6.0, 0.0]
    assert result.lengths["x"].tolist() == [2, 0]


def test_longer_sequences_are_cut_only_where_they_are_padding() -> None:
    wanted = [spec("x", "sequence", 2, 1)]
    padded = split_of(x=np.ones((2, 4, 1)), x_lengths=[2, 1])
    result, _ = conform(padded, wanted, "file")
    assert result.arrays["x"][:, :, 0].tolist() == [[1, 1], [1, 0]]
    with pytest.raises(DataError, match="at most 2 x 1"):
        conform(split_of(x=np.ones((2, 4, 1)), x_lengths=[2, 3]), wanted, "file")


@pytest.mark.parametrize(
    ("shape", "wanted", "words"),
    [
        ((4,), spec("x", "vector", 3), "3 numbers.*got 4"),
        ((2, 4), spec("x", "sequence", 2, 3), "2 x 3 .*got 2 x 4"),
        ((1, 5), spec("x", "sequence", 5, 1), "5 x 1"),
        ((6,), spec("x", "image", 2, 3), "2 x 3"),
    ],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], wanted: ModalitySpec, words: str) -> None:
    with pytest.raises(DataError, match=f"file: data: modality 'x'.*{words}"):
        conform(split_of(x=np.ones((2, *shape))), [wanted], "file")


def test_rows_with_nothing_observed() -> None:
    split = split_of(x=[[1.0], None], y=np.ones((2, 2)))
    wanted = [spec("x", "vector", 1)]
    with pytest.raises(DataError, match="nothing is observed in row 'b'"):
        conform(split, wanted, "file")
    dropped, notes = conform(split, wanted, "file", empty_rows="drop")
    assert dropped.ids == ("a",)
    assert any("1 rows" in note for note in notes)
    kept, _ = conform(split, wanted, "file", empty_rows="keep")
    assert kept.ids == ("a", "b")
    with pytest.raises(DataError, match="in any row"):
        conform(split, [spec("z", "vector", 1)], "file", empty_rows="drop")


def test_an_empty_split_is_refused() -> None:
    split = split_of(x=np.ones((2, 1))).take([])
    with pytest.raises(DataError, match="empty"):
        conform(split, split.modalities, "file")


def test_hiding() -> None:
    split = split_of(raw_text=["p", "q"], text=np.ones((2, 3)), audio=[[1.0], None])
    result, hidden = hide_modalities(split.take([0]), ["text", "text"])
    assert hidden.tolist() == [[True, False]]
    assert result.raw_text == (None,)
    assert not result.arrays["text"].any()
    # a row may be left with nothing, where others aren't
    assert hide_modalities(split, ["text"])[0].mask().tolist() == [[False, True], [False, False]]
    with pytest.raises(DataError, match=r"text, audio.*'video'"):
        hide_modalities(split, ["video"])


def test_hiding_what_is_missing_anyway_is_no_error() -> None:
    split = split_of(text=np.ones((2, 3)), audio=[[1.0], None])
    result, hidden = hide_modalities(split, ["audio"])
    assert hidden.tolist() == [[False, True], [False, False]]
    assert result.mask().tolist() == [[True, False], [True, False]]


def test_lost_frames_are_padded_with_their_sequence_and_need_one() -> None:
    frames = np.ones((2, 3, 2))
    frames[0, 1] = np.nan
    result, _ = conform(split_of(s=frames), [spec("s", "sequence", 5, 2)], "file")
    assert result.lost["s"].tolist() == [[False, True, False, False, False], [False] * 5]
    assert result.lengths["s"].tolist() == [3, 3]
    flat = frames[:, :, :1]
    with pytest.raises(DataError, match="the model knows no frames of it"):
        conform(split_of(s=flat), [spec("s", "vector", 3)], "file")


def test_a_hidden_sequence_keeps_its_gaps_out_of_sight() -> None:
    """What is lost stays known, so that errors leave it out; nothing that is observed has gaps then."""
    frames = np.ones((2, 3, 2))
    frames[0, 1] = np.nan
    hidden, _ = hide_modalities(split_of(s=frames, x=np.ones((2, 1))), ["s"])
    assert hidden.lost["s"].any()
    assert hidden.gaps("s") is None


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
    with pytest.raises(DataError, match="expected 2 numbers a sample, got 3"):
        choose_split(read_data_file(path), "all")


def test_a_split_called_all_is_that_split(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps({"all": {"text": np.ones((2, 2))}, "test": {"text": np.ones((1, 2))}}))
    assert len(choose_split(read_data_file(path), "all")[0]) == 2
