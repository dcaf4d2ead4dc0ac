"""Make a split fit the modalities of a trained model, and hide some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, ModalitySpec, Split
from omg_graph.errors import DataError

EmptyRows = Literal["refuse", "drop", "keep"]


def conform(
    split: Split, specs: Sequence[ModalitySpec], source: str, *, empty_rows: EmptyRows = "refuse"
) -> tuple[Split, tuple[str, ...]]:
    """The split with exactly these modalities, in this order and shape, and notes on what was changed.

    A modality that the split doesn't hold is missing in every row. Axes of length 1 come and go as needed;
    shorter sequences are padded with zeros and get lengths.

    Args:
        split: as read.
        specs: the model's modalities.
        source: the file, for messages.
        empty_rows: what becomes of a row with none of the modalities observed.

    Raises:
        DataError: if there are no rows, a shape doesn't fit, or a row has nothing observed.
    """
    label = f"{source}: {split.name}"
    if not len(split):
        raise DataError(f"{label}: at least one sample was expected, the split is empty")
    notes: list[str] = []
    arrays: dict[str, FloatArray] = {}
    observed: dict[str, BoolArray] = {}
    lengths: dict[str, IntArray] = {}
    lost: dict[str, BoolArray] = {}
    for spec in specs:
        if spec.name not in split.arrays:
            arrays[spec.name] = np.zeros((len(split), *spec.shape), np.float32)
            observed[spec.name] = np.zeros(len(split), bool)
            notes.append(f"{spec.name} is not in {split.name!r}: missing in every row")
            continue
        fitted = _fitted(split, spec, label)
        arrays[spec.name] = fitted.array
        observed[spec.name] = split.observed[spec.name]
        if fitted.lengths is not None:
            lengths[spec.name] = fitted.lengths
        if spec.name in split.lost:
            lost[spec.name] = _fitted_gaps(split.lost[spec.name], spec, label)
    unknown = [name for name in split.names if name not in arrays]
    if unknown:
        notes.append(f"{', '.join(unknown)} left out: the model doesn't know them")
    result = replace(
        split,
        modalities=tuple(specs),
        arrays=arrays,
        observed=observed,
        lengths=lengths,
        lost=lost,
        recordings={name: rows for name, rows in split.recordings.items() if name in arrays},
        unimodal={name: values for name, values in split.unimodal.items() if name in arrays},
    )
    empty = np.flatnonzero(~result.mask().any(axis=1))
    if len(empty) and empty_rows == "refuse":
        raise DataError(
            f"{label}: something of {', '.join(spec.name for spec in specs)} was expected in every row, "
            f"nothing is observed in row {split.ids[empty[0]]!r} ({len(empty)} such rows)"
        )
    if len(empty) and empty_rows == "drop":
        if len(empty) == len(split):
            raise DataError(f"{label}: nothing is observed in any row")
        result = result.take(np.setdiff1d(np.arange(len(split)), empty))
        notes.append(f"{len(empty)} rows of {split.name!r} left out: nothing is observed in them")
    return result, tuple(notes)


@dataclass(frozen=True)
class _Fitted:
    array: FloatArray
    lengths: IntArray | None


def _fitted(split: Split, spec: ModalitySpec, label: str) -> _Fitted:
    array, lengths = split.arrays[spec.name], split.lengths.get(spec.name)
    shape = array.shape[1:]
    if shape == spec.shape:
        return _Fitted(array, lengths)
    if len(shape) != len(spec.shape) and _squeezed(shape) == _squeezed(spec.shape):
        reshaped = array.reshape(len(split), *spec.shape)
        return _Fitted(reshaped, lengths if spec.kind == "sequence" and shape[0] == spec.shape[0] else None)
    is_sequence = spec.kind == "sequence" and len(shape) == 2
    if is_sequence and shape[1] == spec.shape[1] and shape[0] < spec.shape[0]:
        padded = np.zeros((len(split), *spec.shape), np.float32)
        padded[:, : shape[0]] = array
        there = np.where(split.observed[spec.name], shape[0], 0).astype(np.int64)
        return _Fitted(padded, there if lengths is None else lengths)
    cut = _cut(array, lengths, spec) if is_sequence else None
    if cut is not None:
        return cut
    at_most = "at most " if spec.kind == "sequence" else ""
    raise DataError(
        f"{label}: modality {spec.name!r}: {at_most}{_times(spec.shape)} numbers a sample were expected, "
        f"{_times(shape)} came: give the features that the model was trained on"
    )


def _cut(array: FloatArray, lengths: IntArray | None, spec: ModalitySpec) -> _Fitted | None:
    """A sequence that is longer by nothing but padding."""
    frames = spec.shape[0]
    if lengths is None or array.shape[2] != spec.shape[1] or lengths.max(initial=0) > frames:
        return None
    return _Fitted(array[:, :frames], lengths)


def _fitted_gaps(lost: BoolArray, spec: ModalitySpec, label: str) -> BoolArray:
    """The lost frames, for as many frames as the model has."""
    if spec.kind != "sequence":
        raise DataError(
            f"{label}: modality {spec.name!r}: {_times(spec.shape)} finite numbers a sample were expected, "
            "as the model knows no frames of it, some NaN came: give these, or make the row None"
        )
    fitted = np.zeros((len(lost), spec.shape[0]), bool)
    frames = min(lost.shape[1], spec.shape[0])
    fitted[:, :frames] = lost[:, :frames]
    return fitted


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def hide_modalities(split: Split, missing: Sequence[str]) -> tuple[Split, BoolArray]:
    """The split with these modalities hidden, the transcript with the text, and what was hidden.

    Returns:
        The split, and (samples, modalities), True where a modality was observed and now is hidden.

    Raises:
        DataError: if a name isn't known.
    """
    for name in missing:
        if name not in split.names:
            raise DataError(f"--missing: one of {', '.join(split.names)} was expected, {name!r} came")
    named = np.array([name in missing for name in split.names], bool)
    return split.hide(np.broadcast_to(named, (len(split), len(named)))), split.mask() & named
