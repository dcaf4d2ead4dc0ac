"""A knowledge base as a folder: ``knowledge_base.json``, ``entries.jsonl`` and ``entries.safetensors``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from omg_graph.errors import KnowledgeBaseError
from omg_graph.files import whole_folder
from omg_graph.retriever.entries import KnowledgeBase, entry_arrays, entry_records
from omg_graph.retriever.keys import BoolArray, side_by_side

HEADER, RECORDS, ARRAYS = "knowledge_base.json", "entries.jsonl", "entries.safetensors"
VERSION = 1


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    width: int


class _Header(BaseModel):
    """What is in the folder, and the hashes by which a damaged file is told."""

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


def save_knowledge_base(kb: KnowledgeBase, folder: Path) -> None:
    """Write the folder whole or not at all; see ``KnowledgeBase.save``."""
    if folder.exists() and not _may_replace(folder):
        raise KnowledgeBaseError(
            f"{folder}: a new or empty folder, or an older knowledge base, was expected; this holds other "
            "things: name another folder"
        )
    records = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in entry_records(kb))
    arrays = {name: np.ascontiguousarray(array) for name, array in entry_arrays(kb).items()}
    contents = {RECORDS: records.encode(), ARRAYS: save_arrays(arrays)}
    header = _Header(
        version=VERSION,
        name=kb.name,
        fingerprint=kb.fingerprint,
        model_fingerprint=kb.model_fingerprint,
        views=[_View(name=view.name, width=view.width) for view in kb.views],
        entries=len(kb),
        values={name: int(flags.sum()) for name, flags in sorted(kb.has_value.items())},
        sha256={name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    )
    try:
        with whole_folder(folder, replace=True) as made:
            for name, content in contents.items():
                (made / name).write_bytes(content)
            (made / HEADER).write_text(header.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise KnowledgeBaseError(
            f"{folder}: a folder that can be written was expected, the system says "
            f"{error.strerror or error}; name another folder"
        ) from error


def load_knowledge_base(folder: Path) -> KnowledgeBase:
    """Read and check a folder; see ``KnowledgeBase.load``."""
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
        name.removeprefix("values."): array for name, array in arrays.items() if name.startswith("values.")
    }
    labelled = any("label" in record.model_fields_set for record in records)
    kb = KnowledgeBase(
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
            f"{folder}: a knowledge base folder with {HEADER} was expected, there is none; "
            "make one with omg kb build"
        ) from error
    try:
        version = json.loads(text).get("version")
        if version != VERSION:
            raise KnowledgeBaseError(
                f"{folder}: a knowledge base of version {VERSION} was expected, version {version} came; "
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
        f"{folder}: a whole knowledge base was expected, but {reason}; copy it again or build it anew "
        "with omg kb build"
    )
