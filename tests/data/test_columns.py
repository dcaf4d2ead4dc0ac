"""What is read of a modality: what is missing, lengths, gaps and shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from omg_graph.data.reader import read_mapping
from omg_graph.errors import DataError

NAN = float("nan")


def only(content: Any, **options: Any) -> Any:
    (split,) = read_mapping(content, source="memory", **options).splits.values()
    return split


def rows(**fields: Any) -> dict[str, Any]:
    return {"id": ["a$_$1", "a$_$2", "b"], "text": np.ones((3, 2)), **fields}


def test_missing_by_flag_nan_or_none_and_never_by_zeros() -> None:
    text = np.ones((3, 2))
    text[1] = NAN
    split = only(
        {
            "id": ["a", "b", "c"],
            "text": text,
            "audio": [np.array([1.0, 2.0]), None, [3.0, 4.0]],
            "vision": np.zeros((3, 2)),
            "touch": [[1.0], NAN, [None]],
            "observed": {"vision": np.array([True, True, False])},
        }
    )
    assert split.mask().tolist() == [
        [True, True, True, True],
        [False, False, True, False],
        [True, True, False, False],
    ]
    for name in split.names:
        assert np.isfinite(split.arrays[name]).all()
        assert not split.arrays[name][~split.observed[name]].any()


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(bool, (5, 3)))
def test_nan_rows_none_rows_and_flags_say_the_same(there: np.ndarray) -> None:
    values = np.arange(1.0, 31.0).reshape(5, 3, 2)
    by_nan = {f"m{i}": np.where(there[:, i, None], values[:, i], NAN) for i in range(3)}
    by_none = {
        f"m{i}": [v if t else None for v, t in zip(values[:, i], there[:, i], strict=True)] for i in range(3)
    }
    by_flag = {f"m{i}": values[:, i] for i in range(3)}
    ids = {"id": list("abcde")}
    flagged = only({**ids, **by_flag, "observed": {f"m{i}": there[:, i] for i in range(3)}})
    np.testing.assert_array_equal(flagged.mask(), there)
    np.testing.assert_array_equal(only({**ids, **by_nan}).mask(), there)
    if there.any(axis=0).all():
        split = only({**ids, **by_none})
        np.testing.assert_array_equal(split.mask(), there)
        for name in split.names:
            np.testing.assert_array_equal(split.arrays[name], flagged.arrays[name])


@pytest.mark.parametrize("bad", [NAN, float("inf"), 1e300])
def test_a_partly_broken_row_is_an_error_unless_filled(bad: float) -> None:
    text = np.array([[1.0, 2.0], [bad, 5.0], [3.0, 4.0]])
    with pytest.raises(DataError, match=r"data.*'text'.*1 of 2 in row 'a\$_\$2'.*--fill-nonfinite"):
        only(rows(text=text))
    assert only(rows(text=text), fill_nonfinite="zero").arrays["text"].tolist() == [[1, 2], [0, 5], [3, 4]]
    assert only(rows(text=text), fill_nonfinite="mean").arrays["text"].tolist() == [[1, 2], [2, 5], [3, 4]]
    assert only(rows(text=text, observed={"text": [True, False, True]})).mask().sum() == 2
    # a row that is said to be missing doesn't count in the mean
    third_missing = rows(text=text, observed={"text": [True, True, False]})
    assert only(third_missing, fill_nonfinite="mean").arrays["text"].tolist() == [[1, 2], [1, 5], [0, 0]]


def test_wholly_nan_frames_are_lost_and_the_rest_of_the_sequence_is_there() -> None:
    """Not a missing row, not a data error, and nothing that --fill-nonfinite fills."""
    sequence = np.arange(24.0).reshape(2, 4, 3) + 1
    sequence[0, 1] = np.nan
    sequence[1, 3] = np.nan
    content = {"id": ["a", "b"], "s": sequence, "s_lengths": [4, 3]}
    for fill in (None, "zero", "mean"):
        split = read_mapping(content, source="test", fill_nonfinite=fill).splits["data"]
        assert split.observed["s"].all()
        # the second row's lies past its length
        assert split.lost["s"].tolist() == [[False, True, False, False], [False] * 4]
        assert not split.arrays["s"][0, 1].any()
        np.testing.assert_array_equal(split.arrays["s"][0, [0, 2, 3]], sequence[0, [0, 2, 3]])
    assert split.take([1, 0]).lost["s"][1].tolist() == [False, True, False, False]
    complete = read_mapping({"s": np.ones((2, 4, 3))}, source="test").splits["data"]
    assert complete.lost == {}


def test_a_partly_nan_frame_is_an_error_beside_lost_ones() -> None:
    sequence = np.ones((1, 4, 3))
    sequence[0, 1] = np.nan
    sequence[0, 2, 0] = np.nan
    with pytest.raises(DataError, match=r"1 of 12 in row '0'.*make the whole frame NaN if it is lost"):
        read_mapping({"s": sequence}, source="test")
    filled = read_mapping({"s": sequence}, source="test", fill_nonfinite="zero").splits["data"]
    assert filled.lost["s"].tolist() == [[False, True, False, False]]


def test_a_frame_of_none_is_lost() -> None:
    frames = [[1.0, 2.0], None, [None, None], [3.0, 4.0]]
    split = read_mapping([{"id": "a", "s": frames}], source="test").splits["data"]
    assert split.lost["s"].tolist() == [[False, True, True, False]]


def test_means_come_from_train() -> None:
    content = {
        "train": {"id": ["a", "b"], "x": np.array([[1.0, 1.0], [3.0, 1.0]])},
        "test": {"id": ["c", "d"], "x": np.array([[NAN, 1.0], [100.0, 1.0]])},
    }
    assert read_mapping(content, source="memory", fill_nonfinite="mean").splits["test"].arrays["x"][
        0
    ].tolist() == [2.0, 1.0]


def test_padding_is_zeroed_and_no_frames_means_missing() -> None:
    x = np.ones((3, 4, 2))
    x[0, 2:] = NAN
    x[2, :1] = NAN
    split = only({"id": ["a", "b", "c"], "x": x, "x_lengths": np.array([2, 0, 1])})
    assert split.observed["x"].tolist() == [True, False, False]
    assert split.lengths["x"].tolist() == [2, 0, 0]
    assert split.arrays["x"].sum(axis=(1, 2)).tolist() == [4.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "lengths",
    [[1, 2], [5, 1, 1], [-1, 1, 1], [1.5, 1, 1], ["1", 1, 1], [float("inf"), 1, 1], [10**30, 1, 1], 2],
)
def test_bad_lengths(lengths: Any) -> None:
    with pytest.raises(DataError, match="x_lengths"):
        only({"id": ["a", "b", "c"], "x": np.ones((3, 4, 2)), "x_lengths": lengths})


def test_sequences_of_different_lengths_are_padded() -> None:
    split = only({"id": ["a", "b", "c"], "x": [np.ones((2, 3)), None, np.ones((4, 3))]})
    assert [(spec.name, spec.kind, spec.shape) for spec in split.modalities] == [("x", "sequence", (4, 3))]
    assert split.lengths["x"].tolist() == [2, 0, 4]
    assert split.arrays["x"].sum() == 18


@pytest.mark.parametrize(
    "value",
    [
        np.ones((2, 2)),
        [[1.0], [1.0, 2.0], [1.0]],
        [[1.0], ["x"], [1.0]],
        [[1.0], [], [1.0]],
        [[1.0], [10**400], [1.0]],
        np.ones((3, 0)),
        np.ones((3, 1, 1, 1, 1)),
        [[1.0], {"a": 1}, [1.0]],
    ],
)
def test_bad_modalities(value: Any) -> None:
    with pytest.raises(DataError, match="'x'"):
        only({"id": ["a", "b", "c"], "x": value})


@pytest.mark.parametrize(
    "flags", [[True], {"text": [True]}, {"text": [1, 2, 0]}, {"video": [True, False, True]}]
)
def test_bad_flags(flags: Any) -> None:
    with pytest.raises(DataError, match="observed"):
        only(rows(observed=flags))


def test_a_length_of_nan_means_missing() -> None:
    content = {"id": ["a", "b"], "s": np.ones((2, 3, 2)), "s_lengths": [np.float32("nan"), 2]}
    assert read_mapping(content, source="memory").splits["data"].observed["s"].tolist() == [False, True]
