"""The knowledge base D = {d_i}: what its entries hold, in memory and as a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from omg_graph.errors import KnowledgeBaseError
from omg_graph.files import whole_folder
from omg_graph.retriever.keys import BoolArray, FloatArray, View, side_by_side

IntArray = npt.NDArray[np.int64]

UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class KnowledgeBase:
    """Entries made from samples: a key to be found by, values to give, a text and where it came from.

    Entries are kept in the order of their ids, whatever order they come in, so that equal contents have
    equal fingerprints and ties between entries are settled by id.

    Raises:
        KnowledgeBaseError: if there is no entry, an id comes twice, shapes disagree, a number isn't finite
            or a key isn't made of unit-length views.
    """

    name: str
    """What sources and messages call it; no part of the fingerprint."""
    model_fingerprint: str
    """The model whose psi, g and autoencoders made keys, text embeddings and values."""
    views: tuple[View, ...]
    ids: tuple[str, ...]
    """The id of the sample that each entry was made from, unchanged."""
    groups: tuple[str, ...]
    texts: tuple[str, ...]
    sources: tuple[str, ...]
    """Which knowledge base and split an entry came from, e.g. ``mosi_train_valid.pkl · train``."""
    keys: FloatArray
    """k_i, (entries, sum of view widths): unit-length views side by side, zeros for those missing."""
    has_view: BoolArray
    """(entries, views)."""
    values: dict[str, FloatArray]
    """v_i, modality to (entries, latent width): latents, zeros where the entry has none."""
    has_value: dict[str, BoolArray]
    """Modality to (entries,)."""
    text_embeddings: FloatArray
    """u_i = g(d_i), (entries, text width)."""
    labels: tuple[str | None, ...] | None = None

    def __post_init__(self) -> None:
        _check(self)
        if any(left > right for left, right in zip(self.ids, self.ids[1:], strict=False)):
            order = sorted(range(len(self)), key=self.ids.__getitem__)
            for name, value in _rows(self, order).items():
                object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def key_width(self) -> int:
        """Width of keys and queries."""
        return sum(view.width for view in self.views)

    @property
    def value_widths(self) -> dict[str, int]:
        """Latent width of each modality."""
        return {name: array.shape[1] for name, array in self.values.items()}

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Id to row."""
        return {entry_id: row for row, entry_id in enumerate(self.ids)}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the content: the same entries of the same model, the same fingerprint."""
        digest = hashlib.sha256()
        views = [[view.name, view.width] for view in self.views]
        digest.update(json.dumps([self.model_fingerprint, views]).encode())
        for record in entry_records(self):
            digest.update(b"\n" + json.dumps(record, sort_keys=True).encode())
        for name, array in sorted(entry_arrays(self).items()):
            digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def take(self, rows: Sequence[int] | IntArray) -> KnowledgeBase:
        """A knowledge base of these entries alone."""
        return replace(self, **_rows(self, [int(row) for row in rows]))

    def require(
        self,
        model_fingerprint: str,
        views: Sequence[View],
        value_widths: Mapping[str, int],
        text_width: int,
    ) -> None:
        """Refuse a knowledge base that another model made, or one of other widths.

        Raises:
            KnowledgeBaseError: if the model's fingerprint or a width differs.
        """
        remedy = "build it anew with omg kb build --model"
        if self.model_fingerprint != model_fingerprint:
            raise KnowledgeBaseError(
                f"knowledge base {self.name}: expected entries of model {model_fingerprint[:12]}, they "
                f"are of model {self.model_fingerprint[:12] or '(none)'}; {remedy}"
            )
        expected = _widths(views, value_widths, text_width)
        came = _widths(self.views, self.value_widths, self.text_embeddings.shape[1])
        if expected != came:
            raise KnowledgeBaseError(
                f"knowledge base {self.name}: expected widths {expected}, got {came}; {remedy}"
            )

    def extended(self, other: KnowledgeBase) -> KnowledgeBase:
        """These entries and the other's; where both have an id, the other's entry takes its place.

        Raises:
            KnowledgeBaseError: if the other was made by another model or has other widths.
        """
        other.require(self.model_fingerprint, self.views, self.value_widths, self.text_embeddings.shape[1])
        kept = [row for row, entry_id in enumerate(self.ids) if entry_id not in other.row_of]
        if not kept:
            return replace(other, name=self.name)
        mine = self.take(kept)
        labels: tuple[str | None, ...] | None = None
        if mine.labels is not None or other.labels is not None:
            labels = (mine.labels or (None,) * len(mine)) + (other.labels or (None,) * len(other))
        return KnowledgeBase(
            name=self.name,
            model_fingerprint=self.model_fingerprint,
            views=self.views,
            ids=mine.ids + other.ids,
            groups=mine.groups + other.groups,
            texts=mine.texts + other.texts,
            sources=mine.sources + other.sources,
            keys=np.concatenate([mine.keys, other.keys]),
            has_view=np.concatenate([mine.has_view, other.has_view]),
            values={name: np.concatenate([mine.values[name], other.values[name]]) for name in mine.values},
            has_value={
                name: np.concatenate([mine.has_value[name], other.has_value[name]]) for name in mine.has_value
            },
            text_embeddings=np.concatenate([mine.text_embeddings, other.text_embeddings]),
            labels=labels,
        )

    def save(self, folder: Path) -> None:
        """Write the folder whole or not at all; an older knowledge base there is replaced.

        Raises:
            KnowledgeBaseError: if the folder holds something else, or can't be written.
        """
        if folder.exists() and not _may_replace(folder):
            raise KnowledgeBaseError(
                f"{folder}: expected a new or empty folder, or an older knowledge base, got one that holds "
                "other things: name another folder"
            )
        records = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in entry_records(self))
        arrays = {name: np.ascontiguousarray(array) for name, array in entry_arrays(self).items()}
        contents = {RECORDS: records.encode(), ARRAYS: save_arrays(arrays)}
        header = _Header(
            version=VERSION,
            name=self.name,
            fingerprint=self.fingerprint,
            model_fingerprint=self.model_fingerprint,
            views=[_View(name=view.name, width=view.width) for view in self.views],
            entries=len(self),
            values={name: int(flags.sum()) for name, flags in sorted(self.has_value.items())},
            sha256={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
        )
        try:
            with whole_folder(folder, replace=True) as made:
                for name, content in contents.items():
                    (made / name).write_bytes(content)
                (made / HEADER).write_text(header.model_dump_json(indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise KnowledgeBaseError(
                f"{folder}: expected a folder that can be written, the system says "
                f"{error.strerror or error}; name another folder"
            ) from error

    @classmethod
    def load(cls, folder: Path) -> KnowledgeBase:
        """Read a folder that ``save`` wrote, checking every byte.

        Raises:
            KnowledgeBaseError: if it isn't a knowledge base, is damaged or of an unknown version.
        """
        header = _read_header(folder)
        contents = {name: _read(folder, name, header) for name in (RECORDS, ARRAYS)}
        try:
            records = [_Record.model_validate_json(line) for line in contents[RECORDS].splitlines()]
            arrays = load_arrays(contents[ARRAYS])
        except (ValidationError, SafetensorError, UnicodeDecodeError) as error:
            raise _damaged(folder, f"its entries can't be read ({type(error).__name__})") from error
        if {"keys", "text_embeddings"} - arrays.keys():
            raise _damaged(folder, f"{ARRAYS} lacks keys or text_embeddings")
        values = {
            name.removeprefix("values."): array
            for name, array in arrays.items()
            if name.startswith("values.")
        }
        labelled = any("label" in record.model_fields_set for record in records)
        kb = cls(
            name=header.name,
            model_fingerprint=header.model_fingerprint,
            views=side_by_side({view.name: view.width for view in header.views}),
            ids=tuple(record.id for record in records),
            groups=tuple(record.group for record in records),
            texts=tuple(record.text for record in records),
            sources=tuple(record.source for record in records),
            keys=arrays["keys"],
            has_view=_flags([record.views for record in records], [view.name for view in header.views]),
            values=values,
            has_value={
                name: _flags([record.values for record in records], [name])[:, 0] for name in sorted(values)
            },
            text_embeddings=arrays["text_embeddings"],
            labels=tuple(record.label for record in records) if labelled else None,
        )
        if kb.fingerprint != header.fingerprint:
            raise _damaged(folder, "its header and its entries don't belong together")
        return kb


def entry_records(kb: KnowledgeBase) -> list[dict[str, Any]]:
    """What a person can read of each entry: one JSON object, a line of ``entries.jsonl``."""
    records: list[dict[str, Any]] = []
    for row, entry_id in enumerate(kb.ids):
        record: dict[str, Any] = {
            "id": entry_id,
            "group": kb.groups[row],
            "text": kb.texts[row],
            "source": kb.sources[row],
            "views": [view.name for column, view in enumerate(kb.views) if kb.has_view[row, column]],
            "values": [name for name in sorted(kb.values) if kb.has_value[name][row]],
        }
        if kb.labels is not None:
            record["label"] = kb.labels[row]
        records.append(record)
    return records


def entry_arrays(kb: KnowledgeBase) -> dict[str, FloatArray]:
    """The numbers of the entries, named as in ``entries.safetensors``."""
    arrays = {"keys": kb.keys, "text_embeddings": kb.text_embeddings}
    return arrays | {f"values.{name}": array for name, array in kb.values.items()}


def _rows(kb: KnowledgeBase, rows: list[int]) -> dict[str, Any]:
    index = np.array(rows, dtype=np.int64)

    def pick(texts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(texts[row] for row in rows)

    return {
        "ids": pick(kb.ids),
        "groups": pick(kb.groups),
        "texts": pick(kb.texts),
        "sources": pick(kb.sources),
        "keys": kb.keys[index],
        "has_view": kb.has_view[index],
        "values": {name: array[index] for name, array in kb.values.items()},
        "has_value": {name: flags[index] for name, flags in kb.has_value.items()},
        "text_embeddings": kb.text_embeddings[index],
        "labels": None if kb.labels is None else tuple(kb.labels[row] for row in rows),
    }


def _widths(views: Sequence[View], values: Mapping[str, int], text_width: int) -> dict[str, Any]:
    return {
        "views": {view.name: view.width for view in views},
        "values": dict(sorted(values.items())),
        "text": text_width,
    }


def _check(kb: KnowledgeBase) -> None:
    entries = len(kb.ids)
    if entries == 0:
        raise KnowledgeBaseError(f"knowledge base {kb.name}: expected at least one entry, got none; add data")
    if len(set(kb.ids)) != entries:
        twice = next(entry_id for entry_id in kb.ids if kb.ids.count(entry_id) > 1)
        raise KnowledgeBaseError(
            f"knowledge base {kb.name}: expected distinct ids, {twice!r} comes twice; keep one of them"
        )
    expected = 0
    for view in kb.views:
        if view.offset != expected or view.width < 1:
            raise KnowledgeBaseError(
                f"knowledge base {kb.name}: view {view.name} was expected at column {expected} with a width "
                f"above 0, column {view.offset} and width {view.width} came; lay views side by side"
            )
        expected += view.width
    for name, texts in (("groups", kb.groups), ("texts", kb.texts), ("sources", kb.sources)):
        _shape(kb, name, (len(texts),), (entries,))
    if kb.labels is not None:
        _shape(kb, "labels", (len(kb.labels),), (entries,))
    _shape(kb, "keys", kb.keys.shape, (entries, kb.key_width))
    _shape(kb, "has_view", kb.has_view.shape, (entries, len(kb.views)))
    _shape(kb, "modalities of has_value", tuple(sorted(kb.has_value)), tuple(sorted(kb.values)))
    for name, flags in kb.has_value.items():
        _shape(kb, f"has_value of {name}", flags.shape, (entries,))
    for name, array in entry_arrays(kb).items():
        _shape(kb, name, array.shape[:1] + (0,) * (array.ndim - 1), (entries, 0))
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise KnowledgeBaseError(
                f"knowledge base {kb.name}: finite float32 numbers were expected in {name}, "
                f"{array.dtype} with {int((~np.isfinite(array)).sum())} non-finite came; build it anew"
            )
    for column, view in enumerate(kb.views):
        lengths = np.linalg.norm(kb.keys[:, view.columns].astype(np.float64), axis=1)
        there = kb.has_view[:, column]
        unit = (np.abs(lengths - 1.0) <= UNIT_TOLERANCE) & there
        if not (unit | (lengths == 0.0)).all():
            raise KnowledgeBaseError(
                f"knowledge base {kb.name}: unit-length vectors (zeros where missing) were expected in view "
                f"{view.name}, lengths up to {lengths.max():.3g} came; make keys with build_keys"
            )


def _shape(kb: KnowledgeBase, what: str, came: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    if came != expected:
        raise KnowledgeBaseError(
            f"knowledge base {kb.name}: {expected} was expected for {what}, {came} came; build it anew"
        )


HEADER, RECORDS, ARRAYS = "knowledge_base.json", "entries.jsonl", "entries.safetensors"
VERSION = 1


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    width: int


class _Header(BaseModel):
    """The folder's content, and hashes to detect damaged files."""

    model_config = ConfigDict(extra="forbid")
    version: int
    name: str
    fingerprint: str
    model_fingerprint: str
    views: list[_View]
    entries: int
    values: dict[str, int]
    """Modality to the number of entries that hold it."""
    sha256: dict[str, str]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")
    id: str
    group: str
    text: str
    source: str
    views: list[str]
    values: list[str]
    label: str | None = None


def is_knowledge_base(folder: Path) -> bool:
    """Whether the folder looks like one that ``save`` wrote, whole or damaged."""
    return (folder / HEADER).is_file()


def _may_replace(folder: Path) -> bool:
    return folder.is_dir() and (is_knowledge_base(folder) or not any(folder.iterdir()))


def _read_header(folder: Path) -> _Header:
    path = folder / HEADER
    try:
        text = path.read_bytes()
    except OSError as error:
        raise KnowledgeBaseError(
            f"{folder}: expected a knowledge base folder with {HEADER}, there is none; "
            "make one with omg kb build"
        ) from error
    try:
        version = json.loads(text).get("version")
        if version != VERSION:
            raise KnowledgeBaseError(
                f"{folder}: expected a knowledge base of version {VERSION}, got version {version}; "
                "build it anew with omg kb build"
            )
        return _Header.model_validate_json(text)
    except (ValueError, AttributeError) as error:
        raise _damaged(folder, f"{HEADER} isn't a header") from error


def _read(folder: Path, name: str, header: _Header) -> bytes:
    # Hashed and parsed from the same bytes: nothing can change between the check and the use.
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise _damaged(folder, f"{name} can't be read") from error
    if hashlib.sha256(content).hexdigest() != header.sha256.get(name):
        raise _damaged(folder, f"{name} isn't the file that its header describes")
    return content


def _flags(named: Sequence[Sequence[str]], names: Sequence[str]) -> BoolArray:
    return np.array([[name in row for name in names] for row in named], dtype=np.bool_).reshape(
        len(named), len(names)
    )


def _damaged(folder: Path, reason: str) -> KnowledgeBaseError:
    return KnowledgeBaseError(
        f"{folder}: expected a whole knowledge base, but {reason}; copy it again or build it anew "
        "with omg kb build"
    )
