"""Images from and into files."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omg_graph.data.media import image_bytes, image_size, read_image
from omg_graph.errors import DataError


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
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
    with pytest.raises(DataError, match=r"a\.jpg: a PNG or JPEG file was expected"):
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
    with pytest.raises(DataError, match=r"a\.png: a PNG or JPEG file was expected"):
        read_image(path)
