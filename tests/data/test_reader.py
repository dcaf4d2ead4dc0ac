"""What is read of files and of data in memory."""

from __future__ import annotations

import hashlib
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_graph.data.checking import check_content
from omg_graph.data.dataset import ModalitySpec
from omg_graph.data.reader import DataFile, read_data_file, read_mapping
from omg_graph.data.splits import choose_split, conform, training_splits
from omg_graph.errors import DataError, UnsafeFileError


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


def test_an_empty_field_is_told_once() -> None:
    """Of a modality that a model knows tells whoever makes the split fit it."""
    content = {"id": ["a"], "text": np.ones((1, 2)), "audio": [None]}
    assert "no values in the field audio of 'data'" in read(content).notes
    known = [ModalitySpec(name=name, kind="vector", shape=(2,)) for name in ("text", "audio")]
    data = read(content, specs=known)
    assert not any("audio" in remark for remark in data.notes)
    _, remarks = conform(data.splits["data"], known, "memory")
    assert remarks == ("audio is not in 'data': missing in every row",)


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


NAMES = [
    "id",
    "group",
    "raw_text",
    "text",
    "text_lengths",
    "audio",
    "observed",
    "label",
    "class_label",
    "text_bert",
]
numbers = st.one_of(
    st.integers(-3, 3), st.floats(width=32), st.just(float("nan")), st.just(10**30), st.booleans(), st.none()
)
arrays = st.builds(
    lambda code, shape: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(code),
    st.sampled_from(["f4", "f8", "i8", "u1", "b1", "U2", "S1"]),
    st.lists(st.integers(0, 3), max_size=4).map(tuple),
)
leaves = st.one_of(numbers, arrays, st.text(max_size=2), st.binary(max_size=1))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.lists(inner, max_size=2).map(tuple)
)
flags = st.dictionaries(st.sampled_from(["text", "audio", "x"]), values, max_size=2)
fields = st.dictionaries(st.sampled_from(NAMES), values | flags, max_size=5)
contents = st.one_of(
    values,
    fields,
    st.lists(fields, max_size=2),
    st.dictionaries(st.sampled_from(["train", "valid", "test"]), fields),
)


@settings(max_examples=400, deadline=None)
@given(contents, st.sampled_from([None, "zero", "mean"]))
def test_read_or_refused(content: Any, fill: Any) -> None:
    report = check_content(content, "memory", fill_nonfinite=fill)
    report.model_dump_json()
    try:
        data = read_mapping(content, source="memory", fill_nonfinite=fill)
    except DataError:
        data = None
    if data is None:
        assert not report.usable
        return
    wrong = [finding.message for finding in report.findings if finding.level == "error"]
    assert all("observed in any row" in message or "but (" in message for message in wrong)
    for split in data.splits.values():
        for name, array in split.arrays.items():
            assert array.shape == (len(split), *{spec.name: spec for spec in split.modalities}[name].shape)
            assert np.isfinite(array).all()
            assert not array[~split.observed[name]].any()
        for name, lengths in split.lengths.items():
            assert ((lengths > 0) == split.observed[name]).all()
    with suppress(DataError):
        assert choose_split(data, None)[0] in data.splits.values()
    with suppress(DataError):
        train, valid, _ = training_splits(data, 0)
        assert train.modalities == valid.modalities
        assert train.mask().any(axis=1).all()
