"""One sample alone is read as it was among the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from omg_graph.data.media import wav_bytes
from omg_graph.data.reader import read_data_file, read_mapping
from omg_graph.data.splits import conform
from omg_graph.data.writing import save_sample
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
    with pytest.raises(DataError, match="2 came"):
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
