"""Read a data file: splits, modalities, what is observed of them, transcripts and labels."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from omg_graph.data.arrays import printable, read_npz
from omg_graph.data.columns import FillNonfinite, SettledColumn, is_reserved, settle
from omg_graph.data.dataset import TEXT_MODALITY, FloatArray, Labels, ModalitySpec, Split
from omg_graph.data.fields import Layout, RawSplit, find_layout, modality_candidates, nested, read_raw_split
from omg_graph.data.labels import choose_label, label_values, make_labels, regression, unimodal_fields
from omg_graph.data.pickles import read_pickle
from omg_graph.data.recordings import Recording
from omg_graph.errors import DataError

UnimodalLabels = dict[str, npt.NDArray[np.float64]]
"""Modality to (samples,), NaN where there is none."""


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
    """What a reader may want to know: which label, which fields were left out."""
    flat: bool = False
    """Whether the file names no splits."""
    numbered: bool = False
    """Whether row numbers serve as ids, in some split: another file has the same ones."""


def read_data_file(
    path: Path,
    *,
    modalities: Sequence[str] | None = None,
    label: str | None = None,
    fill_nonfinite: FillNonfinite | None = None,
    with_labels: bool = True,
    specs: Sequence[ModalitySpec] = (),
    leave_out: Collection[str] = (),
    feature_means: Mapping[str, FloatArray] | None = None,
) -> DataFile:
    """Read a pickle or an ``.npz`` file of samples; which of both it is, its first bytes say.

    Args:
        path: the file.
        modalities: the fields to read as modalities; every numeric array when None.
        label: the target's field; ``regression_labels`` or the only one when None.
        fill_nonfinite: what takes the place of NaN and infinity in rows that are partly there: 0, or the
            feature's mean over ``train`` (over the split itself where there is no ``train``). Wholly NaN
            frames of a sequence are lost frames, whatever this says.
        with_labels: whether to read labels at all.
        specs: modalities of the model that will read it; they tell one sample from rows where nothing else
            does.
        leave_out: splits that are not looked at where there is ``train``; training leaves out ``test``.
        feature_means: modality to the means that ``mean`` fills with, a model's own: what takes the place of
            a number then doesn't depend on the rows beside it.

    Raises:
        UnsafeFileError: if the file asks for anything beyond plain data.
        DataError: if the file can't be used.
    """
    content = read_content(path)
    try:
        layout = find_layout(content, specs)
        if "train" in layout.splits:
            layout = replace(
                layout, splits={name: part for name, part in layout.splits.items() if name not in leave_out}
            )
        data = _data_file(
            layout,
            path,
            file_digest(path),
            modalities=modalities,
            label=label,
            fill_nonfinite=fill_nonfinite,
            with_labels=with_labels,
            specs=specs,
            feature_means=feature_means,
            folder=path.parent,
        )
    except DataError as error:
        raise type(error)(f"{path}: {printable(error)}") from None
    beside = _files_beside(data.splits)
    return replace(data, sha256=_digest(data.sha256, *beside)) if beside else data


def read_mapping(
    content: Mapping[str, object] | Sequence[Mapping[str, object]],
    *,
    source: str,
    modalities: Sequence[str] | None = None,
    label: str | None = None,
    fill_nonfinite: FillNonfinite | None = None,
    with_labels: bool = True,
    specs: Sequence[ModalitySpec] = (),
    feature_means: Mapping[str, FloatArray] | None = None,
    folder: Path | None = None,
) -> DataFile:
    """The same for data in memory: what a file would hold, or a list of samples; lists may stand for arrays.

    Args:
        content: splits, rows or one sample, or a list of samples.
        source: what to call it in messages, and the ``path`` of the result.
        modalities: see ``read_data_file``, as for the others.
        label: the target's field.
        fill_nonfinite: what takes the place of single non-finite numbers.
        with_labels: whether to read labels at all.
        specs: modalities of the model that will read it.
        feature_means: a model's own, for ``mean``.
        folder: that paths of recordings start in, and stay in; where the program runs if None.

    Raises:
        DataError: if the data can't be used.
    """
    try:
        data = _data_file(
            find_layout(content, specs),
            Path(source),
            "",
            modalities=modalities,
            label=label,
            fill_nonfinite=fill_nonfinite,
            with_labels=with_labels,
            specs=specs,
            feature_means=feature_means,
            folder=folder or Path(),
        )
    except DataError as error:
        raise type(error)(f"{source}: {printable(error)}") from None
    return replace(data, sha256=_content_digest(data.splits))


def read_content(path: Path) -> object:
    """The plain content of a file, before anything is made of it.

    Raises:
        DataError: if there is no such file, or it is neither a pickle nor an ``.npz`` file.
    """
    if not path.is_file():
        came = "a folder came" if path.is_dir() else "there is none"
        raise DataError(f"{path}: a data file (.pkl or .npz) was expected, {came}: check the path")
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
        f"{path}: a pickle (protocol 2 to 5) or an .npz file was expected, "
        f"{'an empty file' if not start else 'something else'} came: save the samples as one of these"
    )


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_raw_splits(
    layout: Layout, modalities: Sequence[str] | None, label: str | None, folder: Path
) -> list[RawSplit]:
    """The splits of a file, not settled yet.

    Args:
        layout: of the file.
        modalities: the fields to read as modalities; all numeric ones when None.
        label: the target's field.
        folder: that paths of recordings start in, and stay in.

    Raises:
        DataError: if a split has no rows to count, or a modality is asked for that no split holds.
    """
    if modalities is not None:
        _check_names(layout, modalities)
    return [
        read_raw_split(name, fields, single=layout.single, modalities=modalities, label=label, folder=folder)
        for name, fields in layout.splits.items()
    ]


def fill_means(splits: Sequence[RawSplit]) -> dict[str, FloatArray]:
    """The mean of each feature over ``train``, or over the only split."""
    for split in splits:
        if split.name == "train" or len(splits) == 1:
            return {name: column.means() for name, column in split.columns.items()}
    return {}


def settled_columns(
    raw: RawSplit, fill_nonfinite: FillNonfinite | None, means: Mapping[str, FloatArray]
) -> dict[str, SettledColumn]:
    """What is observed of each modality of a split.

    Raises:
        DataError: if a row, or a frame of a sequence, is partly non-finite and nothing says how to fill it.
    """
    settled = {}
    for name, column in raw.columns.items():
        usable = name in means and means[name].shape == column.means().shape
        filling = means[name] if usable else column.means()
        settled[name] = settle(
            column, raw.flags.get(name), raw.ids, fill=fill_nonfinite, means=filling, where=raw.name
        )
    return settled


def read_labels(layout: Layout, splits: Sequence[RawSplit], name: str) -> dict[str, Labels]:
    """The labels of each split that has the field.

    Raises:
        DataError: if there isn't one number or name for each sample.
    """
    values = {
        raw.name: label_values(
            layout.splits[raw.name][name], raw.rows, single=layout.single, label=f"{raw.name}: {name}"
        )
        for raw in splits
        if layout.splits[raw.name].get(name) is not None
    }
    return make_labels(name, values)


def read_unimodal(layout: Layout, splits: Sequence[RawSplit], target: Labels) -> dict[str, UnimodalLabels]:
    """Labels that were given with one modality in sight, split by split; none beside a target of classes.

    Raises:
        DataError: if there isn't one number for each sample.
    """
    found: dict[str, UnimodalLabels] = {}
    if target.kind != "regression":
        return found
    for raw in splits:
        fields = layout.splits[raw.name]
        for name, field in unimodal_fields(fields, target.name, list(raw.columns)).items():
            values = label_values(fields[field], raw.rows, single=layout.single, label=f"{raw.name}: {field}")
            found.setdefault(raw.name, {})[name] = regression(field, values).values
    return found


def _check_names(layout: Layout, modalities: Sequence[str]) -> None:
    held = {name for fields in layout.splits.values() for name, value in fields.items()}
    for name in modalities:
        if name not in held or is_reserved(name, held - {name}):
            known = dict.fromkeys(
                candidate
                for fields in layout.splits.values()
                for candidate in modality_candidates(fields, layout.single)
            )
            raise DataError(f"--modalities: some of {', '.join(known)} were expected, {name!r} came")


def _data_file(
    layout: Layout,
    path: Path,
    sha256: str,
    *,
    modalities: Sequence[str] | None,
    label: str | None,
    fill_nonfinite: FillNonfinite | None,
    with_labels: bool,
    specs: Sequence[ModalitySpec],
    feature_means: Mapping[str, FloatArray] | None,
    folder: Path,
) -> DataFile:
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
            "a modality was expected (an array of numbers, samples by features), "
            f"the fields {', '.join(names[:12])} came"
        )
    labels = read_labels(layout, raws, target) if target is not None else {}
    unimodal = read_unimodal(layout, raws, next(iter(labels.values()))) if labels else {}
    means = fill_means(raws) | dict(feature_means or {})
    splits = {
        raw.name: replace(
            _split(raw, settled_columns(raw, fill_nonfinite, means), labels),
            unimodal=unimodal.get(raw.name, {}),
        )
        for raw in raws
    }
    notes = (*([note] if note else []), *_notes(raws, [spec.name for spec in specs]))
    numbered = any(raw.numbered for raw in raws)
    return DataFile(path, sha256, splits, layout.single, notes, layout.flat, numbered)


def _check_kinds(raw: RawSplit, specs: Sequence[ModalitySpec]) -> None:
    """What the model takes for a modality must not be passed over because it holds something else."""
    for spec in specs:
        if spec.name in raw.ignored:
            raise DataError(
                f"{raw.name}: {spec.name}: numbers were expected, as it is a modality of the model, "
                "something else came: give its features, or None where it is missing"
            )


def _split(raw: RawSplit, columns: Mapping[str, SettledColumn], labels: Mapping[str, Labels]) -> Split:
    raw_text = raw.raw_text
    if raw_text is not None and TEXT_MODALITY in columns:
        there = columns[TEXT_MODALITY].observed
        raw_text = tuple(text if seen else None for text, seen in zip(raw_text, there, strict=True))
    return Split(
        name=raw.name,
        ids=raw.ids,
        groups=raw.groups,
        modalities=tuple(
            ModalitySpec(name=name, kind=column.kind, shape=column.shape)
            for name, column in raw.columns.items()
        ),
        arrays={name: column.array for name, column in columns.items()},
        observed={name: column.observed for name, column in columns.items()},
        lengths={name: column.lengths for name, column in columns.items() if column.lengths is not None},
        lost={name: column.lost for name, column in columns.items() if column.lost is not None},
        raw_text=raw_text,
        recordings={
            name: tuple(
                one if seen else None for one, seen in zip(found, columns[name].observed, strict=True)
            )
            for name, found in raw.recordings.items()
        },
        labels=labels.get(raw.name),
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
    """A line for each file of a recording: its name and size, which are cheap to tell."""
    return [
        repr((name, modality, row, path.name, path.stat().st_size))
        for name, split in splits.items()
        for modality, recordings in split.recordings.items()
        for row, one in enumerate(recordings)
        if one is not None
        for path in one.paths
    ]


def _recorded(recordings: Mapping[str, tuple[Recording | None, ...]]) -> list[str]:
    """The digests of recordings in memory."""
    return [
        f"{modality} {row} {one.sha256}"
        for modality, found in recordings.items()
        for row, one in enumerate(found)
        if one is not None and not one.paths
    ]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


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
        digest.update("\n".join(_recorded(split.recordings)).encode())
    digest.update("\n".join(_files_beside(splits)).encode())
    return digest.hexdigest()
