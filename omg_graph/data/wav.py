"""Sound in WAV files, and at another rate."""

from __future__ import annotations

import io
import wave
from math import gcd
from pathlib import Path

import numpy as np
import numpy.typing as npt

from omg_graph.errors import ConfigError, DataError

FloatArray = npt.NDArray[np.float32]

LOWEST_RATE, HIGHEST_RATE = 1_000, 384_000
"""Hz: beyond them a rate is a slip of the pen."""

SHORTEST_HEADER = 44
"""Bytes before the sound, at least."""

MOST_SAMPLES = 2 * 60 * 60 * 48_000
"""Of one sound, its channels counted together: an hour of stereo at 48 kHz."""

_DAMAGES = (EOFError, OSError, RuntimeError)
"""What the standard library raises over damaged files; RuntimeError where a chunk leads out of one."""


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
    except _DAMAGES as error:
        raise _damaged(path, str(error) or type(error).__name__) from None
    if len(content) != frames * width * channels:
        raise _damaged(path, "it ends before the sound that it declares")
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
    except _DAMAGES as error:
        raise _damaged(path, str(error) or type(error).__name__) from None
    if frames * width * channels > path.stat().st_size - SHORTEST_HEADER:
        raise _damaged(path, "it ends before the sound that it declares")
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
            f"sound at {wanted} Hz was expected, some at {rate} Hz came: pip install 'omg-graph[media]', "
            "which can convert it"
        ) from None
    common = gcd(rate, wanted)
    return np.asarray(resample_poly(sound, wanted // common, rate // common), dtype=np.float32)


def _declared(file: wave.Wave_read, path: Path) -> tuple[int, int, int, int]:
    rate, width = file.getframerate(), file.getsampwidth()
    channels, frames = file.getnchannels(), file.getnframes()
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise _damaged(path, f"{LOWEST_RATE} to {HIGHEST_RATE} Hz were expected, {rate} came")
    if width not in (1, 2, 3, 4):
        raise _damaged(path, f"8, 16, 24 or 32 bits a sample were expected, {8 * width} came")
    if not frames:
        raise _damaged(path, "it holds no sound")
    _check_length(path, frames * channels)
    return rate, width, channels, frames


def _check_length(path: Path, samples: int) -> None:
    if samples > MOST_SAMPLES:
        raise DataError(
            f"{path}: at most {MOST_SAMPLES} samples in all channels were expected, {samples} came: "
            "cut the sound to the clip"
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
        raise _damaged(
            path, f"{why}; a WAV file of PCM was expected: save it so, or pip install soundfile"
        ) from None
    try:
        about = soundfile.info(str(path))
        if about.format not in ("WAV", "WAVEX", "RF64"):
            raise _damaged(path, f"a WAV file was expected, {about.format} came")
        _check_length(path, about.frames * about.channels)
        sound, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise _damaged(path, str(error)) from None
    if not len(sound) or not LOWEST_RATE <= rate <= HIGHEST_RATE or not np.isfinite(sound).all():
        raise _damaged(path, "finite numbers at a rate in reach were expected")
    return np.asarray(sound.mean(axis=1), np.float32), int(rate)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path}: a WAV file was expected, this one can't be used: {why[:200]}")
