"""Sound and images from and into files."""

from __future__ import annotations

import io
import struct
import sys
import wave
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omg_graph.data.media import (
    image_bytes,
    image_size,
    read_image,
    read_wav,
    resampled,
    wav_bytes,
    wav_seconds,
)
from omg_graph.errors import ConfigError, DataError


def test_an_image_that_is_written_is_read_again(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(image_bytes(pixels))
    assert np.array_equal(read_image(path), pixels)
    assert image_size(path) == (7, 5)


def test_other_colours_become_red_green_and_blue(tmp_path: Path) -> None:
    Image.new("L", (4, 3), 200).save(tmp_path / "grey.png")
    Image.new("CMYK", (4, 3)).save(tmp_path / "print.jpg")
    Image.new("RGBA", (4, 3), (1, 2, 3, 4)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "grey.png").tolist() == [[[200] * 3] * 4] * 3
    assert read_image(tmp_path / "print.jpg").shape == (3, 4, 3)
    assert read_image(tmp_path / "clear.png")[0, 0].tolist() == [1, 2, 3]


def test_a_photo_taken_sideways_stands_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    turned = image.getexif()
    turned[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=turned)
    assert read_image(tmp_path / "a.jpg").shape == (4, 2, 3)


@pytest.mark.parametrize(("side", "shape"), [(8, (4, 8)), (1_000, (30, 60))])
def test_large_images_are_scaled_down_and_small_ones_left(side: int, shape: tuple[int, int]) -> None:
    content = image_bytes(np.zeros((30, 60, 3), np.uint8), "JPEG", longest_side=side)
    with Image.open(io.BytesIO(content)) as image:
        assert (image.height, image.width) == shape


def png(width: int, height: int) -> bytes:
    """A PNG of so many pixels by its header, whose rows aren't there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(8_000, 8_000), (10_000, 10_000), (60_000, 60_000)])
def test_more_pixels_than_fit_are_refused_before_they_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(*size))
    for look in (read_image, image_size):
        with pytest.raises(DataError, match="expected"):
            look(path)


def test_metadata_that_contradict_themselves_are_a_damage(tmp_path: Path) -> None:
    """A width in letters, in a photo that is to be turned: Pillow raises an error of ``struct`` over it."""
    entry = struct.Struct("<HHI4s")
    entries = entry.pack(0x0112, 3, 1, b"\6\0\0\0") + entry.pack(0x0100, 2, 1, b"ab\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + bytes(4)
    Image.new("RGB", (4, 2)).save(tmp_path / "a.jpg", exif=exif)
    with pytest.raises(DataError, match=r"a\.jpg: expected a PNG or JPEG file"):
        read_image(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a" + bytes(40),
        png(10, 10),
        image_bytes(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))[:60],
    ],
    ids=["nothing", "gif", "pixels missing", "cut off"],
)
def test_what_is_no_whole_image_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png: expected a PNG or JPEG file"):
        read_image(path)


def write(path: Path, content: bytes, *, width: int, channels: int = 1, rate: int = 16_000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(content)
    return path


@pytest.mark.parametrize(
    ("width", "content"),
    [
        (1, bytes([128, 255, 0, 192])),
        (2, struct.pack("<4h", 0, 32767, -32768, 16384)),
        (3, b"".join(n.to_bytes(3, "little", signed=True) for n in (0, 2**23 - 1, -(2**23), 2**22))),
        (4, struct.pack("<4i", 0, 2**31 - 1, -(2**31), 2**30)),
    ],
)
def test_every_width_of_pcm_means_the_same(tmp_path: Path, width: int, content: bytes) -> None:
    sound, rate = read_wav(write(tmp_path / "a.wav", content, width=width))
    assert rate == 16_000
    assert sound.dtype == np.float32
    np.testing.assert_allclose(sound, [0.0, 1.0, -1.0, 0.5], atol=0.01)


def test_channels_are_averaged(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", struct.pack("<4h", 16384, 0, -16384, 16384), width=2, channels=2)
    assert read_wav(path)[0].tolist() == [0.25, 0.0]
    assert wav_seconds(path) == 2 / 16_000


def test_a_sound_that_is_written_is_read_again(tmp_path: Path) -> None:
    sound = np.linspace(-1, 1, 101, dtype=np.float32)
    (tmp_path / "a.wav").write_bytes(wav_bytes(sound, 8_000))
    again, rate = read_wav(tmp_path / "a.wav")
    assert rate == 8_000
    np.testing.assert_allclose(again, sound, atol=1e-4)


def test_resampling_keeps_a_low_tone_and_drops_what_would_alias() -> None:
    times = np.arange(48_000) / 48_000
    low, high = np.sin(2 * np.pi * 440 * times), np.sin(2 * np.pi * 15_000 * times)
    sound = resampled((low + high).astype(np.float32), 48_000, 16_000)
    assert sound.shape == (16_000,)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    # at both ends the filter sees the silence around the sound
    assert np.abs(sound - expected)[200:-200].max() < 0.02


def test_resampling_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.zeros(10, np.float32)
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    assert resampled(sound, 8_000, 8_000) is sound
    with pytest.raises(ConfigError, match=r"omg-graph\[media\]"):
        resampled(sound, 8_000, 16_000)


def damaged(whole: bytes, what: str) -> bytes:
    rate, size = whole.index(b"fmt ") + 12, whole.index(b"data") + 4
    if what == "truncated":
        return whole[:-10]
    if what == "no such rate":
        return whole[:rate] + struct.pack("<I", 7) + whole[rate + 4 :]
    if what == "endless":
        return whole[:size] + struct.pack("<I", 2**32 - 2) + whole[size + 4 :]
    if what == "a chunk beyond the end":
        return struct.pack("<4sI4s4sI", b"RIFF", 16, b"WAVE", b"LIST", 1_000) + whole[12:]
    if what == "silent":
        return whole[:size] + bytes(4)
    return {"no WAV": b"OggS" + whole[4:], "header alone": whole[:20], "empty": b""}[what]


@pytest.mark.parametrize(
    "what",
    [
        "truncated",
        "no such rate",
        "endless",
        "a chunk beyond the end",
        "silent",
        "no WAV",
        "header alone",
        "empty",
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, what: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(damaged(wav_bytes(np.zeros(100), 16_000), what))
    for look in (read_wav, wav_seconds):
        with pytest.raises(DataError, match=r"a\.wav.*expected") as caught:
            look(path)
        assert "\n" not in str(caught.value)
