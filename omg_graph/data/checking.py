"""What a data file holds, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, computed_field

from omg_graph.data.arrays import printable
from omg_graph.data.columns import Column, FillNonfinite
from omg_graph.data.dataset import BoolArray, Labels, ModalityKind, check_names, squeezed
from omg_graph.data.fields import RawSplit, find_layout
from omg_graph.data.labels import choose_label, read_labels
from omg_graph.data.reader import file_digest, read_content, read_raw_splits
from omg_graph.data.recordings import Extent, Recording
from omg_graph.errors import DataError

Level = Literal["error", "warning", "note"]


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(_Report):
    """One thing to know; errors are what keeps the file from being used."""

    level: Level
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


class _Findings(list[Finding]):
    """What was found so far."""

    def add(self, level: Level, message: str, split: str | None = None) -> None:
        self.append(Finding(level=level, split=split, message=message))

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Report a DataError instead of raising it."""
        try:
            yield
        except DataError as error:
            self.add("error", str(error))


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
    findings = _Findings()
    reports: list[SplitReport] = []
    single = False
    with findings.errors():
        layout = find_layout(content)
        single = layout.single
        target: str | None = None
        labels: dict[str, Labels] = {}
        with findings.errors():
            target, note = choose_label(layout.splits, label)
            if note:
                findings.add("note", note)
        splits = read_raw_splits(layout, modalities, target, folder or Path())
        for split in splits:
            for error in split.errors:
                findings.add("error", str(error), split.name)
        if target is not None:
            with findings.errors():
                labels = read_labels(layout, splits, target)
        reports = [_split_report(split, labels.get(split.name)) for split in splits]
        for split, report in zip(splits, reports, strict=True):
            _check_split(split, report, fill_nonfinite, findings)
        _check_all(splits, reports, findings)
    return DataReport(
        path=source, sha256=None, single=single, splits=tuple(reports), findings=tuple(findings)
    )


def _split_report(raw: RawSplit, labels: Labels | None) -> SplitReport:
    observed = [column.observed for column in raw.columns.values()]
    mask = np.stack(observed, axis=1) if observed else np.zeros((raw.rows, 1), bool)
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
        modalities=tuple(map(_modality_report, raw.columns.values())),
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


def _modality_report(column: Column) -> ModalityReport:
    observed, broken = column.observed, column.broken
    there = column.inside & observed.reshape(-1, *([1] * (column.values.ndim - 1)))
    finite = there & np.isfinite(column.values)
    values = column.values[finite].astype(np.float64)
    some = values.size > 0
    within = tuple(range(1, column.values.ndim))
    lost = np.zeros((len(observed), 1), bool) if column.lost is None else column.lost
    zero = observed & ~np.any(there & ~((column.values == 0) | np.isnan(column.values)), axis=within)
    lengths = np.zeros(0, int) if column.lengths is None else column.lengths[observed]
    return ModalityReport(
        name=column.name,
        kind=column.kind,
        shape=column.shape,
        minimum=float(values.min()) if some else None,
        maximum=float(values.max()) if some else None,
        mean=float(values.mean()) if some else None,
        deviation=float(values.std()) if some else None,
        missing_rows=int((~observed).sum()),
        zero_rows=int(zero.sum()),
        nonfinite_rows=int((broken > 0).sum()),
        nonfinite_values=int(broken.sum()),
        lost_frames=int(lost.sum()),
        lost_rows=int(lost.any(axis=1).sum()),
        constant_features=_constant(column, finite),
        shortest=int(lengths.min()) if lengths.size else None,
        longest=int(lengths.max()) if lengths.size else None,
    )


def _constant(column: Column, finite: BoolArray) -> int:
    """Features with one value in all rows (and frames) that are there, of at least two."""
    axes = (0, 1) if column.kind == "sequence" else (0,)
    lowest = np.where(finite, column.values, np.inf).min(axis=axes, initial=np.inf)
    highest = np.where(finite, column.values, -np.inf).max(axis=axes, initial=-np.inf)
    return int(((lowest == highest) & (finite.sum(axis=axes) > 1)).sum())


def _label_report(labels: Labels) -> LabelReport:
    known = labels.values[np.isfinite(labels.values)]
    numbers = labels.kind == "regression" and len(known) > 0
    if labels.kind == "classes":
        tally = Counter(labels.class_names[int(value)] for value in known)
        counts = {name: tally.get(name, 0) for name in labels.class_names}
    else:
        counts = _rounded_counts(known)
    return LabelReport(
        name=labels.name,
        kind=labels.kind,
        labelled=len(known),
        minimum=float(known.min()) if numbers else None,
        median=float(np.median(known)) if numbers else None,
        maximum=float(known.max()) if numbers else None,
        counts=counts,
    )


def _rounded_counts(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> dict[str, int]:
    """Samples by rounded value, where these are few enough to be read."""
    if np.abs(values).max(initial=0) >= 1e9:
        return {}
    tally = Counter(int(value) for value in np.round(values))
    return {str(value): tally[value] for value in sorted(tally)} if len(tally) <= 25 else {}


def _check_split(raw: RawSplit, report: SplitReport, fill: FillNonfinite | None, findings: _Findings) -> None:
    for modality in report.modalities:
        name, column = modality.name, raw.columns[modality.name]
        if modality.nonfinite_rows:
            row = int(np.flatnonzero(column.broken)[0])
            remedy = (
                f"filled with {fill}" if fill else "give --fill-nonfinite zero or mean, or make them None"
            )
            findings.add(
                "warning" if fill else "error",
                f"{name}: {modality.nonfinite_values} numbers in {modality.nonfinite_rows} rows are not "
                f"finite, first in {raw.ids[row]!r}: {remedy}",
                raw.name,
            )
        if modality.lost_frames:
            findings.add(
                "note",
                f"{name}: {modality.lost_frames} frames in {modality.lost_rows} rows are lost (wholly NaN): "
                f"they are filled{_trailing(column)}",
                raw.name,
            )
        if modality.zero_rows:
            findings.add(
                "warning",
                f"{name}: {modality.zero_rows} rows hold nothing but zeros; they are taken as observed: "
                "make them NaN or None if they are missing",
                raw.name,
            )
        if modality.constant_features:
            message = f"{name}: {modality.constant_features} features have the same value in every row"
            findings.add("note", message, raw.name)
    if not raw.rows:
        findings.add("warning", "the split is empty", raw.name)
    elif report.nothing_observed:
        findings.add("warning", f"nothing is observed in {report.nothing_observed} rows", raw.name)
    if report.repeated_rows:
        findings.add("note", f"{report.repeated_rows} rows repeat the features of an earlier one", raw.name)
    if raw.empty:
        fields = f"field{'s' if len(raw.empty) > 1 else ''} {', '.join(raw.empty)}"
        findings.add("note", f"no values in the {fields}", raw.name)
    if raw.ignored:
        findings.add("note", f"no modalities, left out: {', '.join(raw.ignored)}", raw.name)
    for name, recordings in raw.recordings.items():
        _check_recordings(name, recordings, raw.name, findings)
    for note in raw.recording_notes():
        findings.add("note", note, raw.name)


def _trailing(column: Column) -> str:
    """What to say of rows that end in lost frames where nothing gives lengths: that may well be padding."""
    lost = column.lost
    if lost is None or column.lengths is not None or not lost[:, -1].any():
        return ""
    return (
        f"; {int(lost[:, -1].sum())} rows end in such frames: give {column.name}_lengths if that is padding"
    )


def _check_recordings(
    modality: str, recordings: Sequence[Recording | None], split: str, findings: _Findings
) -> None:
    """How much there is of one modality's recordings, by what files declare, and which can't be used."""
    given = [one for one in recordings if one is not None]
    extents: list[Extent] = []
    for recording in given:
        try:
            extents.append(recording.extent)
        except DataError as error:
            findings.add("error", f"raw_{modality}: {error}", split)
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(one.kind for one in given).items())
    seconds = sum(extent.seconds or 0.0 for extent in extents)
    length = f", {seconds:.1f} s in all" if seconds else ""
    findings.add("note", f"{modality}: {len(given)} recordings ({kinds}{length})", split)


def _check_all(raws: Sequence[RawSplit], reports: Sequence[SplitReport], findings: _Findings) -> None:
    """What only the splits together show."""
    if not any(raw.columns or raw.errors for raw in raws):
        findings.add("error", "no modality: expected an array of numbers with a row for each sample")
    else:
        before = len(findings)
        with findings.errors():
            check_names(list(dict.fromkeys(name for raw in raws for name in raw.columns)))
        if len(findings) == before and all(one.nothing_observed == one.samples for one in reports):
            findings.add("error", "nothing is observed in any row")
    for first, second in combinations(raws, 2):
        if not first.numbered and not second.numbered:
            ids, groups = set(first.ids) & set(second.ids), set(first.groups) & set(second.groups)
            shared = f"{len(ids)} ids" if ids else f"{len(groups)} groups"
            if ids or groups:
                findings.add("warning", f"{shared} are in both {first.name!r} and {second.name!r}")
        for name in first.columns.keys() & second.columns.keys():
            one, other = first.columns[name], second.columns[name]
            if not _agree(one, other):
                message = f"{name}: {one.shape} in {first.name!r}, but {other.shape} in {second.name!r}"
                findings.add("error", message)
    for train in (raw for raw in raws if raw.name == "train"):
        for raw in raws:
            _check_length(raw, train, findings)


def _agree(one: Column, other: Column) -> bool:
    """Whether splits agree: in width, where both hold vectors or sequences, else but for axes of length 1."""
    if one.kind == other.kind != "image":
        return one.shape[-1] == other.shape[-1]
    return squeezed(one.shape) == squeezed(other.shape)


def _check_length(raw: RawSplit, train: RawSplit, findings: _Findings) -> None:
    """Whether sequences have more frames than those of ``train``: a model made of it would refuse them."""
    for name, column in raw.columns.items():
        known = train.columns.get(name)
        if known is None or not column.kind == known.kind == "sequence":
            continue
        frames = column.shape[0] if column.lengths is None else int(column.lengths.max(initial=0))
        if frames > known.shape[0]:
            message = f"{name}: {frames} frames, but {known.shape[0]} in 'train': cut these, or pad those"
            findings.add("error" if raw.name == "valid" else "warning", message, raw.name)
