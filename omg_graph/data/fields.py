"""What a file holds: its splits, and the fields of each, read one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np

from omg_graph.data.arrays import is_nothing, is_scalar, per_sample, shape_of, whole_text
from omg_graph.data.columns import Column, is_reserved, read_column, with_lengths
from omg_graph.data.dataset import TEXT_MODALITY, ModalitySpec, group_of, squeezed
from omg_graph.data.recordings import Recording, read_recordings
from omg_graph.errors import DataError

DEFAULT_SPLIT = "data"
"""The name of the only split of a file that names none."""

Fields = dict[str, object]


@dataclass(frozen=True)
class Layout:
    """The fields of each split."""

    splits: dict[str, Fields]
    single: bool
    """Whether the file holds one sample, whose fields have no axis of samples."""
    flat: bool
    """Whether the file names no splits."""


def find_layout(content: object, specs: Sequence[ModalitySpec] = ()) -> Layout:
    """Tell splits, rows and a single sample apart.

    A mapping of mappings has splits. An id or a transcript that is one value, not a list, makes a single
    sample; without either, the model's shapes decide where they are given, else a modality with one axis.

    Args:
        content: of a file: a mapping, or a list of samples that are mappings.
        specs: modalities of the model that will read it.

    Raises:
        DataError: if the content is neither.
    """
    if isinstance(content, (list, tuple)) and content and all(isinstance(item, dict) for item in content):
        return Layout({DEFAULT_SPLIT: _columns([_named(item) for item in content])}, single=False, flat=True)
    if not isinstance(content, Mapping) or not content:
        raise DataError(
            "expected a mapping of splits, or of the fields of samples (id, raw_text, modalities), "
            f"got {'an empty one' if isinstance(content, Mapping) else type(content).__name__}"
        )
    fields = _named(content)
    inner = {
        name: value for name, value in fields.items() if isinstance(value, Mapping) and name != "observed"
    }
    beside = [name for name, value in fields.items() if name not in inner and value is not None]
    if inner and not any(name in ("id", "raw_text", "observed") or shape_of(fields[name]) for name in beside):
        return Layout({name: _named(value) for name, value in inner.items()}, single=False, flat=False)
    return Layout({DEFAULT_SPLIT: fields}, single=_is_single(fields, specs), flat=True)


def nested(arrays: Mapping[str, object]) -> Fields:
    """The fields of an ``.npz`` file, whose names are paths like ``text`` or ``train/observed/text``."""
    result: Fields = {}
    for path, value in arrays.items():
        *folders, name = path.split("/")
        place = result
        for folder in folders:
            inner = place.setdefault(folder, {})
            if not isinstance(inner, dict):
                raise DataError(f"{folder!r} is both a field and a split of the file")
            place = cast("Fields", inner)
        if name in place:
            raise DataError(f"{name!r} is both a field and a split of the file")
        place[name] = value
    return result


def _named(mapping: Mapping[object, object]) -> Fields:
    fields: Fields = {}
    for key, value in mapping.items():
        if not isinstance(key, (str, bytes)):
            raise DataError(f"expected names of splits or fields, got the key {key!r:.40}")
        fields[whole_text(key)] = value
    return fields


def _columns(samples: list[Fields]) -> Fields:
    """Samples that came one by one, as the columns of a split."""
    names = dict.fromkeys(name for sample in samples for name in sample)
    columns: Fields = {name: [sample.get(name) for sample in samples] for name in names if name != "observed"}
    if "observed" in names:
        flags = [{} if sample.get("observed") is None else sample["observed"] for sample in samples]
        if not all(isinstance(item, Mapping) for item in flags):
            raise DataError("observed: expected a mapping from modality to true or false")
        said = cast("list[Mapping[str, object]]", flags)
        known = dict.fromkeys(name for item in said for name in item)
        columns["observed"] = {name: [item.get(name, True) for item in said] for name in known}
    return columns


def _is_single(fields: Fields, specs: Sequence[ModalitySpec]) -> bool:
    for name in ("id", "raw_text"):
        if fields.get(name) is not None:
            return is_scalar(fields[name])
    for spec in specs:
        shape = shape_of(fields.get(spec.name))
        if not shape:
            continue
        if squeezed(shape) == squeezed(spec.shape):
            return True
        if squeezed(shape[1:]) == squeezed(spec.shape):
            return False
    labels = [value for name, value in fields.items() if "label" in name.lower() and value is not None]
    if labels:
        return is_scalar(labels[0])
    return any(
        len(shape_of(value) or ()) == 1 for name, value in fields.items() if not is_reserved(name, fields)
    )


@dataclass
class RawSplit:
    """A split before missing rows are settled."""

    name: str
    rows: int
    ids: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    numbered: bool = False
    """Whether the ids are row numbers, for want of any in the file."""
    grouped: bool = False
    """Whether the file has a field ``group``."""
    raw_text: tuple[str | None, ...] | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    recordings: dict[str, tuple[Recording | None, ...]] = field(default_factory=dict)
    """Of some modalities, whether or not those are observed."""
    empty: list[str] = field(default_factory=list)
    """Modalities that the split names and gives for no row."""
    ignored: list[str] = field(default_factory=list)
    """Fields that are no modalities."""
    errors: list[DataError] = field(default_factory=list)

    @contextmanager
    def keeping_errors(self) -> Iterator[None]:
        """Keep a DataError instead of raising it, so that the other fields are read."""
        try:
            yield
        except DataError as error:
            self.errors.append(error)

    def recording_notes(self) -> list[str]:
        """What a user may not expect of recordings, or of fields that are named like some."""
        notes = []
        for name in (*self.columns, *self.ignored):
            modality = name.removeprefix("raw_")
            if modality != name:
                use = "taken for a modality of its own" if name in self.columns else "left out"
                notes.append(
                    f"{name} is {use}: no modality {modality!r} is beside it whose recordings it held"
                )
        for name, recordings in self.recordings.items():
            missing = ~self.columns[name].observed
            hidden = sum(one is not None and gone for one, gone in zip(recordings, missing, strict=True))
            if hidden:
                notes.append(f"{hidden} recordings in raw_{name} are left out: {name} is missing there")
        return notes


def read_raw_split(
    name: str,
    fields: Fields,
    *,
    single: bool,
    modalities: Collection[str] | None,
    label: str | None = None,
    folder: Path,
) -> RawSplit:
    """Read the fields of a split; what is wrong with them is kept in ``errors``, not raised.

    Args:
        name: of the split.
        fields: of it.
        single: whether it is one sample, whose fields have no axis of samples.
        modalities: the fields to read as modalities; all numeric ones with an axis of features when None.
        label: the target's field, which is never a modality.
        folder: that the paths of recordings start in, and stay in.

    Raises:
        DataError: if nothing says how many samples there are.
    """
    rows = 1 if single else _count(name, fields, modalities)
    split = RawSplit(name, rows, numbered=fields.get("id") is None)

    def texts(field_name: str) -> list[str | None] | None:
        """A field with a text for each sample, None where it isn't there."""
        value, where = fields.get(field_name), f"{name}: {field_name}"
        return (
            None
            if value is None
            else [_text(item, where) for item in per_sample(value, rows, where, single=single)]
        )

    with split.keeping_errors():
        split.ids = _ids(name, texts("id") or [])
        _check_different(name, split.ids)
    if not split.ids:
        split.ids = tuple(map(str, range(rows)))
    split.groups = tuple(map(group_of, split.ids))
    with split.keeping_errors():
        groups = texts("group")
        if groups is not None:
            split.grouped = True
            by_id = zip(groups, split.groups, strict=True)
            split.groups = tuple(own if group is None else group for group, own in by_id)
    with split.keeping_errors():
        raw_text = texts("raw_text")
        split.raw_text = None if raw_text is None else tuple(raw_text)
    for field_name, value in fields.items():
        if is_reserved(field_name, fields) or field_name == label:
            continue
        if modalities is not None and field_name not in modalities:
            split.ignored.append(field_name)
        elif _gives_nothing(value):
            split.empty.append(field_name)
        elif modalities is None and not _is_modality(value, single):
            split.ignored.append(field_name)
        else:
            with split.keeping_errors():
                _read_modality(split, fields, field_name, single)
    with split.keeping_errors():
        _read_flags(split, fields.get("observed"), single)
    for modality in split.columns:
        if fields.get(f"raw_{modality}") is not None and modality != TEXT_MODALITY:
            with split.keeping_errors():
                split.recordings[modality] = read_recordings(
                    fields, modality, rows, folder, single=single, where=name
                )
    return split


def modality_candidates(fields: Fields, single: bool) -> list[str]:
    """The fields of a split that would be modalities if nothing chose among them."""
    return [
        name
        for name, value in fields.items()
        if not is_reserved(name, fields) and _is_modality(value, single)
    ]


def _is_modality(value: object, single: bool) -> bool:
    return len(shape_of(value) or ()) >= (1 if single else 2)


def _gives_nothing(value: object) -> bool:
    return value is None or (isinstance(value, (list, tuple)) and all(item is None for item in value))


def _count(name: str, fields: Fields, modalities: Collection[str] | None) -> int:
    first = [fields.get("id"), fields.get("raw_text")]
    labels = [value for key, value in fields.items() if "label" in key.lower()]
    arrays = [
        value
        for key, value in fields.items()
        if not is_reserved(key, fields)
        and (key in modalities if modalities is not None else _is_modality(value, False))
    ]
    for value in (*first, *arrays, *labels):
        if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
            return len(value)
    shown = ", ".join(key[:40] for key in list(fields)[:12]) or "nothing"
    raise DataError(f"{name}: expected ids or modalities with a row for each sample, got {shown}")


def _text(item: object, label: str) -> str | None:
    if is_nothing(item):
        return None
    if isinstance(item, (str, bytes)):
        return whole_text(item)
    if isinstance(item, (int, float)):
        return str(int(item) if isinstance(item, float) and item.is_integer() else item)
    raise DataError(f"{label}: expected text, got {type(item).__name__}")


def _ids(name: str, texts: Sequence[str | None]) -> tuple[str, ...]:
    given = tuple(text for text in texts if text is not None)
    if len(given) < len(texts):
        row = list(texts).index(None)
        raise DataError(f"{name}: expected an id for each sample, row {row} has none")
    return given


def _check_different(name: str, ids: Sequence[str]) -> None:
    surplus = len(ids) - len(set(ids))
    if surplus:
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(
            f"{name}: expected different ids, {twice[:60]!r} comes more than once ({surplus} rows too many)"
        )


def _read_modality(split: RawSplit, fields: Fields, name: str, single: bool) -> None:
    column = read_column(name, fields[name], split.rows, single=single, where=split.name)
    if column is None:
        split.empty.append(name)
        return
    lengths = fields.get(f"{name}_lengths")
    if lengths is not None and column.kind == "sequence":
        column = with_lengths(column, lengths, where=split.name)
    split.columns[name] = column


def _read_flags(split: RawSplit, value: object, single: bool) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise DataError(f"{split.name}: observed: expected a mapping, got {type(value).__name__}")
    for key, flags in value.items():
        name = whole_text(key) if isinstance(key, (str, bytes)) else str(key)
        items = per_sample(flags, split.rows, f"{split.name}: observed/{name}", single=single)
        if not all(isinstance(item, (int, float)) and item in (0, 1) for item in items):
            raise DataError(f"{split.name}: observed/{name}: expected true or false for each sample")
        said = np.array(items, bool)
        if name in split.columns:
            column = split.columns[name]
            split.columns[name] = replace(column, given=column.given & said)
        elif said.any() and name not in split.ignored:
            raise DataError(f"{split.name}: observed names {name[:40]!r}, which the split doesn't hold")
