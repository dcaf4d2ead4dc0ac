"""One split as the file gives it: its fields read one by one, and what is wrong with each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from omg_graph.data.arrays import whole_text
from omg_graph.data.columns import Column, axes_of, is_reserved, read_column, with_lengths
from omg_graph.data.dataset import TEXT_MODALITY, BoolArray, group_of
from omg_graph.data.layout import Fields, is_scalar
from omg_graph.data.recording_fields import read_recordings
from omg_graph.data.recordings import Recording
from omg_graph.errors import DataError


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
    flags: dict[str, BoolArray] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    """Modalities that the split names and gives for no row."""
    ignored: list[str] = field(default_factory=list)
    """Fields that are no modalities."""
    errors: list[DataError] = field(default_factory=list)

    def observed(self, name: str) -> BoolArray:
        """(samples,): the rows in which a modality is there, and not said to be missing."""
        there: BoolArray = ~self.columns[name].absent()
        flags = self.flags.get(name)
        return there if flags is None else there & flags


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
    split = RawSplit(name, 1 if single else _count(name, fields, modalities))

    def attempt(read: Callable[[], None]) -> None:
        try:
            read()
        except DataError as error:
            split.errors.append(error)

    attempt(lambda: _read_ids(split, fields, single))
    if not split.ids:
        split.ids = tuple(map(str, range(split.rows)))
    attempt(lambda: _read_groups(split, fields, single))
    if not split.groups:
        split.groups = tuple(map(group_of, split.ids))
    attempt(lambda: _read_text(split, fields, single))
    for field_name, value in fields.items():
        if is_reserved(field_name, fields) or field_name == label:
            continue
        if modalities is not None and field_name not in modalities:
            split.ignored.append(field_name)
            continue
        if modalities is None and not _is_modality(value, single):
            (split.empty if _gives_nothing(value) else split.ignored).append(field_name)
            continue
        attempt(partial(_read_modality, split, fields, field_name, value, single))
    attempt(lambda: _read_flags(split, fields.get("observed"), single))
    for modality in split.columns:
        if fields.get(f"raw_{modality}") is not None and modality != TEXT_MODALITY:
            attempt(partial(_read_recordings, split, fields, modality, single, folder))
    return split


def modality_candidates(fields: Fields, single: bool) -> list[str]:
    """The fields of a split that would be modalities if nothing chose among them."""
    return [
        name
        for name, value in fields.items()
        if not is_reserved(name, fields) and _is_modality(value, single)
    ]


def _is_modality(value: object, single: bool) -> bool:
    axes = axes_of(value)
    return axes is not None and axes >= (1 if single else 2)


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
    raise DataError(
        f"{name}: ids or modalities with a row for each sample were expected, {_listed(list(fields))} came"
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:12]) or "nothing"


def _items(value: object, split: RawSplit, single: bool, what: str) -> list[object]:
    """A field with one value for each sample, as a list."""
    label = f"{split.name}: {what}"
    if isinstance(value, np.ndarray):
        value = value.tolist() if value.ndim <= 1 else [value]
    if single and is_scalar(value):
        return [value]
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{label}: a list was expected, {type(value).__name__} came")
    if len(value) != split.rows:
        raise DataError(f"{label}: {split.rows} values were expected, {len(value)} came")
    return list(value)


def _text(item: object, label: str) -> str | None:
    if isinstance(item, (np.generic, np.ndarray)) and item.size == 1:
        item = item.item()
    if item is None or (isinstance(item, float) and np.isnan(item)):
        return None
    if isinstance(item, (str, bytes)):
        return whole_text(item)
    if isinstance(item, float) and item.is_integer():
        return str(int(item))
    if isinstance(item, (int, float)):
        return str(item)
    raise DataError(f"{label}: text was expected, {type(item).__name__} came")


def _read_ids(split: RawSplit, fields: Fields, single: bool) -> None:
    if fields.get("id") is None:
        split.numbered = True
        return
    ids: list[str] = []
    for row, item in enumerate(_items(fields["id"], split, single, "id")):
        text = _text(item, f"{split.name}: id of row {row}")
        if text is None:
            raise DataError(f"{split.name}: an id for each sample was expected, row {row} has none")
        ids.append(text)
    split.ids = tuple(ids)
    if len(set(ids)) < len(ids):
        twice = Counter(ids).most_common(1)[0][0]
        raise DataError(
            f"{split.name}: different ids were expected, {twice[:60]!r} comes more than once "
            f"({len(ids) - len(set(ids))} rows too many)"
        )


def _read_groups(split: RawSplit, fields: Fields, single: bool) -> None:
    if fields.get("group") is None:
        return
    items = _items(fields["group"], split, single, "group")
    texts = [_text(item, f"{split.name}: group") for item in items]
    split.groups = tuple(
        group_of(key) if text is None else text for text, key in zip(texts, split.ids, strict=True)
    )
    split.grouped = True


def _read_text(split: RawSplit, fields: Fields, single: bool) -> None:
    if fields.get("raw_text") is None:
        return
    items = _items(fields["raw_text"], split, single, "raw_text")
    split.raw_text = tuple(_text(item, f"{split.name}: raw_text") for item in items)


def _read_modality(split: RawSplit, fields: Fields, name: str, value: object, single: bool) -> None:
    column = None
    if not _gives_nothing(value):
        column = read_column(name, value, split.rows, single=single, where=split.name)
    if column is None:
        split.empty.append(name)
        return
    lengths = fields.get(f"{name}_lengths")
    if lengths is not None and column.kind == "sequence":
        column = with_lengths(column, lengths, where=split.name)
    split.columns[name] = column


def _read_recordings(split: RawSplit, fields: Fields, modality: str, single: bool, folder: Path) -> None:
    split.recordings[modality] = read_recordings(
        fields, modality, split.rows, folder, single=single, where=split.name
    )


def _read_flags(split: RawSplit, value: object, single: bool) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise DataError(f"{split.name}: observed: a mapping was expected, {type(value).__name__} came")
    for key, flags in value.items():
        name = whole_text(key) if isinstance(key, (str, bytes)) else str(key)
        items = _items(flags, split, single, f"observed/{name}")
        if not all(isinstance(item, (bool, int, np.bool_, float)) and item in (0, 1) for item in items):
            raise DataError(f"{split.name}: observed/{name}: true or false for each sample was expected")
        said = np.array(items, bool)
        if name in split.columns:
            split.flags[name] = said
        elif said.any() and name not in split.ignored:
            raise DataError(f"{split.name}: observed names {name[:40]!r}, which the split doesn't hold")
