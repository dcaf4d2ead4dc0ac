"""Recordings, and the fields raw_<modality> that name them."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omg_graph.data.checking import check_data
from omg_graph.data.dataset import Split
from omg_graph.data.media import image_bytes, wav_bytes
from omg_graph.data.reader import read_data_file, read_mapping
from omg_graph.data.recordings import MOST_BYTES, Extent, Recording
from omg_graph.data.splits import conform, hide_modalities, pooled
from omg_graph.errors import DataError

FRAMES = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 4, 3), np.uint8)


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(np.sin(np.arange(8_000) / 5), 16_000))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, ...]:
    paths = tuple(tmp_path / f"{number}.png" for number in range(10))
    for path, frame in zip(paths, FRAMES, strict=True):
        path.write_bytes(image_bytes(frame))
    return paths


def test_sound_by_path_and_in_memory_is_the_same(sound: Path) -> None:
    there = Recording("audio", sound)
    here = Recording("audio", there.waveform(16_000), 16_000)
    assert there.extent == here.extent == Extent(seconds=0.5)
    assert here.waveform(16_000).tolist() == there.waveform(16_000).tolist()
    assert there.waveform(8_000).shape == (4_000,)
    whole = Recording("audio", np.array([0, 2**14, -(2**15)], np.int16), 8_000)
    assert whole.waveform(8_000).tolist() == [0.0, 0.5, -1.0]


def test_a_video_gives_as_many_frames_as_asked_for_evenly(pictures: tuple[Path, ...]) -> None:
    for video in (Recording("video", pictures, 5.0), Recording("video", FRAMES, 5.0)):
        assert [int(frame[0, 0, 0]) for frame in video.frames()] == list(range(10))
        assert [int(frame[0, 0, 0]) for frame in video.frames(2)] == [2, 7]
        assert [int(frame[0, 0, 0]) for frame in video.frames(3)] == [1, 5, 8]
        assert len(video.frames(99)) == 10
        assert video.extent == Extent(seconds=2.0, frames=10, width=4, height=2)
    assert Recording("image", pictures[3]).frames(5)[0].tolist() == FRAMES[3].tolist()
    assert Recording("image", pictures[3]).extent == Extent(width=4, height=2)


def test_only_the_frames_asked_for_are_read(pictures: tuple[Path, ...]) -> None:
    for number in (0, 1, 3, 4, 5, 6, 8, 9):
        pictures[number].unlink()
    assert len(Recording("video", pictures).frames(2)) == 2


def test_a_file_is_sent_as_it_is_and_an_array_as_a_file(sound: Path, pictures: tuple[Path, ...]) -> None:
    assert Recording("audio", sound).encoded() == (sound.read_bytes(), "audio/wav")
    assert Recording("image", pictures[0]).encoded() == (pictures[0].read_bytes(), "image/png")
    content, kind = Recording("image", FRAMES[1]).encoded()
    assert (kind, Image.open(io.BytesIO(content)).getpixel((0, 0))) == ("image/png", (1, 1, 1))
    content, kind = Recording("audio", np.zeros(10, np.float32), 8_000).encoded()
    assert (kind, content[:4]) == ("audio/wav", b"RIFF")


def test_the_digest_follows_the_content(sound: Path, pictures: tuple[Path, ...]) -> None:
    assert Recording("audio", sound).sha256 == hashlib.sha256(sound.read_bytes()).hexdigest()
    silence = np.zeros(100, np.float32)
    different = [
        Recording("audio", silence, 8_000),
        Recording("audio", silence, 16_000),
        Recording("audio", silence[:50], 8_000),
        Recording("video", pictures),
        Recording("video", pictures[::-1]),
        Recording("video", FRAMES),
    ]
    assert len({one.sha256 for one in different}) == len(different)
    assert Recording("video", pictures).sha256 == Recording("video", pictures).sha256


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    gone = Recording("audio", tmp_path / "none.wav")
    for ask in (lambda: gone.sha256, lambda: gone.waveform(8_000), lambda: gone.extent):
        with pytest.raises(DataError, match=r"none\.wav"):
            ask()


def test_one_kind_is_not_taken_for_another(sound: Path, pictures: tuple[Path, ...]) -> None:
    with pytest.raises(DataError, match="kind audio"):
        Recording("audio", sound).frames()
    with pytest.raises(DataError, match="kind image"):
        Recording("image", pictures[0]).waveform(8_000)
    with pytest.raises(DataError, match="take its frames"):
        Recording("video", pictures).encoded()


TONE = np.sin(np.arange(800) / 4).astype(np.float32)
PICTURE = np.full((4, 6, 3), 7, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of data with recordings in it, and something beside it that isn't for anybody."""
    made = tmp_path / "data"
    (made / "clips").mkdir(parents=True)
    (made / "clips" / "a.wav").write_bytes(wav_bytes(TONE, 8_000))
    for name in ("a.png", "b.png"):
        (made / "clips" / name).write_bytes(image_bytes(PICTURE))
    (tmp_path / "secret.wav").write_bytes(wav_bytes(TONE, 8_000))
    return made


def rows(**fields: Any) -> dict[str, Any]:
    return {
        "id": ["x", "y", "z"],
        "audio": np.ones((3, 2)),
        "vision": [[1.0, 2.0], None, [3.0, 4.0]],
        **fields,
    }


def saved(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "data.pkl"
    path.write_bytes(pickle.dumps(content))
    return path


def only(path: Path) -> Split:
    (split,) = read_data_file(path).splits.values()
    return split


def test_paths_and_arrays_of_a_pickle(folder: Path) -> None:
    content = rows(
        raw_audio=["clips/a.wav", None, TONE],
        raw_audio_rate=8_000,
        raw_vision=["clips/b.png", "clips/a.png", ["clips/a.png", "clips/b.png"]],
        raw_vision_rate=[None, None, 25],
    )
    split = only(saved(folder, content))
    assert split.names == ("audio", "vision")
    sounds, pictures = split.recordings["audio"], split.recordings["vision"]
    assert sounds[1] is None
    assert pictures[1] is None  # vision is missing in that row, and so is what it was taken from
    first, third = sounds[0], sounds[2]
    assert first is not None
    assert third is not None
    np.testing.assert_allclose(first.waveform(8_000), third.waveform(8_000), atol=1e-4)
    assert [one and (one.kind, one.rate) for one in pictures] == [("image", None), None, ("video", 25.0)]


def test_an_npz_file_names_paths_as_strings(folder: Path) -> None:
    path = folder / "data.npz"
    np.savez(
        path,
        audio=np.ones((2, 3)),
        vision=np.ones((2, 3)),
        raw_audio=np.array(["clips/a.wav", ""]),
        raw_vision=np.array([["clips/a.png", ""], ["clips/a.png", "clips/b.png"]]),
    )
    split = only(path)
    assert [one and one.kind for one in split.recordings["audio"]] == ["audio", None]
    assert [one and len(one.paths) for one in split.recordings["vision"]] == [1, 2]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("clips/a.wav", "audio"),
        (TONE, "audio"),
        ([0.0, 0.5, -0.5], "audio"),
        ("clips/a.png", "image"),
        (PICTURE, "image"),
        (["clips/a.png"], "video"),
        (np.stack([PICTURE] * 2), "video"),
    ],
)
def test_one_sample(folder: Path, monkeypatch: pytest.MonkeyPatch, value: Any, kind: str) -> None:
    sample = {"id": "x", "sensor": [1.0, 2.0], "raw_sensor": value, "raw_sensor_rate": 900 + 100}
    for split in (
        only(saved(folder, sample)),
        read_mapping(sample, source="memory", folder=folder).splits["data"],
        read_mapping([sample], source="memory", folder=folder).splits["data"],
    ):
        (found,) = split.recordings["sensor"]
        assert found is not None
        assert found.kind == kind
    monkeypatch.chdir(folder)
    assert read_mapping(sample, source="memory").splits["data"].recordings["sensor"][0] is not None


@pytest.mark.parametrize("numbers", [TONE, [0.25, 0.5]])
def test_numbers_named_raw_are_a_recording_only_beside_their_modality(numbers: Any) -> None:
    beside = {"id": "x", "audio": [1.0], "raw_audio": numbers, "raw_audio_rate": 8_000.0}
    alone = {"id": "x", "video": [1.0], "raw_audio": numbers}
    data = read_mapping(beside, source="memory")
    assert data.splits["data"].names == ("audio",)
    assert not data.notes or not any("raw_audio" in note for note in data.notes)
    data = read_mapping(alone, source="memory")
    assert data.splits["data"].names == ("video", "raw_audio")
    assert any("raw_audio is taken for a modality of its own" in note for note in data.notes)


def test_a_path_without_its_modality_is_left_out_and_said_so() -> None:
    data = read_mapping({"id": "x", "video": [1.0], "raw_audio": "a.wav"}, source="memory")
    assert data.splits["data"].names == ("video",)
    assert any("no modality 'audio' is beside it" in note for note in data.notes)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("../secret.wav", "leads out of it"),
        ("clips/../../secret.wav", "leads out of it"),
        ("link.wav", "leads out of it"),
        ("loop.wav", "leads out of it"),
        ("/etc/hostname.wav", "relative to the data file"),
        ("C:\\sound.wav", "relative to the data file"),
        ("clips/none.wav", "there is none"),
        ("clips", "a file with one of .wav"),
        ("data.pkl", "a file with one of .wav"),
        ("picture.wav", "a file with one of .wav"),
        ("clips/a.wav\0", "leads out of it"),
        ("long.wav", "at most"),
        (["clips/a.wav"], "frames of a video"),
        (["clips/a.png", 3], "expected a path"),
        (np.ones(0), None),
        (np.ones((5, 2)), "sound"),
        (np.array([0, 300]), "expected sound"),
        (np.array([0.0, np.nan]), "finite"),
        (np.ones((2, 3, 3), np.float32), "uint8"),
        ({"path": "a.wav"}, "a path or an array"),
        (7, "a path or an array"),
    ],
)
def test_what_is_refused(folder: Path, value: Any, what: str | None) -> None:
    (folder / "link.wav").symlink_to(folder.parent / "secret.wav")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    (folder / "picture.wav").symlink_to(folder / "data.pkl")
    with (folder / "long.wav").open("wb") as file:
        os.truncate(file.fileno(), MOST_BYTES["audio"] + 1)
    path = saved(folder, {"id": "x", "audio": [1.0], "raw_audio": value, "raw_audio_rate": 8_000})
    if what is None:
        assert only(path).recordings["audio"] == (None,)
        return
    with pytest.raises(DataError, match=what) as caught:
        read_data_file(path)
    assert "\n" not in str(caught.value)
    assert "raw_audio" in str(caught.value)


@pytest.mark.parametrize("rate", [None, 0, -1, 1.5, "fast", float("inf"), 10**9])
def test_a_rate_that_makes_no_sense(rate: Any) -> None:
    with pytest.raises(DataError, match=r"raw_audio.*expected"):
        read_mapping({"id": "x", "audio": [1.0], "raw_audio": TONE, "raw_audio_rate": rate}, source="memory")


def test_a_list_that_is_too_short(folder: Path) -> None:
    with pytest.raises(DataError, match="raw_audio: expected a list of 3 recordings"):
        read_data_file(saved(folder, rows(raw_audio=["clips/a.wav"])))


def test_recordings_go_where_their_rows_go_and_are_hidden_with_their_modality(folder: Path) -> None:
    content = {
        "train": rows(raw_audio=["clips/a.wav", TONE, None], raw_audio_rate=8_000),
        "valid": {"id": ["w"], "audio": np.ones((1, 2)), "raw_audio": ["clips/a.wav"]},
        "test": {"id": ["v"], "audio": np.ones((1, 2))},
    }
    data = read_data_file(saved(folder, content))
    every = pooled(list(data.splits.values()), "data")
    assert [one is not None for one in every.recordings["audio"]] == [True, True, False, True, False]
    train = data.splits["train"]
    assert [one and one.rate for one in train.take([1, 0]).recordings["audio"]] == [8_000.0, None]
    fitted, _ = conform(train, every.modalities[:1], "data")
    assert set(fitted.recordings) == {"audio"}
    hidden, _ = hide_modalities(train, ["audio"])
    assert hidden.recordings["audio"] == (None,) * 3
    assert train.recordings["audio"][0] is not None
    seen, _ = hide_modalities(train, ["vision"])
    assert seen.recordings["audio"] == train.recordings["audio"]


def test_recordings_of_a_missing_modality_are_left_out_and_said_so(folder: Path) -> None:
    content = rows(observed={"audio": [1, 0, 1]}, raw_audio=["clips/a.wav"] * 3)
    data = read_data_file(saved(folder, content))
    found = data.splits["data"].recordings["audio"]
    assert [one is not None for one in found] == [True, False, True]
    assert any("1 recordings in raw_audio are left out" in note for note in data.notes)


def test_the_digest_of_the_data_covers_recordings(folder: Path) -> None:
    path = saved(folder, rows(raw_audio=["clips/a.wav"] * 3))
    before = read_data_file(path).sha256
    assert read_data_file(path).sha256 == before
    (folder / "clips" / "a.wav").write_bytes(wav_bytes(TONE[:-10], 8_000))
    assert read_data_file(path).sha256 != before
    sample = {"id": "x", "audio": [1.0], "raw_audio": TONE, "raw_audio_rate": 8_000}
    one = read_mapping(sample, source="memory")
    other = read_mapping(sample | {"raw_audio": TONE[::-1]}, source="memory")
    assert one.sha256 != other.sha256


def test_checking_looks_into_every_recording(folder: Path) -> None:
    (folder / "clips" / "broken.wav").write_bytes(b"RIFF")
    report = check_data(saved(folder, rows(raw_audio=["clips/a.wav", "clips/broken.wav", None])))
    assert not report.usable
    assert any("broken.wav" in finding.message for finding in report.findings)
    (folder / "clips" / "broken.wav").write_bytes(wav_bytes(TONE, 8_000))
    report = check_data(folder / "data.pkl")
    assert report.usable
    assert "audio: 2 recordings (2 audio, 0.2 s in all)" in {finding.message for finding in report.findings}


def test_ten_thousand_clips_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a recording was read")

    for name in ("read_wav", "wav_seconds", "read_image", "image_size"):
        monkeypatch.setattr(f"omg_graph.data.recordings.{name}", refuse)
    content = {
        "id": [str(row) for row in range(10_000)],
        "audio": np.ones((10_000, 2)),
        "raw_audio": ["clips/a.wav"] * 10_000,
    }
    found = only(saved(folder, content)).recordings["audio"]
    assert len(found) == 10_000
    assert all(isinstance(one, Recording) for one in found)
