"""Images in PNG and JPEG files."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from omg_graph.errors import DataError

Pixels = npt.NDArray[np.uint8]
"""(height, width, 3), red, green and blue."""

ImageFormat = Literal["PNG", "JPEG"]

MOST_PIXELS = 50_000_000
"""Of one image: a small file can declare many more, and they are allocated before any is read."""

_DAMAGES = (OSError, ValueError, SyntaxError, EOFError, struct.error)
"""What Pillow raises over files that aren't whole, or whose metadata isn't."""


def read_image(path: Path) -> Pixels:
    """An image as it is meant to be seen, transparency dropped.

    Raises:
        DataError: if it isn't a PNG or JPEG file, is damaged, or has too many pixels.
    """
    from PIL import Image, ImageOps

    _checked_size(path)
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            upright = ImageOps.exif_transpose(image)
            return np.asarray(upright.convert("RGB"))
    except (*_DAMAGES, Image.DecompressionBombError) as error:
        raise _damaged(path, error) from None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height that a file declares; no pixel is read.

    Raises:
        DataError: as ``read_image``.
    """
    return _checked_size(path)


def image_bytes(pixels: Pixels, kind: ImageFormat = "PNG", *, longest_side: int | None = None) -> bytes:
    """A file of an image.

    Args:
        pixels: the image.
        kind: PNG keeps every pixel; JPEG is smaller.
        longest_side: an image that is longer is scaled down to it.
    """
    from PIL import Image

    image = Image.fromarray(pixels)
    if longest_side is not None:
        image.thumbnail((longest_side, longest_side))
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


def _checked_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            width, height = image.size
    except (*_DAMAGES, Image.DecompressionBombError) as error:
        raise _damaged(path, error) from None
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{path}: at most {MOST_PIXELS} pixels were expected, {width} x {height} came: scale it down"
        )
    return width, height


def _damaged(path: Path, error: BaseException) -> DataError:
    return DataError(
        f"{path}: a PNG or JPEG file was expected, this one can't be read: {type(error).__name__}"
    )
