"""What is read of files and of data in memory."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from omg_graph.errors import DataError, UnsafeFileError
from omg_graph.samples.dataset import ModalitySpec
from omg_graph.samples.reading import DataFile, read_data_file, read_mapping

NAN = float("nan")


def read(content: Any, **options: Any) -> DataFile:
    return read_mapping(content, source="memory", **options)


def only(content: Any, **options: Any) -> Any:
    (split,) = read(content, **options).splits.values()
    return split


def rows(**fields: Any) -> dict[str, Any]:
    return {"id": ["a$_$1", "a$_$2", "b"], "text": np.ones((3, 2)), **fields}


def specs_of(split: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(spec.name, spec.kind, spec.shape) for spec in split.modalities]


# Files


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickle_and_npz_hold_the_same(tmp_path: Path, protocol: int) -> None:
    split = rows(
        raw_text=["x", "y", "z"], regression_labels=np.array([1.0, -2.0, 0.5]), observed={"text": [1, 0, 1]}
    )
    pickled, zipped = tmp_path / "a.pkl", tmp_path / "a.npz"
    pickled.write_bytes(pickle.dumps({"train": split}, protocol))
    flat = {f"train/{name}": np.array(value) for name, value in split.items() if name != "observed"}
    np.savez(zipped, **flat, **{"train/observed/text": np.array([True, False, True])})
    one, other = read_data_file(pickled), read_data_file(zipped)
    assert one.sha256 == hashlib.sha256(pickled.read_bytes()).hexdigest()
    assert not one.single
    for data in (one, other):
        train = data.splits["train"]
        assert train.ids == ("a$_$1", "a$_$2", "b")
        assert train.groups == ("a", "a", "b")
        assert train.raw_text == ("x", None, "z")
        assert train.observed["text"].tolist() == [True, False, True]
        assert train.labels is not None
        assert train.labels.values.tolist() == [1.0, -2.0, 0.5]


def test_the_kind_of_file_is_told_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "a.dat"
    path.write_bytes(pickle.dumps(rows()))
    assert list(read_data_file(path).splits) == ["data"]
    np.savez(tmp_path / "b.npz", **rows())
    (tmp_path / "b.npz").rename(tmp_path / "b.pkl")
    assert len(read_data_file(tmp_path / "b.pkl").splits["data"]) == 3


@pytest.mark.parametrize(
    "content", [b"", b"id,text\n1,2\n", b"\x93NUMPY\x01\x00", b"(lp0\n.", b"PK\x03\x04broken"]
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.pkl.*expected|damaged") as caught:
        read_data_file(path)
    assert "\n" not in str(caught.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pkl", tmp_path):
        with pytest.raises(DataError, match="expected"):
            read_data_file(path)


def test_a_message_is_one_line_whatever_the_file_says() -> None:
    for name in ("a\nb", "\x1b[31mred"):
        with pytest.raises(DataError) as caught:
            read({name: {"x": [["text"]]}, "y": {"more": "text"}})
        assert str(caught.value).isprintable()


def test_a_refused_file_says_which(tmp_path: Path) -> None:
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"train": os.getcwd}))
    with pytest.raises(UnsafeFileError, match=r"evil\.pkl.*getcwd"):
        read_data_file(path)


# Layouts


def test_one_sample() -> None:
    data = read(
        {"id": "clip", "raw_text": "hello", "text": [1.0, 2.0], "audio": None, "vision": [[1, 2], [3, 4]]}
    )
    assert data.single
    split = data.splits["data"]
    assert specs_of(split) == [("text", "vector", (2,)), ("vision", "sequence", (2, 2))]
    assert split.ids == ("clip",)
    assert split.raw_text == ("hello",)
    assert any("audio" in note for note in data.notes)


@pytest.mark.parametrize(
    ("content", "single"),
    [
        ({"id": 7, "text": np.ones((2, 3))}, True),
        ({"id": np.array("x"), "text": np.ones((2, 3))}, True),
        ({"id": ["x", "y"], "text": np.ones((2, 3))}, False),
        ({"raw_text": "a b", "text": np.ones((2, 3))}, True),
        ({"raw_text": ["a", "b"], "text": np.ones((2, 3))}, False),
        ({"text": np.ones(3)}, True),
        ({"text": np.ones((2, 3))}, False),
        ({"text": np.ones((2, 3)), "speaker": np.arange(2), "labels": np.arange(2)}, False),
        ({"text": np.ones(3), "label": 1.0}, True),
    ],
)
def test_one_sample_or_rows(content: dict[str, Any], single: bool) -> None:
    data = read(content)
    assert data.single is single
    assert len(data.splits["data"]) == (1 if single else 2)


def test_the_models_shapes_tell_a_sequence_from_rows() -> None:
    content = {"text": np.ones((4, 3))}
    frames = ModalitySpec(name="text", kind="sequence", shape=(4, 3))
    vector = ModalitySpec(name="text", kind="vector", shape=(3,))
    assert read(content, specs=[frames]).single
    assert not read(content, specs=[vector]).single


def test_a_list_of_samples() -> None:
    split = only(
        [
            {"id": "a", "text": [1.0, 2.0], "audio": None, "label": 1},
            {"id": "b", "text": [3.0, 4.0], "audio": [5.0], "observed": {"text": False}},
        ]
    )
    assert split.ids == ("a", "b")
    assert split.observed["text"].tolist() == [True, False]
    assert split.observed["audio"].tolist() == [False, True]
    assert split.labels.class_names == ("1",)


@pytest.mark.parametrize("content", [[], {}, "text", 3, [1, 2], {"id": ["a"]}, {"train": {}}, {1: 2}])
def test_what_is_no_data(content: Any) -> None:
    with pytest.raises(DataError, match="expected"):
        read(content)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.ones((3, 4)), ("vector", (4,))),
        (np.ones((3, 5, 4)), ("sequence", (5, 4))),
        (np.ones((3, 5, 4), np.uint8), ("image", (5, 4))),
        (np.ones((3, 1, 5, 4)), ("image", (1, 5, 4))),
        (np.ones((3, 4), bool), ("vector", (4,))),
    ],
)
def test_kinds(array: np.ndarray, expected: tuple[str, tuple[int, ...]]) -> None:
    split = only({"id": ["a", "b", "c"], "x": array})
    assert specs_of(split) == [("x", *expected)]
    assert split.arrays["x"].dtype == np.float32


def test_modalities_are_numeric_arrays_that_are_not_reserved() -> None:
    content = rows(
        text_bert=np.ones((3, 3, 5)),
        audio=np.ones((3, 4)),
        audio_lengths=[1, 1, 1],
        annotations=["x", "y", "z"],
        emotion_label_vectors=np.ones((3, 6)),
        regression_labels=np.zeros(3),
        speaker=["p", "q", "r"],
        age=np.arange(3),
    )
    data = read(content, label="regression_labels")
    assert data.splits["data"].names == ("text", "audio")
    (note,) = [note for note in data.notes if "left out" in note]
    assert "speaker" in note
    assert "age" in note


def test_modalities_can_be_chosen() -> None:
    content = rows(audio=np.ones((3, 4)), age=np.arange(3))
    split = only(content, modalities=["age", "text"])
    assert specs_of(split) == [("text", "vector", (2,)), ("age", "vector", (1,))]
    for wrong in ("video", "id", "annotations"):
        with pytest.raises(DataError, match="text, audio"):
            read(content, modalities=[wrong])


# Ids, groups, text


def test_ids_are_text_and_groups_may_be_given() -> None:
    assert only({"id": np.array([3, 1]), "x": np.ones((2, 1))}).ids == ("3", "1")
    data = read({"x": np.ones((2, 1))})
    assert data.splits["data"].ids == ("0", "1")
    assert any("row numbers" in note for note in data.notes)
    assert only(rows(group=["p", None, "q"])).groups == ("p", "a", "q")


@pytest.mark.parametrize("ids", [["a", "a", "b"], ["a", None, "b"], ["a", "b"], "abc", [["a"], "b", "c"]])
def test_bad_ids(ids: Any) -> None:
    with pytest.raises(DataError):
        read(rows(id=ids, raw_text=["x", "y", "z"]))


def test_text_goes_with_its_modality() -> None:
    text = ["x", "y", "z"]
    hidden = only(rows(raw_text=text, observed={"text": [True, False, True]}))
    assert hidden.raw_text == ("x", None, "z")
    alone = only({"id": ["a", "b", "c"], "raw_text": text, "audio": np.ones((3, 2)), "text": None})
    assert alone.raw_text == tuple(text)


# Missing rows


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
        read(rows(text=text))
    assert only(rows(text=text), fill_nonfinite="zero").arrays["text"].tolist() == [[1, 2], [0, 5], [3, 4]]
    assert only(rows(text=text), fill_nonfinite="mean").arrays["text"].tolist() == [[1, 2], [2, 5], [3, 4]]
    assert read(rows(text=text, observed={"text": [True, False, True]})).splits["data"].mask().sum() == 2


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


def test_means_come_from_train() -> None:
    content = {
        "train": {"id": ["a", "b"], "x": np.array([[1.0, 1.0], [3.0, 1.0]])},
        "test": {"id": ["c", "d"], "x": np.array([[NAN, 1.0], [100.0, 1.0]])},
    }
    assert read(content, fill_nonfinite="mean").splits["test"].arrays["x"][0].tolist() == [2.0, 1.0]


def test_padding_is_zeroed_and_no_frames_means_missing() -> None:
    x = np.ones((3, 4, 2))
    x[0, 2:] = NAN
    x[2, :1] = NAN
    split = only({"id": ["a", "b", "c"], "x": x, "x_lengths": np.array([2, 0, 1])})
    assert split.observed["x"].tolist() == [True, False, False]
    assert split.lengths["x"].tolist() == [2, 0, 0]
    assert split.arrays["x"].sum(axis=(1, 2)).tolist() == [4.0, 0.0, 0.0]


@pytest.mark.parametrize("lengths", [[1, 2], [5, 1, 1], [-1, 1, 1], [1.5, 1, 1], ["1", 1, 1], 2])
def test_bad_lengths(lengths: Any) -> None:
    with pytest.raises(DataError, match="x_lengths"):
        read({"id": ["a", "b", "c"], "x": np.ones((3, 4, 2)), "x_lengths": lengths})


def test_sequences_of_different_lengths_are_padded() -> None:
    split = only({"id": ["a", "b", "c"], "x": [np.ones((2, 3)), None, np.ones((4, 3))]})
    assert specs_of(split) == [("x", "sequence", (4, 3))]
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
        read({"id": ["a", "b", "c"], "x": value})


@pytest.mark.parametrize(
    "flags", [[True], {"text": [True]}, {"text": [1, 2, 0]}, {"video": [True, False, True]}]
)
def test_bad_flags(flags: Any) -> None:
    with pytest.raises(DataError, match="observed"):
        read(rows(observed=flags))


# Labels


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
    splits = read({"train": train, "test": test}).splits
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
        read(two)
    assert only(two, with_labels=False).names == ("text",)
    with pytest.raises(DataError, match="label_V"):
        read(two, label="label_V")


@pytest.mark.parametrize(
    "values", [[1, 2], ["x", "y", []], [float("inf"), 1.0, 2.0], {"a": 1}, np.ones((3, 2))]
)
def test_bad_labels(values: Any) -> None:
    with pytest.raises(DataError, match="label"):
        read(rows(label=values))
    with pytest.raises(DataError, match="numbers were expected"):
        read(rows(regression_labels=["x", "y", "z"]))


def test_the_same_content_has_the_same_fingerprint() -> None:
    assert read(rows()).sha256 == read(rows()).sha256
    assert read(rows()).sha256 != read(rows(text=np.zeros((3, 2)))).sha256


# Real files


@pytest.fixture
def real() -> Path:
    folder = os.environ.get("OMG_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("OMG_DATA doesn't name the folder of the real data sets")
    return Path(folder)


@pytest.mark.data
def test_mosi(real: Path) -> None:
    data = read_data_file(real / "mosi" / "mosi_train_valid.pkl")
    train, valid = data.splits["train"], data.splits["valid"]
    assert (len(train), len(valid)) == (1284, 229)
    assert specs_of(train) == [
        ("text", "sequence", (1, 384)),
        ("audio", "sequence", (1, 73)),
        ("vision", "sequence", (1, 100)),
    ]
    assert train.mask().all()
    assert not set(train.groups) & set(valid.groups)
    assert valid.labels is not None
    assert valid.labels.name == "regression_labels"
    assert np.abs(valid.labels.values).max() <= 3
    assert valid.raw_text is not None
    assert all(valid.raw_text)


@pytest.mark.data
def test_mfeat(real: Path) -> None:
    data = read_data_file(real / "mfeat" / "mfeat_train_valid.pkl")
    train = data.splits["train"]
    assert {name: shape for name, _, shape in specs_of(train)} == {
        "fou": (76,),
        "fac": (216,),
        "kar": (64,),
        "pix": (240,),
        "zer": (47,),
        "mor": (6,),
    }
    assert train.labels is not None
    assert train.labels.class_names == tuple("0123456789")
    assert train.raw_text is None


def test_half_a_letter_becomes_the_replacement_sign() -> None:
    split = read_mapping(
        {"id": ["a\ud800", "b"], "raw_text": ["\udc00x", "\ud83d\ude00"], "x\ud800": np.ones((2, 2))},
        source="memory",
    ).splits["data"]
    assert split.ids == ("a\ufffd", "b")
    assert split.raw_text == ("\ufffdx", "😀")
    assert split.names == ("x\ufffd",)


@pytest.mark.parametrize("length", [float("inf"), 10**30, -1, "3"])
def test_lengths_that_are_none(length: Any) -> None:
    with pytest.raises(DataError, match="s_lengths: a number from 0 to 3"):
        read_mapping({"id": ["a"], "s": np.ones((1, 3, 2)), "s_lengths": [length]}, source="memory")


def test_a_length_of_nan_means_missing() -> None:
    content = {"id": ["a", "b"], "s": np.ones((2, 3, 2)), "s_lengths": [np.float32("nan"), 2]}
    assert read_mapping(content, source="memory").splits["data"].observed["s"].tolist() == [False, True]


def test_labels_beyond_single_precision() -> None:
    with pytest.raises(DataError, match="rescale"):
        read_mapping({"id": ["a"], "x": np.ones((1, 2)), "regression_labels": [1e300]}, source="memory")
