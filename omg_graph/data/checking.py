"""What a data file holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field

from omg_graph.data.arrays import printable
from omg_graph.data.columns import Column, FillNonfinite
from omg_graph.data.dataset import BoolArray, Labels, ModalityKind
from omg_graph.data.labels import choose_label
from omg_graph.data.layout import Layout, find_layout
from omg_graph.data.naming import check_names
from omg_graph.data.raw import RawSplit
from omg_graph.data.reader import file_digest, read_content, read_labels, read_raw_splits
from omg_graph.data.recording_checks import recording_notes, recording_report
from omg_graph.errors import DataError


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Report):
    """One thing to know; errors are what keeps the file from being used."""

    level: Literal["error", "warning", "note"]
    split: str | None
    message: Annotated[str, AfterValidator(printable)]


class ModalityReport(_Report):
    """One modality of one split."""

    name: str
    kind: ModalityKind
    shape: tuple[int, ...]
    minimum: float | None
    """Of the finite values that are there, as for maximum, mean and deviation; null where there is none."""
    maximum: float | None
    mean: float | None
    deviation: float | None
    missing_rows: int
    zero_rows: int
    """Rows of nothing but zeros: not missing, but perhaps meant to be."""
    nonfinite_rows: int
    """Rows that are there and hold NaN or infinity, lost frames left out."""
    nonfinite_values: int
    lost_frames: int = 0
    """Wholly NaN frames of sequences that are there otherwise: they can be filled."""
    lost_rows: int = 0
    """Sequences with at least one of them."""
    constant_features: int
    shortest: int | None
    """Frames of the shortest row that is there, for padded sequences, as for longest."""
    longest: int | None


class LabelReport(_Report):
    """The target of one split."""

    name: str
    kind: Literal["regression", "classes"]
    labelled: int
    minimum: float | None
    median: float | None
    maximum: float | None
    counts: dict[str, int]
    """Samples of each class; of each whole number that a value rounds to, for a regression."""


class SplitReport(_Report):
    """One split."""

    name: str
    samples: int
    ids: Literal["given", "row numbers"]
    groups: int
    largest_group: int
    group_source: Literal["the field group", "the ids"]
    with_text: int | None
    """Samples that have a transcript; null where the split has none at all."""
    nothing_observed: int
    complete: int
    repeated_rows: int
    """Samples whose observed features all equal an earlier sample's."""
    modalities: tuple[ModalityReport, ...]
    labels: LabelReport | None


class DataReport(_Report):
    """A whole file."""

    path: str
    sha256: str | None
    single: bool
    splits: tuple[SplitReport, ...] = ()
    findings: tuple[Finding, ...] = Field(default=())

    @computed_field  # type: ignore[prop-decorator]
    @property
    def usable(self) -> bool:
        """Whether the file can be read as it is, with these options."""
        return not any(finding.level == "error" for finding in self.findings)


def check_data(
    path: Path,
    *,
    modalities: Sequence[str] | None = None,
    label: str | None = None,
    fill_nonfinite: FillNonfinite | None = None,
) -> DataReport:
    """Say what a file holds and what is wrong with it; whatever that is, it is reported and not raised.

    Args:
        path: the file.
        modalities: as for ``read_data_file``, like the others.
        label: the target's field.
        fill_nonfinite: how non-finite numbers would be filled, in which case they are no error.
    """
    try:
        content = read_content(path)
        sha256 = file_digest(path)
    except DataError as error:
        finding = Finding(level="error", split=None, message=str(error))
        return DataReport(path=str(path), sha256=None, single=False, findings=(finding,))
    report = check_content(
        content,
        str(path),
        modalities=modalities,
        label=label,
        fill_nonfinite=fill_nonfinite,
        folder=path.parent,
    )
    return report.model_copy(update={"sha256": sha256})


def check_content(
    content: object,
    source: str,
    *,
    modalities: Sequence[str] | None = None,
    label: str | None = None,
    fill_nonfinite: FillNonfinite | None = None,
    folder: Path | None = None,
) -> DataReport:
    """The same for what a file holds, or would hold: see ``read_mapping``."""
    findings: list[Finding] = []
    splits: list[SplitReport] = []
    single = False
    try:
        layout = find_layout(content)
        single = layout.single
        target = _target(layout, label, findings)
        raws = read_raw_splits(layout, modalities, target, folder or Path())
        for raw in raws:
            findings += [Finding(level="error", split=raw.name, message=str(error)) for error in raw.errors]
        labels = _labels(layout, raws, target, findings)
        splits = [_split_report(raw, labels.get(raw.name)) for raw in raws]
        for raw, report in zip(raws, splits, strict=True):
            findings += _split_findings(raw, report, fill_nonfinite)
        findings += _across_splits(raws, splits)
    except DataError as error:
        findings.append(Finding(level="error", split=None, message=str(error)))
    return DataReport(path=source, sha256=None, single=single, splits=tuple(splits), findings=tuple(findings))


def _target(layout: Layout, label: str | None, findings: list[Finding]) -> str | None:
    try:
        target, note = choose_label(layout.splits, label)
    except DataError as error:
        findings.append(Finding(level="error", split=None, message=str(error)))
        return None
    if note:
        findings.append(Finding(level="note", split=None, message=note))
    return target


def _labels(
    layout: Layout, raws: Sequence[RawSplit], target: str | None, findings: list[Finding]
) -> dict[str, Labels]:
    if target is None:
        return {}
    try:
        return read_labels(layout, raws, target)
    except DataError as error:
        findings.append(Finding(level="error", split=None, message=str(error)))
        return {}


def _split_report(raw: RawSplit, labels: Labels | None) -> SplitReport:
    observed = {name: raw.observed(name) for name in raw.columns}
    mask = np.stack(list(observed.values()), axis=1) if observed else np.zeros((raw.rows, 1), bool)
    sizes = Counter(raw.groups)
    return SplitReport(
        name=raw.name,
        samples=raw.rows,
        ids="row numbers" if raw.numbered else "given",
        groups=len(sizes),
        largest_group=max(sizes.values(), default=0),
        group_source="the field group" if raw.grouped else "the ids",
        with_text=None if raw.raw_text is None else sum(bool(text) for text in raw.raw_text),
        nothing_observed=int((~mask.any(axis=1)).sum()),
        complete=int(mask.all(axis=1).sum()),
        repeated_rows=_repeated(raw, mask),
        modalities=tuple(_modality_report(column, observed[name]) for name, column in raw.columns.items()),
        labels=None if labels is None else _label_report(labels),
    )


def _repeated(raw: RawSplit, mask: BoolArray) -> int:
    seen: set[bytes] = set()
    repeated = 0
    for row in range(raw.rows):
        if not mask[row].any():
            continue
        parts = [
            column.values[row].tobytes()
            for column, there in zip(raw.columns.values(), mask[row], strict=True)
            if there
        ]
        content = mask[row].tobytes() + b"".join(parts)
        repeated += content in seen
        seen.add(content)
    return repeated


def _modality_report(column: Column, observed: BoolArray) -> ModalityReport:
    rows = observed.reshape(-1, *([1] * (column.values.ndim - 1)))
    there = column.frames_given() & rows
    finite = there & np.isfinite(column.values)
    values = column.values[finite].astype(np.float64)
    within = tuple(range(1, column.values.ndim))
    broken = np.where(observed, column.broken(), 0)
    found = column.lost()
    lost = np.zeros((len(observed), 1), bool) if found is None else found & observed[:, None]
    zero = observed & ~np.any(there & ~((column.values == 0) | np.isnan(column.values)), axis=within)
    lengths = column.lengths[observed] if column.lengths is not None else None
    padded = lengths is not None and len(lengths) > 0
    return ModalityReport(
        name=column.name,
        kind=column.kind,
        shape=column.shape,
        minimum=float(values.min()) if values.size else None,
        maximum=float(values.max()) if values.size else None,
        mean=float(values.mean()) if values.size else None,
        deviation=float(values.std()) if values.size else None,
        missing_rows=int((~observed).sum()),
        zero_rows=int(zero.sum()),
        nonfinite_rows=int((broken > 0).sum()),
        nonfinite_values=int(broken.sum()),
        lost_frames=int(lost.sum()),
        lost_rows=int(lost.any(axis=1).sum()),
        constant_features=_constant(column, finite),
        shortest=int(lengths.min()) if padded and lengths is not None else None,
        longest=int(lengths.max()) if padded and lengths is not None else None,
    )


def _constant(column: Column, finite: BoolArray) -> int:
    """Features with one value in all rows (and frames) that are there, of at least two."""
    axes = (0, 1) if column.kind == "sequence" else (0,)
    lowest = np.where(finite, column.values, np.inf).min(axis=axes, initial=np.inf)
    highest = np.where(finite, column.values, -np.inf).max(axis=axes, initial=-np.inf)
    return int(((lowest == highest) & (finite.sum(axis=axes) > 1)).sum())


def _label_report(labels: Labels) -> LabelReport:
    known = labels.values[np.isfinite(labels.values)]
    if labels.kind == "classes":
        tally = Counter(labels.class_names[int(value)] for value in known)
        return LabelReport(
            name=labels.name,
            kind="classes",
            labelled=len(known),
            minimum=None,
            median=None,
            maximum=None,
            counts={name: tally.get(name, 0) for name in labels.class_names},
        )
    return LabelReport(
        name=labels.name,
        kind="regression",
        labelled=len(known),
        minimum=float(known.min()) if len(known) else None,
        median=float(np.median(known)) if len(known) else None,
        maximum=float(known.max()) if len(known) else None,
        counts=_rounded_counts(known),
    )


def _rounded_counts(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, int]:
    """Samples by rounded value, where these are few enough to be read."""
    tally = (
        Counter(int(value) for value in np.round(values))
        if np.abs(values).max(initial=0) < 1e9
        else Counter()
    )
    return {str(value): tally[value] for value in sorted(tally)} if len(tally) <= 25 else {}


def _split_findings(raw: RawSplit, report: SplitReport, fill: FillNonfinite | None) -> list[Finding]:
    findings: list[Finding] = []

    def add(level: Literal["error", "warning", "note"], message: str) -> None:
        findings.append(Finding(level=level, split=raw.name, message=message))

    for modality in report.modalities:
        name = modality.name
        if modality.nonfinite_rows:
            row = int(np.flatnonzero(raw.columns[name].broken() * raw.observed(name))[0])
            remedy = (
                f"filled with {fill}" if fill else "give --fill-nonfinite zero or mean, or make them None"
            )
            add(
                "warning" if fill else "error",
                f"{name}: {modality.nonfinite_values} numbers in {modality.nonfinite_rows} rows are not "
                f"finite, first in {raw.ids[row]!r}: {remedy}",
            )
        if modality.lost_frames:
            add(
                "note",
                f"{name}: {modality.lost_frames} frames in {modality.lost_rows} rows are lost (wholly NaN): "
                f"they are filled{_trailing(raw.columns[name])}",
            )
        if modality.zero_rows:
            add(
                "warning",
                f"{name}: {modality.zero_rows} rows hold nothing but zeros; they are taken as observed: "
                "make them NaN or None if they are missing",
            )
        if modality.constant_features:
            add("note", f"{name}: {modality.constant_features} features have the same value in every row")
    if not raw.rows:
        add("warning", "the split is empty")
    elif report.nothing_observed:
        add("warning", f"nothing is observed in {report.nothing_observed} rows")
    if report.repeated_rows:
        add("note", f"{report.repeated_rows} rows repeat the features of an earlier one")
    if raw.empty:
        add("note", f"no values in the field{'s' if len(raw.empty) > 1 else ''} {', '.join(raw.empty)}")
    if raw.ignored:
        add("note", f"no modalities, left out: {', '.join(raw.ignored)}")
    return findings + _recording_findings(raw)


def _recording_findings(raw: RawSplit) -> list[Finding]:
    findings: list[Finding] = []
    for name, recordings in raw.recordings.items():
        told, wrong = recording_report(name, recordings)
        findings += [Finding(level="error", split=raw.name, message=message) for message in wrong]
        findings.append(Finding(level="note", split=raw.name, message=told))
    return findings + [Finding(level="note", split=raw.name, message=note) for note in recording_notes(raw)]


def _trailing(column: Column) -> str:
    """A word on rows that end in lost frames where nothing tells lengths: that may well be padding."""
    lost = column.lost()
    if lost is None or column.lengths is not None or not lost[:, -1].any():
        return ""
    return (
        f"; {int(lost[:, -1].sum())} rows end in such frames: give {column.name}_lengths if that is padding"
    )


def _across_splits(raws: Sequence[RawSplit], splits: Sequence[SplitReport]) -> list[Finding]:
    findings: list[Finding] = []
    message = None
    if not any(raw.columns or raw.errors for raw in raws):
        message = "no modality: an array of numbers with a row for each sample was expected"
    elif (problem := _name_problem(raws)) is not None:
        message = problem
    elif all(split.nothing_observed == split.samples for split in splits):
        message = "nothing is observed in any row"
    if message:
        findings.append(Finding(level="error", split=None, message=message))
    for position, first in enumerate(raws):
        for second in raws[position + 1 :]:
            if not first.numbered and not second.numbered:
                findings += _shared(first, second)
            for name in first.columns.keys() & second.columns.keys():
                one, other = first.columns[name], second.columns[name]
                if not _agree(one, other):
                    message = f"{name}: {one.shape} in {first.name!r}, but {other.shape} in {second.name!r}"
                    findings.append(Finding(level="error", split=None, message=message))
    return findings + _longer_than_trained(raws)


def _name_problem(raws: Sequence[RawSplit]) -> str | None:
    try:
        check_names(list(dict.fromkeys(name for raw in raws for name in raw.columns)))
    except DataError as error:
        return str(error)
    return None


def _agree(one: Column, other: Column) -> bool:
    """Whether splits agree: in width, where both hold vectors or sequences, else but for axes of length 1."""
    if one.kind == other.kind != "image":
        return one.shape[-1] == other.shape[-1]
    return [size for size in one.shape if size != 1] == [size for size in other.shape if size != 1]


def _longer_than_trained(raws: Sequence[RawSplit]) -> list[Finding]:
    """Sequences with more frames than those of ``train``, which a model made of it would refuse."""
    train = next((raw for raw in raws if raw.name == "train"), None)
    findings: list[Finding] = []
    for raw in raws:
        for name, column in raw.columns.items():
            known = None if train is None else train.columns.get(name)
            if known is None or not column.kind == known.kind == "sequence":
                continue
            frames = column.shape[0] if column.lengths is None else int(column.lengths.max(initial=0))
            if frames > known.shape[0]:
                message = f"{name}: {frames} frames, but {known.shape[0]} in 'train': cut these, or pad those"
                level: Literal["error", "warning"] = "error" if raw.name == "valid" else "warning"
                findings.append(Finding(level=level, split=raw.name, message=message))
    return findings


def _shared(first: RawSplit, second: RawSplit) -> list[Finding]:
    ids = set(first.ids) & set(second.ids)
    groups = set(first.groups) & set(second.groups)
    between = f"in both {first.name!r} and {second.name!r}"
    if ids:
        return [Finding(level="warning", split=None, message=f"{len(ids)} ids are {between}")]
    if groups:
        return [
            Finding(
                level="warning",
                split=None,
                message=f"{len(groups)} groups are {between}",
            )
        ]
    return []
