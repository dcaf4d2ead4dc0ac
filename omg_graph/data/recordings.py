"""Recordings behind modalities: the sound, image or video that features were taken from, read when needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PureWindowsPath
from typing import Literal

import numpy as np

from omg_graph.data.arrays import PlainArray, is_nothing, whole_text
from omg_graph.data.media import (
    HIGHEST_RATE,
    LOWEST_RATE,
    MOST_SAMPLES,
    FloatArray,
    Pixels,
    image_bytes,
    image_size,
    read_image,
    read_wav,
    resampled,
    wav_bytes,
    wav_seconds,
)
from omg_graph.errors import DataError
from omg_graph.files import DataFolder

RecordingKind = Literal["audio", "image", "video"]

SUFFIXES: dict[str, RecordingKind] = {".wav": "audio", ".png": "image", ".jpg": "image", ".jpeg": "image"}

MOST_BYTES: dict[RecordingKind, int] = {"audio": 512 * 2**20, "image": 64 * 2**20, "video": 64 * 2**20}
"""Of one file."""

MOST_FRAMES = 20_000
"""Of one video."""

MOST_FRAMES_A_SECOND = 1_000

_INTEGERS = {np.dtype(np.int16): 2.0**15, np.dtype(np.int32): 2.0**31}
"""Whole numbers that sound is kept in, and what stands for 1."""


@dataclass(frozen=True)
class Extent:
    """How long or large a recording is."""

    seconds: float | None = None
    frames: int | None = None
    """Images of a video."""
    width: int | None = None
    height: int | None = None
    """Pixels, of the first image of a video."""


@dataclass(frozen=True, eq=False)
class Recording:
    """One recording, by reference: nothing of a file is read before something is asked of it.

    A file that can't be read is a DataError of whatever asks.
    """

    kind: RecordingKind
    source: Path | tuple[Path, ...] | PlainArray
    """A WAV, PNG or JPEG file; several images, which are a video; or an array: (samples,) of sound, (height,
    width, 3) of an image, (frames, height, width, 3) of a video, both uint8."""
    rate: float | None = None
    """Hz of an array of sound, frames a second of a video; None where nobody knows."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files it lies in; none for an array."""
        if isinstance(self.source, tuple):
            return self.source
        return (self.source,) if isinstance(self.source, Path) else ()

    @cached_property
    def sha256(self) -> str:
        """Of the content: of the file, of the files' digests, or of the array, with the rate beside those."""
        if isinstance(self.source, Path):
            return _file_sha256(self.source)
        digest = hashlib.sha256(f"{self.kind} {self.rate}".encode())
        if isinstance(self.source, tuple):
            for path in self.source:
                digest.update(_file_sha256(path).encode())
        else:
            digest.update(f"{self.source.dtype.str}{self.source.shape}".encode())
            digest.update(np.ascontiguousarray(self.source).tobytes())
        return digest.hexdigest()

    @cached_property
    def extent(self) -> Extent:
        """How long or large it is, as files declare it."""
        if self.kind == "audio":
            if isinstance(self.source, Path):
                return Extent(seconds=wav_seconds(self.source))
            return Extent(seconds=len(self.waveform_as_it_is()[0]) / float(self.rate or 1))
        count = None if self.kind == "image" else self._count
        seconds = None if count is None or not self.rate else count / self.rate
        if isinstance(self.source, np.ndarray):
            height, width = self.source.shape[-3:-1]
        else:
            width, height = image_size(self.paths[0])
        return Extent(seconds, count, width, height)

    def waveform(self, rate: int) -> FloatArray:
        """The sound in one channel, at ``rate`` Hz: (samples,), from -1 to 1.

        Raises:
            DataError: if it is no sound.
            ConfigError: if its own rate is another one and SciPy isn't installed.
        """
        return resampled(*self.waveform_as_it_is(), rate)

    def waveform_as_it_is(self) -> tuple[FloatArray, int]:
        """The sound in one channel and at its own rate, in Hz."""
        if self.kind != "audio" or isinstance(self.source, tuple):
            raise DataError(f"expected a sound, got a recording of kind {self.kind}")
        if isinstance(self.source, Path):
            return read_wav(self.source)
        return sound_of(self.source, "a sound"), sound_rate(self.rate, "a sound")

    def frames(self, most: int | None = None) -> list[Pixels]:
        """The images, one of an image; with ``most``, so many of a video, evenly spaced.

        Raises:
            DataError: if it is a sound.
        """
        if self.kind == "audio":
            raise DataError("expected an image or a video, got a recording of kind audio")
        if self.kind == "image":
            return [read_image(self.paths[0]) if self.paths else self._pixels]
        count = self._count
        chosen = list(range(count))
        if most is not None and most < count:
            # the middle of each of ``most`` equal stretches
            chosen = [(2 * number + 1) * count // (2 * most) for number in range(most)]
        if self.paths:
            return [read_image(self.paths[place]) for place in chosen]
        return [self._pixels[place] for place in chosen]

    def encoded(self) -> tuple[bytes, str]:
        """A file of it, and its MIME type: its own file, else a WAV or PNG file.

        Raises:
            DataError: if it is a video, for which there is no one file: ask for its frames.
        """
        if self.kind == "video":
            raise DataError("expected a sound or an image, got a video: take its frames")
        if isinstance(self.source, Path):
            kinds = {".wav": "audio/wav", ".png": "image/png"}
            return self.source.read_bytes(), kinds.get(self.source.suffix.lower(), "image/jpeg")
        if self.kind == "audio":
            return wav_bytes(*self.waveform_as_it_is()), "audio/wav"
        return image_bytes(self._pixels), "image/png"

    @property
    def _count(self) -> int:
        return len(self.source) if isinstance(self.source, (tuple, np.ndarray)) else 1

    @property
    def _pixels(self) -> Pixels:
        if not isinstance(self.source, np.ndarray) or self.source.dtype != np.uint8:
            raise DataError("expected an image of numbers from 0 to 255 (uint8), got something else")
        return self.source.view(np.uint8)


def shortened(modality: str, recording: Recording, *, most_seconds: int, most_frames: int) -> str | None:
    """What is told of a recording that isn't taken whole; None of one that is.

    Args:
        modality: What it is behind.
        recording: A sound, of which the beginning is taken, or a video, of which evenly spaced frames are.
        most_seconds: Of a sound.
        most_frames: Of a video.

    Raises:
        DataError: if it can't be read.
    """
    extent = recording.extent
    if recording.kind == "audio" and (extent.seconds or 0) > most_seconds:
        return f"the first {most_seconds} of {extent.seconds:.0f} s of {modality}"
    if (extent.frames or 0) > most_frames:
        return f"{most_frames} of {extent.frames} frames of {modality}"
    return None


def sound_of(array: PlainArray, label: str) -> FloatArray:
    """An array of sound as numbers from -1 to 1.

    Args:
        array: (samples,), floats, or 16- or 32-bit integers, whose range is scaled.
        label: for messages.

    Raises:
        DataError: if it is something else, too long, or not finite.
    """
    scale = _INTEGERS.get(array.dtype)
    if array.ndim != 1 or not 0 < len(array) <= MOST_SAMPLES or (scale is None and array.dtype.kind != "f"):
        raise DataError(
            f"{label}: expected sound (1 to {MOST_SAMPLES} floats or 16-bit integers), got an array of "
            f"{array.dtype} and shape {array.shape}"
        )
    sound = array.astype(np.float32) / np.float32(scale or 1.0)
    if not np.isfinite(sound).all():
        raise DataError(f"{label}: expected finite numbers, some are not")
    return sound


def sound_rate(rate: float | None, label: str) -> int:
    """A rate of sound in Hz.

    Raises:
        DataError: if it isn't a whole number in reach.
    """
    if rate is None or rate != round(rate) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DataError(
            f"{label}: expected a rate of {LOWEST_RATE} to {HIGHEST_RATE} Hz, got {rate}: give it"
        )
    return round(rate)


def _file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: expected a recording, it can't be read: {error.strerror}") from None


def read_recordings(
    fields: Mapping[str, object], modality: str, rows: int, folder: Path, *, single: bool, where: str
) -> tuple[Recording | None, ...]:
    """The recordings of a modality, one for each sample, None where there is none; no file is opened.

    Args:
        fields: of the split.
        modality: whose field ``raw_<modality>`` is read, with ``raw_<modality>_rate`` where it is there.
        rows: samples of the split.
        folder: that the data lie in; no path may lead out of it.
        single: whether the split is one sample, whose fields have no axis of samples.
        where: the split, for messages.

    Raises:
        DataError: if a path leaves the folder, names no file, one of another kind or one that is too large,
            or an array is neither sound nor images.
    """
    label = f"{where}: raw_{modality}"
    value = fields[f"raw_{modality}"]
    values = [value] if single else list(value) if isinstance(value, np.ndarray) and value.ndim else value
    if not isinstance(values, (list, tuple)) or len(values) != rows:
        raise DataError(f"{label}: expected a list of {rows} recordings, got something else")
    rates = _rates(fields.get(f"raw_{modality}_rate"), rows, f"{label}_rate")
    place = DataFolder(folder)
    return tuple(
        _recording(value, rate, place, f"{label}, row {row}")
        for row, (value, rate) in enumerate(zip(values, rates, strict=True))
    )


def _rates(value: object, rows: int, label: str) -> list[float | None]:
    items = np.asarray(value).tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    listed = list(items) if isinstance(items, (list, tuple)) else [items] * rows
    if len(listed) != rows:
        raise DataError(f"{label}: expected one rate, or one for each of {rows} samples")
    rates: list[float | None] = []
    for item in listed:
        if item == "" or is_nothing(item):
            rates.append(None)
        elif isinstance(item, (int, float)) and not isinstance(item, bool) and 0 < item < float("inf"):
            rates.append(float(item))
        else:
            raise DataError(f"{label}: expected a number above 0, got {item!r:.40}")
    return rates


def _recording(value: object, rate: float | None, folder: DataFolder, label: str) -> Recording | None:
    """One value of a field: a path, the paths of a video's frames, or an array."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "US":
        value = value.tolist()
    if isinstance(value, (str, bytes)) and value:
        path, kind = _path(value, folder, label)
        return Recording(kind, path)  # a file knows its own rate
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (str, bytes)):
        # an array of strings has blanks where a video is shorter than the longest
        names = [name for name in value if name]
        return _video(names, rate, folder, label) if names else None
    if not value.size if isinstance(value, np.ndarray) else is_nothing(value) or value in ("", b""):
        return None
    return _from_array(value, rate, label)


def _video(names: Sequence[object], rate: float | None, folder: DataFolder, label: str) -> Recording:
    _check_video(len(names), None, label)
    found = [_path(name, folder, label) for name in names]
    if any(kind != "image" for _, kind in found):
        raise DataError(f"{label}: expected PNG or JPEG files as the frames of a video, got others")
    _check_video(len(names), rate, label)
    return Recording("video", tuple(path for path, _ in found), rate)


def _path(name: object, folder: DataFolder, label: str) -> tuple[Path, RecordingKind]:
    if not isinstance(name, (str, bytes)):
        raise DataError(f"{label}: expected a path, got {type(name).__name__}")
    text = whole_text(name)
    shown = repr(text[:100])
    if Path(text).is_absolute() or PureWindowsPath(text).is_absolute():
        raise DataError(
            f"{label}: expected a path relative to the data file, got {shown}: put the files beside it"
        )
    try:
        path = folder.find(text, label)
    except DataError:
        raise DataError(
            f"{label}: expected a file in the data file's folder, {shown} leads out of it: put it there"
        ) from None
    kind = SUFFIXES.get(Path(text).suffix.lower())
    if kind is None or path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{label}: expected a file with one of {', '.join(SUFFIXES)}, got {shown}")
    if not path.is_file():
        raise DataError(f"{label}: expected a file, there is none at {shown}")
    size = path.stat().st_size
    if size > MOST_BYTES[kind]:
        raise DataError(f"{label}: expected at most {MOST_BYTES[kind]} bytes, {shown} has {size}")
    return path, kind


def _from_array(value: object, rate: float | None, label: str) -> Recording:
    if not isinstance(value, (np.ndarray, list, tuple)):
        raise DataError(f"{label}: expected a path or an array, got {type(value).__name__}")
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{label}: expected a path or an array of numbers, got something else")
    if array.ndim == 1:
        sound_of(array, label)
        return Recording("audio", array, sound_rate(rate, f"{label}_rate"))
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3 or not array.size:
        raise DataError(
            f"{label}: expected sound (samples,), or uint8 of an image (height, width, 3) or a video "
            f"(frames, height, width, 3), got an array of {array.dtype} and shape {array.shape}"
        )
    if array.ndim == 3:
        return Recording("image", array)
    _check_video(len(array), rate, label)
    return Recording("video", array, rate)


def _check_video(frames: int, rate: float | None, label: str) -> None:
    if frames > MOST_FRAMES:
        raise DataError(f"{label}: expected at most {MOST_FRAMES} frames, got {frames}")
    if rate is not None and rate > MOST_FRAMES_A_SECOND:
        raise DataError(
            f"{label}_rate: expected at most {MOST_FRAMES_A_SECOND} frames a second, got {rate:g}"
        )
