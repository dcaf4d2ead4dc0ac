"""The fields ``raw_<modality>`` of a split: recordings by path or as arrays, checked and not read yet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PureWindowsPath

import numpy as np

from omg_graph.data.arrays import PlainArray, whole_text
from omg_graph.data.recordings import (
    MOST_BYTES,
    MOST_FRAMES,
    SUFFIXES,
    Recording,
    RecordingKind,
    sound_of,
    sound_rate,
)
from omg_graph.errors import DataError
from omg_graph.files import DataFolder

MOST_FRAMES_A_SECOND = 1_000


def read_recordings(
    fields: Mapping[str, object], modality: str, rows: int, folder: Path, *, single: bool, where: str
) -> tuple[Recording | None, ...]:
    """The recordings of a modality, one for each sample, None where there is none.

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
    name = f"raw_{modality}"
    label = f"{where}: {name}"
    values = _rows(fields[name], rows, single, label)
    rates = _rates(fields.get(f"{name}_rate"), rows, f"{label}_rate")
    found: list[Recording | None] = []
    place = None
    for row, (value, rate) in enumerate(zip(values, rates, strict=True)):
        told = f"{label}, row {row}"
        if _is_nothing(value):
            found.append(None)
        elif _is_path(value) or _are_paths(value):
            place = place or DataFolder(folder)
            found.append(_from_paths(value, rate, place, told))
        else:
            found.append(_from_array(value, rate, told))
    return tuple(found)


def _rows(value: object, rows: int, single: bool, label: str) -> list[object]:
    if single:
        return [value]
    if isinstance(value, np.ndarray) and value.ndim:
        value = list(value)
    if not isinstance(value, (list, tuple)) or len(value) != rows:
        raise DataError(f"{label}: a list of {rows} recordings was expected, something else came")
    return list(value)


def _rates(value: object, rows: int, label: str) -> list[float | None]:
    items = np.asarray(value).tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    listed = list(items) if isinstance(items, (list, tuple)) else [items] * rows
    if len(listed) != rows:
        raise DataError(f"{label}: one rate, or one for each of {rows} samples was expected")
    rates: list[float | None] = []
    for item in listed:
        if _is_nothing(item):
            rates.append(None)
        elif isinstance(item, (int, float)) and not isinstance(item, bool) and 0 < item < float("inf"):
            rates.append(float(item))
        else:
            raise DataError(f"{label}: a number above 0 was expected, {item!r:.40} came")
    return rates


def _is_nothing(value: object) -> bool:
    if value is None or (isinstance(value, (str, bytes)) and not value):
        return True
    if isinstance(value, np.ndarray):
        return value.size == 0 or (value.dtype.kind in "US" and not value.any())
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def _is_path(value: object) -> bool:
    return isinstance(value, (str, bytes)) or (
        isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "US"
    )


def _are_paths(value: object) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "US"
    return isinstance(value, (list, tuple)) and bool(value) and isinstance(value[0], (str, bytes))


def _from_paths(value: object, rate: float | None, folder: DataFolder, label: str) -> Recording:
    if _is_path(value):
        path, kind = _path(value.item() if isinstance(value, np.ndarray) else value, folder, label)
        return Recording(kind, path)  # a file knows its own rate
    # an array of strings has blanks where a video is shorter than the longest
    names = [name for name in list(value) if name]  # type: ignore[call-overload]
    if len(names) > MOST_FRAMES:
        raise DataError(f"{label}: at most {MOST_FRAMES} frames were expected, {len(names)} came")
    found = [_path(name, folder, label) for name in names]
    if any(kind != "image" for _, kind in found):
        raise DataError(f"{label}: PNG or JPEG files were expected as the frames of a video, others came")
    _check_frame_rate(rate, label)
    return Recording("video", tuple(path for path, _ in found), rate)


def _path(name: object, folder: DataFolder, label: str) -> tuple[Path, RecordingKind]:
    if not isinstance(name, (str, bytes)):
        raise DataError(f"{label}: a path was expected, {type(name).__name__} came")
    text = whole_text(name)
    shown = repr(text[:100])
    if Path(text).is_absolute() or PureWindowsPath(text).is_absolute():
        raise DataError(
            f"{label}: a path relative to the data file was expected, {shown} came: put the files beside it"
        )
    try:
        path = folder.find(text, label)
    except DataError:
        raise DataError(
            f"{label}: a file in the data file's folder was expected, {shown} leads out of it: put it there"
        ) from None
    kind = SUFFIXES.get(Path(text).suffix.lower())
    if kind is None or path.suffix.lower() not in SUFFIXES:
        raise DataError(f"{label}: a file with one of {', '.join(SUFFIXES)} was expected, {shown} came")
    if not path.is_file():
        raise DataError(f"{label}: a file was expected, there is none at {shown}")
    size = path.stat().st_size
    if size > MOST_BYTES[kind]:
        raise DataError(f"{label}: at most {MOST_BYTES[kind]} bytes were expected, {shown} has {size}")
    return path, kind


def _from_array(value: object, rate: float | None, label: str) -> Recording:
    array = _array(value, label)
    if array.ndim == 1:
        sound_of(array, label)
        return Recording("audio", array, sound_rate(rate, f"{label}_rate"))
    if array.dtype == np.uint8 and array.ndim in (3, 4) and array.shape[-1] == 3 and array.size:
        if array.ndim == 3:
            return Recording("image", array)
        if len(array) > MOST_FRAMES:
            raise DataError(f"{label}: at most {MOST_FRAMES} frames were expected, {len(array)} came")
        _check_frame_rate(rate, label)
        return Recording("video", array, rate)
    raise DataError(
        f"{label}: sound (samples,), or uint8 of an image (height, width, 3) or a video (frames, height, "
        f"width, 3) was expected, an array of {array.dtype} and shape {array.shape} came"
    )


def _array(value: object, label: str) -> PlainArray:
    if not isinstance(value, (np.ndarray, list, tuple)):
        raise DataError(f"{label}: a path or an array was expected, {type(value).__name__} came")
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        array = np.empty(0, object)
    if array.dtype.kind not in "iuf":
        raise DataError(f"{label}: a path or an array of numbers was expected, something else came")
    return array


def _check_frame_rate(rate: float | None, label: str) -> None:
    if rate is not None and rate > MOST_FRAMES_A_SECOND:
        raise DataError(f"{label}_rate: frames a second were expected, {rate:g} came")
