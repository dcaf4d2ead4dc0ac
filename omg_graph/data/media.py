"""Sound and images in files: WAV by the standard library, PNG and JPEG by Pillow."""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from omg_graph.errors import ConfigError, DataError

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

    PCM of 8, 16, 24 or 32 bits is read by the standard library, other codings by soundfile where it is
    installed.

    Raises:
        DataError: if it isn't a WAV file, is shorter than it declares, or is too long.
    """
    try:
        with wave.open(str(path), "rb") as file:
            rate, width, channels, frames = _declared(file, path)
            content = file.readframes(frames)
    except wave.Error as error:
        return _read_otherwise(path, str(error))
    except (EOFError, OSError, RuntimeError) as error:
        raise _unusable(path, str(error) or type(error).__name__) from None
    if len(content) != frames * width * channels:
        raise _unusable(path, "it ends before the sound that it declares")
    return _numbers(content, width).reshape(frames, channels).mean(axis=1, dtype=np.float32), rate


def wav_seconds(path: Path) -> float:
    """How long a WAV file says that it is; the sound itself isn't read.

    Raises:
        DataError: as ``read_wav``.
    """
    try:
        with wave.open(str(path), "rb") as file:
            rate, width, channels, frames = _declared(file, path)
    except wave.Error as error:
        sound, rate = _read_otherwise(path, str(error))
        return len(sound) / rate
    except (EOFError, OSError, RuntimeError) as error:
        raise _unusable(path, str(error) or type(error).__name__) from None
    if frames * width * channels > path.stat().st_size - 44:
        raise _unusable(path, "it ends before the sound that it declares")
    return frames / rate


def wav_bytes(sound: npt.NDArray[np.floating], rate: int) -> bytes:
    """A WAV file of 16-bit PCM, one channel.

    Args:
        sound: (samples,), from -1 to 1; what lies beyond is cut.
        rate: Hz.
    """
    whole = np.round(np.clip(sound, -1.0, 1.0) * 32_767).astype("<i2")
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(whole.tobytes())
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


def _declared(file: wave.Wave_read, path: Path) -> tuple[int, int, int, int]:
    rate, width = file.getframerate(), file.getsampwidth()
    channels, frames = file.getnchannels(), file.getnframes()
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise _unusable(path, f"expected {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {rate}")
    if width not in (1, 2, 3, 4):
        raise _unusable(path, f"expected 8, 16, 24 or 32 bits a sample, got {8 * width}")
    if not frames:
        raise _unusable(path, "it holds no sound")
    _check_length(path, frames * channels)
    return rate, width, channels, frames


def _check_length(path: Path, samples: int) -> None:
    if samples > MOST_SAMPLES:
        raise DataError(
            f"{path}: expected at most {MOST_SAMPLES} samples in all channels, got {samples}: cut the "
            "sound to the clip"
        )


def _numbers(content: bytes, width: int) -> FloatArray:
    """PCM as numbers from -1 to 1; 8 bits have no sign."""
    if width == 1:
        return (np.frombuffer(content, np.uint8).astype(np.float32) - np.float32(128)) / np.float32(128)
    if width == 3:
        parts = np.frombuffer(content, np.uint8).reshape(-1, 3).astype(np.int32)
        whole = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2].astype(np.int8).astype(np.int32) << 16
        return whole.astype(np.float32) / np.float32(2**23)
    scale = 2.0 ** (8 * width - 1)
    return (np.frombuffer(content, f"<i{width}") / scale).astype(np.float32)


def _read_otherwise(path: Path, why: str) -> tuple[FloatArray, int]:
    try:
        import soundfile
    except ImportError:
        raise _unusable(
            path, f"expected {why}; a WAV file of PCM: save it so, or pip install soundfile"
        ) from None
    try:
        about = soundfile.info(str(path))
        if about.format not in ("WAV", "WAVEX", "RF64"):
            raise _unusable(path, f"expected a WAV file, got {about.format}")
        _check_length(path, about.frames * about.channels)
        sound, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise _unusable(path, str(error)) from None
    if not len(sound) or not LOWEST_RATE <= rate <= HIGHEST_RATE or not np.isfinite(sound).all():
        raise _unusable(path, "expected finite numbers at a rate in reach")
    return np.asarray(sound.mean(axis=1), np.float32), int(rate)


def _unusable(path: Path, why: str) -> DataError:
    return DataError(f"{path}: expected a WAV file, this one can't be used: {why[:200]}")
