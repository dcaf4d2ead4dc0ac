"""Which rows of a file are used, in which shape: one split, all as one, training and validation rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Literal

import numpy as np

from omg_graph.data.dataset import (
    BoolArray,
    FloatArray,
    IntArray,
    Labels,
    ModalitySpec,
    Split,
    check_names,
    squeezed,
)
from omg_graph.data.reader import DataFile
from omg_graph.errors import DataError
from omg_graph.seeding import derived_seed

ALL = "all"
"""What is asked for to have every row of a file."""

HELD_OUT = 0.1
"""The share of the training rows that stands in for a missing ``valid``."""

EmptyRows = Literal["refuse", "drop", "keep"]


def choose_split(data: DataFile, requested: str | None) -> tuple[Split, str]:
    """The split to reconstruct, and a note on which one it is: the only one, else ``test``, else ``valid``.

    ``all`` are all of them as one, unless a split has that name.

    Raises:
        DataError: if the requested split isn't there, or none of these is.
    """
    splits = data.splits
    if requested == ALL and ALL not in splits:
        return pooled(list(splits.values()), str(data.path), ALL), f"all rows: {', '.join(splits)}"
    if requested is not None:
        if requested not in splits:
            raise DataError(f"--split: expected one of {', '.join(splits)}, got {requested!r} ({data.path})")
        return splits[requested], f"split {requested!r}, as asked"
    if len(splits) == 1:
        (name,) = splits
        return splits[name], "the one sample" if data.single else f"split {name!r}, the only one"
    for name in ("test", "valid"):
        if name in splits:
            return splits[name], f"split {name!r}; --split takes another ({', '.join(splits)})"
    raise DataError(f"{data.path}: expected a split: give --split with one of {', '.join(splits)}")


def training_splits(data: DataFile, seed: int) -> tuple[Split, Split, str]:
    """What to fit on and what to choose on; ``test`` is never among them.

    ``train`` and ``valid`` where both are there; without ``valid`` a tenth of the training rows, by whole
    groups, is held out. A file with one split, whatever its name, or none, is all training rows. Rows with
    nothing observed are left out, and so are modalities that no training row has.

    Args:
        data: the file.
        seed: decides which groups are held out, together with the groups' names alone.

    Returns:
        The training rows, the validation rows, which hold the same modalities, and a note on both.

    Raises:
        DataError: if there is nothing to train on, or nothing to hold out.
    """
    splits, source = data.splits, str(data.path)
    if "train" in splits:
        train = splits["train"]
    elif len(splits) == 1 and "test" not in splits:
        (train,) = splits.values()
    else:
        raise DataError(
            f"{source}: expected a split 'train', got {', '.join(splits)}; 'test' is never trained on"
        )
    specs = [spec for spec in train.modalities if train.observed[spec.name].any()]
    known = [spec.name for spec in specs]
    if not known:
        raise DataError(f"{source}: {train.name}: nothing is observed in any row")
    try:
        check_names(known)
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    valid = splits["valid"] if "valid" in splits and train.name != "valid" else None
    every = dict.fromkeys((*train.names, *(() if valid is None else valid.names)))
    unseen = [name for name in every if name not in known]
    train, changes = conform(train.only(known), specs, source, empty_rows="drop")
    notes = [f"fitted on {train.name!r} ({len(train)})", *changes]
    if unseen:
        notes.append(f"{', '.join(unseen)} left out: no row of {train.name!r} has it")
    if valid is not None:
        valid, changes = conform(valid.only(known), specs, source, empty_rows="drop")
        notes += [f"chosen on 'valid' ({len(valid)})", *changes]
        return train, valid, "; ".join(notes)
    unread = [name for name in splits if name not in (train.name, "test")]
    if unread:
        notes.append(f"not read: {', '.join(unread)}; a split to choose on is called 'valid'")
    held, how = _held_out(train, seed, source)
    notes.append(f"{held.sum()} of them held out to choose on, {how}")
    return train.take(np.flatnonzero(~held)), train.take(np.flatnonzero(held)), "; ".join(notes)


def _held_out(train: Split, seed: int, source: str) -> tuple[BoolArray, str]:
    if len(train) < 2:
        raise DataError(f"{source}: expected at least two training samples, got {len(train)}")
    by_group = len(set(train.groups)) > 1
    owners = train.groups if by_group else train.ids
    names = sorted(set(owners))
    order = np.random.default_rng(derived_seed(seed, "held out")).permutation(len(names))
    wanted = max(1, round(HELD_OUT * len(train)))
    chosen: set[str] = set()
    rows = 0
    for position in order[:-1]:
        if rows >= wanted:
            break
        chosen.add(names[position])
        rows += owners.count(names[position])
    held = np.array([owner in chosen for owner in owners], bool)
    how = f"by group ({len(chosen)} of {len(names)})" if by_group else "by row, for there is only one group"
    return held, how


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
        raise DataError(f"{label}: expected at least one sample, the split is empty")
    notes: list[str] = []
    arrays, observed = {}, {}
    lengths: dict[str, IntArray] = {}
    lost: dict[str, BoolArray] = {}
    for spec in specs:
        name = spec.name
        if name not in split.arrays:
            arrays[name] = np.zeros((len(split), *spec.shape), np.float32)
            observed[name] = np.zeros(len(split), bool)
            notes.append(f"{name} is not in {split.name!r}: missing in every row")
            continue
        observed[name] = split.observed[name]
        arrays[name], frames = _fitted(split, spec, label)
        if frames is not None:
            lengths[name] = frames
        if name in split.lost:
            lost[name] = _fitted_gaps(split.lost[name], spec, label)
    unknown = [name for name in split.names if name not in arrays]
    if unknown:
        notes.append(f"{', '.join(unknown)} left out: the model doesn't know them")
    result = replace(
        split.only(arrays),
        modalities=tuple(specs),
        arrays=arrays,
        observed=observed,
        lengths=lengths,
        lost=lost,
    )
    empty = np.flatnonzero(~result.mask().any(axis=1))
    if len(empty) and empty_rows == "refuse":
        raise DataError(
            f"{label}: expected something of {', '.join(spec.name for spec in specs)} in every row, "
            f"nothing is observed in row {split.ids[empty[0]]!r} ({len(empty)} such rows)"
        )
    if len(empty) and empty_rows == "drop":
        if len(empty) == len(split):
            raise DataError(f"{label}: nothing is observed in any row")
        result = result.take(np.setdiff1d(np.arange(len(split)), empty))
        notes.append(f"{len(empty)} rows of {split.name!r} left out: nothing is observed in them")
    return result, tuple(notes)


def _fitted(split: Split, spec: ModalitySpec, label: str) -> tuple[FloatArray, IntArray | None]:
    """A modality's array in the shape of ``spec``, and the lengths of its sequences where they differ."""
    array, lengths = split.arrays[spec.name], split.lengths.get(spec.name)
    shape = array.shape[1:]
    if shape == spec.shape:
        return array, lengths
    if len(shape) != len(spec.shape) and squeezed(shape) == squeezed(spec.shape):
        same_frames = spec.kind == "sequence" and shape[0] == spec.shape[0]
        return array.reshape(len(split), *spec.shape), lengths if same_frames else None
    if spec.kind == "sequence" and len(shape) == 2 and shape[1] == spec.shape[1]:
        frames = spec.shape[0]
        if shape[0] < frames:
            padded = np.zeros((len(split), *spec.shape), np.float32)
            padded[:, : shape[0]] = array
            return padded, _lengths(split, spec.name)
        if lengths is not None and lengths.max(initial=0) <= frames:
            return array[:, :frames], lengths  # longer by nothing but padding
    at_most = "at most " if spec.kind == "sequence" else ""
    raise DataError(
        f"{label}: modality {spec.name!r}: expected {at_most}{_times(spec.shape)} numbers a "
        f"sample, got {_times(shape)}: give the features that the model was trained on"
    )


def _lengths(split: Split, name: str) -> IntArray:
    """(samples,): the frames of a modality's sequences, none where it is missing."""
    whole = np.where(split.observed[name], split.arrays[name].shape[1], 0).astype(np.int64)
    return split.lengths.get(name, whole)


def _fitted_gaps(lost: BoolArray, spec: ModalitySpec, label: str) -> BoolArray:
    """The lost frames, for as many frames as the model has."""
    if spec.kind != "sequence":
        raise DataError(
            f"{label}: modality {spec.name!r}: expected finite numbers, got some NaN: "
            "the model knows no frames of it, give these numbers or make the row None"
        )
    fitted = np.zeros((len(lost), spec.shape[0]), bool)
    frames = min(lost.shape[1], spec.shape[0])
    fitted[:, :frames] = lost[:, :frames]
    return fitted


def _times(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def hide_modalities(split: Split, missing: Sequence[str]) -> tuple[Split, BoolArray]:
    """The split with these modalities hidden, the transcript with the text, and what was hidden.

    Returns:
        The split, and (samples, modalities), True where a modality was observed and now is hidden.

    Raises:
        DataError: if a name isn't known.
    """
    for name in missing:
        if name not in split.names:
            raise DataError(f"--missing: expected one of {', '.join(split.names)}, got {name!r}")
    named = np.array([name in missing for name in split.names], bool)
    return split.hide(np.broadcast_to(named, (len(split), len(named)))), split.mask() & named


def pooled(splits: Sequence[Split], source: str, name: str = ALL) -> Split:
    """The rows of all splits, one after the other.

    A modality that a split lacks is missing in its rows, and sequences are padded to the longest.

    Args:
        splits: at least one.
        source: the file, for messages.
        name: of the whole.

    Raises:
        DataError: if an id comes in two of them, or shapes don't fit together.
    """
    twice, times = Counter(sample for split in splits for sample in split.ids).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"{source}: expected different ids in {', '.join(split.name for split in splits)}, "
            f"{twice[:60]!r} comes in {times} of them: take one split, or rename them"
        )
    if len(splits) == 1:
        return replace(splits[0], name=name)
    specs = _longest(splits)
    parts = [conform(split, specs, source, empty_rows="keep")[0] for split in splits]

    def rows_of(values: str, absent: Callable[[Split, str], Any]) -> dict[str, list[Any]]:
        """Modality to the rows of each part; ``absent`` stands in where only another part has some."""
        return {
            spec.name: [getattr(part, values).get(spec.name, absent(part, spec.name)) for part in parts]
            for spec in specs
            if any(spec.name in getattr(part, values) for part in parts)
        }

    def stacked(values: str, absent: Callable[[Split, str], Any] = lambda *_: None) -> dict[str, Any]:
        return {modality: np.concatenate(rows) for modality, rows in rows_of(values, absent).items()}

    def nothing(part: Split, _: str = "") -> tuple[None, ...]:
        return (None,) * len(part)

    texts = None
    if any(part.raw_text is not None for part in parts):
        texts = tuple(text for part in parts for text in part.raw_text or nothing(part))
    return Split(
        name=name,
        ids=tuple(sample for part in parts for sample in part.ids),
        groups=tuple(group for part in parts for group in part.groups),
        modalities=specs,
        arrays=stacked("arrays"),
        observed=stacked("observed"),
        lengths=stacked("lengths", _lengths),
        lost=stacked("lost", lambda part, modality: np.zeros(part.arrays[modality].shape[:2], np.bool_)),
        unimodal=stacked("unimodal", lambda part, _: np.full(len(part), np.nan)),
        recordings={
            modality: tuple(chain.from_iterable(rows))
            for modality, rows in rows_of("recordings", nothing).items()
        },
        raw_text=texts,
        labels=_labels(parts, source),
    )


def _longest(splits: Sequence[Split]) -> tuple[ModalitySpec, ...]:
    """Every modality of some split, as long as its longest."""
    found: dict[str, ModalitySpec] = {}
    for spec in (spec for split in splits for spec in split.modalities):
        known = found.setdefault(spec.name, spec)
        if spec.kind == "sequence" and spec.shape > known.shape:
            found[spec.name] = spec
    return tuple(found.values())


def _labels(splits: Sequence[Split], source: str) -> Labels | None:
    known = [split.labels for split in splits if split.labels is not None]
    if not known:
        return None
    if len({(labels.name, labels.kind, labels.class_names) for labels in known}) > 1:
        raise DataError(f"{source}: expected labels of one kind in all splits: name one with --label")
    parts = [np.full(len(s), np.nan) if s.labels is None else s.labels.values for s in splits]
    return replace(known[0], values=np.concatenate(parts))
