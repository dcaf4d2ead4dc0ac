"""Recordings: by reference, read when something is asked of them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omg_graph.data.media import image_bytes, wav_bytes
from omg_graph.data.recordings import Extent, Recording
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
    with pytest.raises(DataError, match="kind audio came"):
        Recording("audio", sound).frames()
    with pytest.raises(DataError, match="kind image came"):
        Recording("image", pictures[0]).waveform(8_000)
    with pytest.raises(DataError, match="take its frames"):
        Recording("video", pictures).encoded()
