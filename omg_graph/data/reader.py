"""Read a data file: splits, modalities, what is observed of them, transcripts and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np

from omg_graph.data.arrays import printable, read_npz
from omg_graph.data.columns import FillNonfinite, is_reserved
from omg_graph.data.dataset import TEXT_MODALITY, FloatArray, ModalitySpec, Split
from omg_graph.data.fields import (
    Layout,
    RawSplit,
    find_layout,
    modality_candidates,
    nested,
    read_raw_split,
)
from omg_graph.data.labels import choose_label, read_labels, read_unimodal
from omg_graph.data.pickles import read_pickle
from omg_graph.errors import DataError


@dataclass(frozen=True)
class DataFile:
    """The splits of a file, and what was decided in reading it."""

    path: Path
    sha256: str
    """Of the file's bytes; where recordings lie beside it, of these and their paths and sizes."""
    splits: dict[str, Split]
    single: bool
    """Whether it is one sample, and not rows of them."""
    notes: tuple[str, ...]
    """What a user may want to know: which label, which fields were left out."""
    flat: bool = False
    """Whether the file names no splits."""
    numbered: bool = False
    """Whether row numbers serve as ids, in some split: another file has the same ones."""


class ReadOptions(TypedDict, total=False):
    """How data are read, from a file or from memory."""

    modalities: Sequence[str] | None
    """The fields to read as modalities; every numeric array by default."""
    label: str | None
    """The target's field; ``regression_labels`` or the only one by default."""
    fill_nonfinite: FillNonfinite | None
    """What takes the place of NaN and infinity in rows that are partly there: 0, or the feature's mean over
    ``train`` (over the split itself where there is no ``train``). By default they are an error. Wholly NaN
    frames of a sequence are lost frames, whatever this says."""
    with_labels: bool
    """Whether to read labels at all; yes by default."""
    specs: Sequence[ModalitySpec]
    """Modalities of the model that will read it: they tell one sample from rows where nothing else does."""
    feature_means: Mapping[str, FloatArray] | None
    """Modality to the means that ``mean`` fills with, a model's own: what takes the place of a number then
    doesn't depend on the rows beside it."""
    leave_out: Collection[str]
    """Splits that are not looked at where there is ``train``; training leaves out ``test``."""


def read_data_file(path: Path, **options: Unpack[ReadOptions]) -> DataFile:
    """Read a pickle or an ``.npz`` file of samples; which of both it is, its first bytes say.

    Args:
        path: the file.
        **options: see ``ReadOptions``.

    Raises:
        UnsafeFileError: if the file asks for anything beyond plain data.
        DataError: if the file can't be used.
    """
    content = read_content(path)
    try:
        layout = find_layout(content, options.get("specs", ()))
        data = _data_file(layout, path, file_digest(path), path.parent, **options)
    except DataError as error:
        raise type(error)(f"{path}: {printable(error)}") from None
    beside = _files_beside(data.splits)
    if not beside:
        return data
    digest = hashlib.sha256("\n".join([data.sha256, *beside]).encode())
    return replace(data, sha256=digest.hexdigest())


def read_mapping(
    content: Mapping[str, object] | Sequence[Mapping[str, object]],
    *,
    source: str,
    folder: Path | None = None,
    **options: Unpack[ReadOptions],
) -> DataFile:
    """The same for data in memory: what a file would hold, or a list of samples; lists may stand for arrays.

    Args:
        content: splits, rows or one sample, or a list of samples.
        source: what to call it in messages, and the ``path`` of the result.
        folder: that paths of recordings start in, and stay in; where the program runs if None.
        **options: see ``ReadOptions``.

    Raises:
        DataError: if the data can't be used.
    """
    try:
        layout = find_layout(content, options.get("specs", ()))
        data = _data_file(layout, Path(source), "", folder or Path(), **options)
    except DataError as error:
        raise type(error)(f"{source}: {printable(error)}") from None
    return replace(data, sha256=_content_digest(data.splits))


def read_content(path: Path) -> object:
    """The plain content of a file, before anything is made of it.

    Raises:
        DataError: if there is no such file, or it is neither a pickle nor an ``.npz`` file.
    """
    if not path.is_file():
        found = "got a folder" if path.is_dir() else "there is none"
        raise DataError(f"{path}: expected a data file (.pkl or .npz), {found}: check the path")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise DataError(f"{path}: the file can't be read: {error.strerror}") from None
    if start.startswith(b"PK"):
        return nested(read_npz(path))
    if len(start) >= 2 and start[0] == 0x80 and start[1] in range(2, 6):
        return read_pickle(path)
    raise DataError(
        f"{path}: expected a pickle (protocol 2 to 5) or an .npz file, got "
        f"{'an empty file' if not start else 'something else'}: save the samples as one of these"
    )


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_raw_splits(
    layout: Layout, modalities: Sequence[str] | None, label: str | None, folder: Path
) -> list[RawSplit]:
    """The splits of a file, before it is decided what is observed of them.

    Args:
        layout: of the file.
        modalities: the fields to read as modalities; all numeric ones when None.
        label: the target's field.
        folder: that paths of recordings start in, and stay in.

    Raises:
        DataError: if a split has no rows to count, or a modality is asked for that no split holds.
    """
    if modalities is not None:
        _check_asked(layout, modalities)
    return [
        read_raw_split(name, fields, single=layout.single, modalities=modalities, label=label, folder=folder)
        for name, fields in layout.splits.items()
    ]


def _data_file(
    layout: Layout,
    path: Path,
    sha256: str,
    folder: Path,
    *,
    modalities: Sequence[str] | None = None,
    label: str | None = None,
    fill_nonfinite: FillNonfinite | None = None,
    with_labels: bool = True,
    specs: Sequence[ModalitySpec] = (),
    feature_means: Mapping[str, FloatArray] | None = None,
    leave_out: Collection[str] = (),
) -> DataFile:
    if "train" in layout.splits:
        kept = {name: fields for name, fields in layout.splits.items() if name not in leave_out}
        layout = replace(layout, splits=kept)
    target, note = choose_label(layout.splits, label) if with_labels else (None, None)
    raws = read_raw_splits(layout, modalities, target, folder)
    for raw in raws:
        if raw.errors:
            raise raw.errors[0]
        if modalities is None:
            _check_kinds(raw, specs)
    if not any(raw.columns for raw in raws):
        names = list(dict.fromkeys(name for fields in layout.splits.values() for name in fields))
        raise DataError(
            "expected a modality (an array of numbers, samples by features), got the fields "
            f"{', '.join(names[:12])}: give one"
        )
    labels = read_labels(layout, raws, target) if target is not None else {}
    unimodal = read_unimodal(layout, raws, next(iter(labels.values()))) if labels else {}
    train = next((raw for raw in raws if raw.name == "train" or len(raws) == 1), None)
    means = {} if train is None else {name: column.means() for name, column in train.columns.items()}
    means |= feature_means or {}
    splits = {
        raw.name: replace(
            _split(raw, fill_nonfinite, means),
            labels=labels.get(raw.name),
            unimodal=unimodal.get(raw.name, {}),
        )
        for raw in raws
    }
    notes = (*([note] if note else []), *_notes(raws, [spec.name for spec in specs]))
    numbered = any(raw.numbered for raw in raws)
    return DataFile(path, sha256, splits, layout.single, notes, layout.flat, numbered)


def _split(raw: RawSplit, fill: FillNonfinite | None, means: Mapping[str, FloatArray]) -> Split:
    """A split with finite numbers everywhere, ``fill`` taking the place of those that aren't."""
    arrays, columns = {}, raw.columns
    for name, column in columns.items():
        own = column.means()
        known = means.get(name, own)
        fitting = known if known.shape == own.shape else own
        arrays[name] = column.finite(fill, fitting, ids=raw.ids, where=raw.name)
    observed = {name: column.observed for name, column in columns.items()}
    raw_text = raw.raw_text
    if raw_text is not None and TEXT_MODALITY in columns:
        rows = zip(raw_text, observed[TEXT_MODALITY], strict=True)
        raw_text = tuple(text if seen else None for text, seen in rows)
    return Split(
        name=raw.name,
        ids=raw.ids,
        groups=raw.groups,
        modalities=tuple(
            ModalitySpec(name=name, kind=column.kind, shape=column.shape)
            for name, column in raw.columns.items()
        ),
        arrays=arrays,
        observed=observed,
        lengths={
            name: np.where(column.observed, column.lengths, 0)
            for name, column in columns.items()
            if column.lengths is not None
        },
        lost={name: column.lost for name, column in columns.items() if column.lost is not None},
        raw_text=raw_text,
        recordings={
            name: tuple(one if seen else None for one, seen in zip(rows, observed[name], strict=True))
            for name, rows in raw.recordings.items()
        },
    )


def _check_asked(layout: Layout, modalities: Sequence[str]) -> None:
    held = {name for fields in layout.splits.values() for name in fields}
    for name in modalities:
        if name not in held or is_reserved(name, held - {name}):
            known = dict.fromkeys(
                candidate
                for fields in layout.splits.values()
                for candidate in modality_candidates(fields, layout.single)
            )
            raise DataError(f"--modalities: expected some of {', '.join(known)}, got {name!r}")


def _check_kinds(raw: RawSplit, specs: Sequence[ModalitySpec]) -> None:
    """What the model takes for a modality must not be passed over because it holds something else."""
    for spec in specs:
        if spec.name in raw.ignored:
            raise DataError(
                f"{raw.name}: {spec.name}: expected numbers, as it is a modality of the model, "
                "got something else: give its features, or None where it is missing"
            )


def _notes(raws: Sequence[RawSplit], known: Sequence[str]) -> list[str]:
    """What was decided; that modalities which are known of are missing tells whoever needs them."""
    notes = []
    numbered = [raw.name for raw in raws if raw.numbered]
    if numbered:
        notes.append(f"no ids in {', '.join(numbered)}: the row numbers serve")
    ignored = dict.fromkeys(name for raw in raws for name in raw.ignored)
    if ignored:
        notes.append(f"fields left out, being no modalities: {', '.join(ignored)}")
    empty = dict.fromkeys(
        f"{name} of {raw.name!r}" for raw in raws for name in raw.empty if name not in known
    )
    if empty:
        notes.append(f"no values in the field{'s' if len(empty) > 1 else ''} {', '.join(empty)}")
    notes += [note for raw in raws for note in raw.recording_notes()]
    return list(dict.fromkeys(notes))


def _files_beside(splits: Mapping[str, Split]) -> list[str]:
    """A line for each file of a recording: its name and size, which cost little to read."""
    return [
        repr((name, modality, row, path.name, path.stat().st_size))
        for name, split in splits.items()
        for modality, recordings in split.recordings.items()
        for row, recording in enumerate(recordings)
        if recording is not None
        for path in recording.paths
    ]


def _content_digest(splits: Mapping[str, Split]) -> str:
    digest = hashlib.sha256()
    for name, split in splits.items():
        labels = None if split.labels is None else split.labels.values.tolist()
        digest.update(repr((name, split.ids, split.groups, split.raw_text, labels)).encode())
        for modality, values in split.unimodal.items():
            digest.update(repr((modality, values.tolist())).encode())
        for spec in split.modalities:
            digest.update(spec.model_dump_json().encode())
            digest.update(np.ascontiguousarray(split.arrays[spec.name]).tobytes())
            digest.update(split.observed[spec.name].tobytes())
            if spec.name in split.lost:
                digest.update(split.lost[spec.name].tobytes())
        in_memory = [
            f"{modality} {row} {recording.sha256}"
            for modality, recordings in split.recordings.items()
            for row, recording in enumerate(recordings)
            if recording is not None and not recording.paths
        ]
        digest.update("\n".join(in_memory).encode())
    digest.update("\n".join(_files_beside(splits)).encode())
    return digest.hexdigest()
