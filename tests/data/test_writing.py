"""One sample alone is read as it was among the others, and splits as they were written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omg_graph.data.dataset import Split
from omg_graph.data.media import wav_bytes
from omg_graph.data.reader import read_data_file, read_mapping
from omg_graph.data.splits import conform
from omg_graph.data.writing import save_corpus, save_sample
from omg_graph.errors import DataError


def test_a_row_saved_alone_conforms_to_the_same(tmp_path: Path) -> None:
    split = read_mapping(
        {
            "id": ["v$_$1", "v$_$2", "w"],
            "group": ["p", "p", "q"],
            "raw_text": ["x", None, "z"],
            "text": np.arange(9.0).reshape(3, 1, 3),
            "audio": [np.ones((2, 4)), None, np.ones((5, 4))],
            "face": np.arange(12, dtype=np.uint8).reshape(3, 2, 2),
            "label": ["sad", "happy", None],
        },
        source="memory",
    ).splits["data"]
    for row, sample_id in enumerate(split.ids):
        path = tmp_path / f"{row}.pkl"
        save_sample(path, split.take([row]))
        data = read_data_file(path, specs=split.modalities)
        assert data.single
        alone, _ = conform(data.splits["data"], split.modalities, str(path))
        expected = split.take([row])
        assert (alone.ids, alone.groups) == ((sample_id,), expected.groups)
        assert alone.raw_text == (expected.raw_text if expected.raw_text != (None,) else None)
        np.testing.assert_array_equal(alone.mask(), expected.mask())
        for name in split.names:
            np.testing.assert_array_equal(alone.arrays[name], expected.arrays[name])
        if expected.observed["audio"][0]:
            assert alone.lengths["audio"].tolist() == expected.lengths["audio"].tolist()
        assert (alone.labels is not None) == (row < 2)


def test_one_sample_means_one(tmp_path: Path) -> None:
    split = read_mapping({"id": ["a", "b"], "x": np.ones((2, 1))}, source="memory").splits["data"]
    with pytest.raises(DataError, match="got 2"):
        save_sample(tmp_path / "a.pkl", split)


def test_lost_frames_are_saved_as_such(tmp_path: Path) -> None:
    frames = np.ones((1, 3, 2))
    frames[0, 1] = np.nan
    split = read_mapping({"id": ["a"], "s": frames}, source="memory").splits["data"]
    save_sample(tmp_path / "one.pkl", split)
    (again,) = read_data_file(tmp_path / "one.pkl").splits.values()
    assert again.lost["s"].tolist() == [[False, True, False]]


def test_recordings_are_named_or_written_out(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.wav").write_bytes(wav_bytes(np.zeros(50), 8_000))
    split = read_mapping(
        {"id": "a", "audio": [1.0], "raw_audio": "clips/a.wav", "sign": [1.0], "raw_sign": np.ones(9)}
        | {"raw_sign_rate": 8_000},
        source="memory",
        folder=tmp_path,
    ).splits["data"]
    save_sample(tmp_path / "one.pkl", split)
    (again,) = read_data_file(tmp_path / "one.pkl").splits.values()
    for name in ("audio", "sign"):
        before, after = split.recordings[name][0], again.recordings[name][0]
        assert before is not None
        assert after is not None
        assert (after.sha256, after.rate, after.paths) == (before.sha256, before.rate, before.paths)
    with pytest.raises(DataError, match="copy it there"):
        save_sample(tmp_path / "other" / "one.pkl", split)


@pytest.fixture
def splits() -> dict[str, Split]:
    def content(names: list[str]) -> dict[str, object]:
        numbers = np.arange(len(names), dtype=np.float64)
        return {
            "id": [f"{name}$_$0" for name in names],
            "raw_text": [f"what {name} said" for name in names],
            "text": np.outer(numbers, np.ones(3)) + 1,
            "audio": np.outer(numbers, np.ones(2)) - 1,
            "regression_labels": numbers / 2,
        }

    return read_mapping({"train": content(["a", "é", "c"]), "valid": content(["d"])}, source="memory").splits


@pytest.mark.parametrize("name", ["clips.npz", "clips.pkl"])
def test_what_is_read_is_what_was_written(splits: dict[str, Split], tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    save_corpus(path, splits)
    save_corpus(tmp_path / name, splits)
    assert path.read_bytes() == (tmp_path / name).read_bytes()
    read = read_data_file(path).splits
    assert list(read) == list(splits)
    for key, split in splits.items():
        came = read[key]
        assert (came.ids, came.groups, came.raw_text) == (split.ids, split.groups, split.raw_text)
        assert came.modalities == split.modalities
        assert came.mask().all()
        for modality in split.names:
            np.testing.assert_array_equal(came.arrays[modality], split.arrays[modality])
        assert came.labels is not None
        assert split.labels is not None
        assert (came.labels.name, came.labels.kind) == (split.labels.name, split.labels.kind)
        np.testing.assert_array_equal(came.labels.values, split.labels.values)


def test_another_ending_is_refused(splits: dict[str, Split], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.npz or \.pkl"):
        save_corpus(tmp_path / "clips.csv", splits)
    assert not list(tmp_path.iterdir())


def test_incomplete_clips_are_refused(splits: dict[str, Split], tmp_path: Path) -> None:
    train = splits["train"]
    missing = np.zeros(train.mask().shape, dtype=bool)
    missing[0, 1] = True
    for broken in (train.hide(missing), train.without_labels(), replace(train, raw_text=None)):
        with pytest.raises(DataError, match="complete clips"):
            save_corpus(tmp_path / "clips.npz", {"train": broken})
