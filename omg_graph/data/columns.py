"""One modality of one split: whatever a file holds, as an array and what is observed of it."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from omg_graph.data.arrays import is_nothing, per_sample
from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, ModalityKind
from omg_graph.errors import DataError

FillNonfinite = Literal["zero", "mean"]

_RESERVED = frozenset(("id", "group", "raw_text", "annotations", "observed", "text_bert"))


def is_reserved(name: str, beside: Container[str] = ()) -> bool:
    """Whether a field of this name is never a modality, given the fields ``beside`` it."""
    return (
        name in _RESERVED
        or name.endswith("_lengths")
        or "label" in name.lower()
        or recorded_modality(name, beside) is not None
    )


def recorded_modality(name: str, beside: Container[str]) -> str | None:
    """The modality whose recordings, or their rates, a field of this name holds, given those beside it.

    That is ``audio`` for ``raw_audio`` and ``raw_audio_rate``; None where no field is called so.
    """
    if not name.startswith("raw_"):
        return None
    for modality in (name.removeprefix("raw_"), name.removeprefix("raw_").removesuffix("_rate")):
        if modality in beside and not is_reserved(modality):
            return modality
    return None


@dataclass(frozen=True)
class Column:
    """One modality of one split as the file gives it."""

    name: str
    kind: ModalityKind
    values: FloatArray
    """(samples, *shape); zeros where nothing is given, and not yet finite everywhere."""
    given: BoolArray
    """(samples,): False where the file holds None, or says that the modality is not observed."""
    lengths: IntArray | None = None
    """(samples,): frames that are there."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""
        return self.values.shape[1:]

    @cached_property
    def inside(self) -> BoolArray:
        """(samples, *shape): True for numbers that are no padding and belong to a given row."""
        inside = np.broadcast_to(_beside(self.given, self.values), self.values.shape)
        if self.lengths is None:
            return inside
        within: BoolArray = np.arange(self.shape[0])[None, :] < self.lengths[:, None]
        return inside & within[:, :, None]

    @cached_property
    def observed(self) -> BoolArray:
        """(samples,): rows that are given, have a frame, and are not wholly NaN."""
        axes = tuple(range(1, self.values.ndim))
        return np.asarray(np.any(self.inside & ~np.isnan(self.values), axis=axes))

    @cached_property
    def lost(self) -> BoolArray | None:
        """(samples, frames): wholly NaN frames of rows that are observed; None where no frame is lost."""
        # a look at one feature spares whole files the rest
        if self.kind != "sequence" or not np.isnan(self.values[..., 0]).any():
            return None
        lost: BoolArray = np.all(np.isnan(self.values) & self.inside, axis=2)
        lost &= self.observed[:, None]
        return lost if lost.any() else None

    @cached_property
    def broken(self) -> IntArray:
        """(samples,): how many numbers of an observed row are not finite, lost frames left out."""
        wrong = self.inside & ~np.isfinite(self.values)
        if self.lost is not None:
            wrong &= ~self.lost[:, :, None]
        counts: IntArray = wrong.sum(axis=tuple(range(1, wrong.ndim)), dtype=np.int64)
        return counts * self.observed

    def means(self) -> FloatArray:
        """The mean of each feature (of each pixel, of an image) over its finite values, 0 where none is."""
        good = self.inside & np.isfinite(self.values)
        axes = (0, 1) if self.kind == "sequence" else (0,)
        total = np.where(good, self.values, 0.0).sum(axis=axes, dtype=np.float64)
        means: FloatArray = (total / np.maximum(good.sum(axis=axes), 1)).astype(np.float32)
        return means

    def finite(
        self, fill: FillNonfinite | None, means: FloatArray, *, ids: Sequence[str], where: str
    ) -> FloatArray:
        """(samples, *shape): the values, 0 in missing rows, padding and lost frames, finite everywhere.

        Args:
            fill: what takes the place of other non-finite numbers.
            means: of each feature, for ``fill="mean"``.
            ids: of the samples, for messages.
            where: the split, for messages.

        Raises:
            DataError: if a row, or a frame of a sequence, is partly non-finite and ``fill`` is None.
        """
        broken = self.broken
        if broken.any() and fill is None:
            row = int(np.flatnonzero(broken)[0])
            frames = ", or make the whole frame NaN if it is lost" if self.kind == "sequence" else ""
            raise DataError(
                f"{where}: modality {self.name!r}: expected finite numbers, {int(broken[row])} of "
                f"{int(np.prod(self.shape))} in row {ids[row]!r} are not ({int((broken > 0).sum())} "
                f"such rows): give --fill-nonfinite zero or mean, or make the row None{frames}"
            )
        array = self.values.copy()
        if broken.any():
            wrong = ~np.isfinite(array)
            array[wrong] = np.broadcast_to(means, array.shape)[wrong] if fill == "mean" else 0.0
        array[~(_beside(self.observed, array) & self.inside)] = 0.0
        if self.lost is not None:
            array[self.lost] = 0.0
        return array


def read_column(name: str, value: object, rows: int, *, single: bool, where: str) -> Column | None:
    """One modality of a split of ``rows`` samples, or None if the file gives nothing for any of them.

    Args:
        name: of the modality.
        value: an array (rows, ...), or a list of ``rows`` arrays, nested lists and None; with ``single`` the
            value of the one sample.
        rows: samples of the split.
        single: whether the value has no axis of samples.
        where: the split, for messages.

    Raises:
        DataError: if the value isn't numeric, or hasn't a row for each sample.
    """
    label = f"{where}: modality {name!r}"
    if single:
        value = value[None] if isinstance(value, np.ndarray) else [value]
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise DataError(f"{label}: expected an array of numbers, got one of {value.dtype}")
        return _from_array(name, value, rows, label)
    if isinstance(value, (list, tuple)):
        return _from_rows(name, value, rows, label)
    raise DataError(f"{label}: expected an array or a list of rows, got {type(value).__name__}")


def _from_array(name: str, value: npt.NDArray[np.generic], rows: int, label: str) -> Column:
    if value.ndim == 0 or len(value) != rows:
        raise DataError(f"{label}: expected {rows} rows, got an array of shape {value.shape}")
    if value.ndim == 1:
        value = value[:, None]
    kind = _kind(value.ndim - 1, value.dtype == np.uint8, label)
    if 0 in value.shape[1:]:
        raise DataError(f"{label}: expected at least one feature, got the shape {value.shape}")
    return Column(name, kind, _as_float(value), np.ones(rows, bool))


def _from_rows(name: str, value: Sequence[object], rows: int, label: str) -> Column | None:
    if len(value) != rows:
        raise DataError(f"{label}: expected {rows} rows, got a list of {len(value)}")
    given = np.array([not is_nothing(row) for row in value], bool)
    arrays = {index: _row(row, f"{label}, row {index}") for index, row in enumerate(value) if given[index]}
    if not arrays:
        return None
    first = next(iter(arrays.values()))
    if first.ndim == 0:
        arrays = {index: array.reshape(-1) for index, array in arrays.items()}
        first = next(iter(arrays.values()))
    kind = _kind(first.ndim, all(array.dtype == np.uint8 for array in arrays.values()), label)
    ragged = kind == "sequence" and len({len(array) for array in arrays.values() if array.ndim}) > 1
    frames = max(len(array) for array in arrays.values() if array.ndim)
    shape = (frames, *first.shape[1:]) if ragged else first.shape
    if 0 in shape:
        raise DataError(f"{label}: expected at least one feature, got a row of shape {shape}")
    if len(shape) > 1 and rows * int(np.prod(shape)) > 64 * sum(a.size for a in arrays.values()) + 2**24:
        raise DataError(f"{label}: expected rows of similar lengths: cut the longest or leave it out")
    values = np.zeros((rows, *shape), np.float32)
    lengths = np.zeros(rows, np.int64) if ragged else None
    for index, array in arrays.items():
        if array.shape[ragged:] != shape[ragged:]:
            raise DataError(f"{label}, row {index}: expected shape {shape}, got {array.shape}")
        values[index, : len(array)] = _as_float(array)
        if lengths is not None:
            lengths[index] = len(array)
    return Column(name, kind, values, given, lengths)


def _kind(axes: int, is_uint8: bool, label: str) -> ModalityKind:
    if axes == 1:
        return "vector"
    if axes == 2:
        return "image" if is_uint8 else "sequence"
    if axes == 3:
        return "image"
    raise DataError(
        f"{label}: expected a sample of 1 axis (features), 2 (frames, features) or 3 (channels, "
        f"height, width), got one of {axes}"
    )


def _as_float(array: npt.NDArray[np.generic]) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(array, dtype=np.float32)


def _row(row: object, label: str) -> npt.NDArray[np.generic]:
    """One sample from nested lists; None inside becomes NaN."""
    if isinstance(row, np.ndarray):
        if row.dtype.kind not in "biuf":
            raise DataError(f"{label}: expected numbers, got an array of {row.dtype}")
        return row
    if isinstance(row, (int, float, np.number, np.bool_)):
        return np.asarray(row)
    if not isinstance(row, (list, tuple)) or not row:
        raise DataError(f"{label}: expected a list of numbers, got {_described(row)}")
    try:
        if all(item is None or isinstance(item, (int, float, np.number, np.bool_)) for item in row):
            return np.array(row, dtype=np.float64)
        parts = {place: _row(item, label) for place, item in enumerate(row) if item is not None}
        nothing = np.full_like(next(iter(parts.values())), np.nan, dtype=np.float64)
        return np.stack([parts.get(place, nothing) for place in range(len(row))])
    except (ValueError, OverflowError) as error:
        raise DataError(f"{label}: expected an array of numbers: {str(error)[:80]}") from None


def _described(value: object) -> str:
    return "an empty list" if isinstance(value, (list, tuple)) else type(value).__name__


def with_lengths(column: Column, value: object, *, where: str) -> Column:
    """The column with the lengths of a field ``<name>_lengths``; a length of 0 means that the row is missing.

    Raises:
        DataError: if there isn't a whole number from 0 to the number of frames for each sample.
    """
    label = f"{where}: {column.name}_lengths"
    rows, frames = len(column.given), column.shape[0]
    lengths = np.zeros(rows, np.int64)
    for row, item in enumerate(per_sample(value, rows, label, single=rows == 1)):
        if is_nothing(item):
            continue
        if not isinstance(item, (int, float)) or not 0 <= item <= frames or item != int(item):
            raise DataError(f"{label}: expected a number from 0 to {frames}, row {row} has {item!r:.40}")
        lengths[row] = int(item)
    return replace(column, lengths=lengths)


def _beside(rows: BoolArray, array: FloatArray) -> BoolArray:
    return rows.reshape(-1, *([1] * (array.ndim - 1)))
