"""Sound and images in files: WAV by libsndfile, PNG and JPEG by Pillow."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from omg_graph.errors import ConfigError, DataError

if TYPE_CHECKING:
    from soundfile import SoundFile

FloatArray = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
"""(height, width, 3), red, green and blue."""

ImageFormat = Literal["PNG", "JPEG"]

MOST_PIXELS = 50_000_000
"""Of one image: a small file can declare many more, and they are allocated before any is read."""

LOWEST_RATE, HIGHEST_RATE = 1_000, 384_000
"""Hz: a rate beyond them is a mistake."""

MOST_SAMPLES = 2 * 60 * 60 * 48_000
"""Of one sound, its channels counted together: an hour of stereo at 48 kHz."""


def read_image(path: Path) -> Pixels:
    """An image as it is meant to be seen, transparency dropped.

    Raises:
        DataError: if it isn't a PNG or JPEG file, is damaged, or has too many pixels.
    """
    from PIL import Image, ImageOps

    image_size(path)
    with _image_errors(path), Image.open(path, formats=("PNG", "JPEG")) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height that a file declares; no pixel is read.

    Raises:
        DataError: as ``read_image``.
    """
    from PIL import Image

    with _image_errors(path), Image.open(path, formats=("PNG", "JPEG")) as image:
        width, height = image.size
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{path}: expected at most {MOST_PIXELS} pixels, got {width} x {height}: scale it down"
        )
    return width, height


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


@contextmanager
def _image_errors(path: Path) -> Iterator[None]:
    """What Pillow raises over files that aren't whole, or whose metadata isn't, as a DataError."""
    from PIL import Image

    damages = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)
    try:
        yield
    except damages as error:
        raise DataError(
            f"{path}: expected a PNG or JPEG file, this one can't be read: {type(error).__name__}"
        ) from None


def read_wav(path: Path) -> tuple[FloatArray, int]:
    """A sound as numbers from -1 to 1, its channels averaged: (samples,), and its rate in Hz.

    Raises:
        DataError: if it isn't a WAV file, is shorter than it declares, or is too long.
    """
    with _opened(path) as file:
        sound = file.read(dtype="float32", always_2d=True).mean(axis=1, dtype=np.float32)
        if len(sound) != file.frames or not np.isfinite(sound).all():
            raise _unusable(path, "it holds fewer samples than it declares, or some that aren't finite")
        return sound, int(file.samplerate)


def wav_seconds(path: Path) -> float:
    """How long a WAV file says that it is; the sound itself isn't read.

    Raises:
        DataError: as ``read_wav``.
    """
    with _opened(path) as file:
        return float(file.frames / file.samplerate)


@contextmanager
def _opened(path: Path) -> Iterator[SoundFile]:
    """A WAV file whose header has been checked."""
    import soundfile

    try:
        with path.open("rb") as raw:
            # libsndfile knows two dozen other formats by their content: none of their parsers is needed
            if raw.read(4) not in (b"RIFF", b"RIFX", b"RF64"):
                raise _unusable(path, "it doesn't begin like one")
        with soundfile.SoundFile(path) as file:
            if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
                raise _unusable(path, f"expected {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {file.samplerate}")
            if not file.frames:
                raise _unusable(path, "it holds no sound")
            # libsndfile reads what is there, and says in its log alone that the header declares more
            if re.search(r"^data : \d+ \(should be", file.extra_info, re.MULTILINE):
                raise _unusable(path, "it ends before the sound that it declares")
            if (samples := file.frames * file.channels) > MOST_SAMPLES:
                raise DataError(
                    f"{path}: expected at most {MOST_SAMPLES} samples in all channels, got {samples}: "
                    "cut the sound to the clip"
                )
            yield file
    except (soundfile.SoundFileError, OSError) as error:
        raise _unusable(path, str(error)) from None


def _unusable(path: Path, why: str) -> DataError:
    return DataError(f"{path}: expected a WAV file, this one can't be used: {' '.join(why.split())[:200]}")


def wav_bytes(sound: npt.NDArray[np.floating], rate: int) -> bytes:
    """A WAV file of 16-bit PCM, one channel.

    Args:
        sound: (samples,), from -1 to 1; what lies beyond is cut.
        rate: Hz.
    """
    import soundfile

    stream = io.BytesIO()
    whole = np.round(np.clip(sound, -1.0, 1.0) * 32_767).astype(np.int16)
    soundfile.write(stream, whole, rate, format="WAV", subtype="PCM_16")
    return stream.getvalue()


def resampled(sound: FloatArray, rate: int, wanted: int) -> FloatArray:
    """A sound at another rate, by a polyphase filter that lets nothing alias.

    Args:
        sound: (samples,).
        rate: its own, Hz.
        wanted: Hz.

    Raises:
        ConfigError: if the rates differ and SciPy isn't installed.
    """
    if rate == wanted:
        return sound
    try:
        from scipy.signal import resample_poly
    except ImportError:
        raise ConfigError(
            f"expected sound at {wanted} Hz, got some at {rate} Hz: pip install 'omg-graph[media]', "
            "which can convert it"
        ) from None
    common = gcd(rate, wanted)
    return np.asarray(resample_poly(sound, wanted // common, rate // common), dtype=np.float32)
