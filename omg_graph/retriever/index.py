"""The Chroma index of a knowledge base: derived from its entries, kept in a cache folder, never shipped."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import shutil
import sqlite3
import struct
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from chromadb.config import Settings

from omg_graph.files import whole_folder
from omg_graph.retriever.entries import IntArray, KnowledgeBase
from omg_graph.retriever.keys import BoolArray, FloatArray
from omg_graph.telemetry import step

_log = logging.getLogger(__name__)

LAYOUT = 2
MARKER = "index.json"
DATABASE = "chroma.sqlite3"
BATCH = 5_000
"""Chroma takes 5,461 vectors at once at most."""
SMALLEST_COLLECTION = 256
"""Fewer entries than this are scored one by one, which is faster than asking Chroma."""
ATTEMPTS = 3
STALE_AFTER = 24 * 3600.0
"""Seconds after which a half-built index is taken for one whose builder was killed."""


@dataclass(frozen=True)
class Partition:
    """Entries that hold the same views and the same values.

    Within one, every entry shares the same number of views with a query, so that the order by inner product
    is the order by mean cosine, and Chroma's ranking can be trusted as it is.
    """

    name: str
    rows: IntArray
    """Rows in the knowledge base, ascending."""
    has_view: BoolArray
    """(views,)."""
    modalities: frozenset[str]
    """Modalities whose value these entries hold."""
    collection: Any = None
    """The Chroma collection; None where entries are scored one by one."""


Opened = tuple[Any, tuple[Partition, ...]]
"""A Chroma client and the partitions with their collections."""


class _UnusableIndexError(Exception):
    """A cached index that is damaged or not ours."""


class ChromaIndex:
    """Finds the rows of a partition with the largest inner product; ranking is left to the caller.

    The index is built whole in a cache folder named by the knowledge base's fingerprint and never written
    afterwards, so a reader can't go stale. It is never opened from a folder that holds a knowledge base: a
    Chroma store contains a pickle, and one from somebody else could contain anything.
    """

    def __init__(
        self, kb: KnowledgeBase, client: Any, partitions: tuple[Partition, ...], degraded: str | None
    ) -> None:
        self.kb = kb
        self.partitions = partitions
        self.degraded = degraded
        """Why the index isn't kept in the cache folder, in words; None if it is."""
        self._client = client

    @classmethod
    def open(cls, kb: KnowledgeBase, cache_dir: Path | None = None) -> ChromaIndex:
        """The index of these entries: opened from the cache, or built there on first use.

        Where the cache folder can't be used, an index in memory serves, and ``degraded`` says why.

        Args:
            kb: the entries.
            cache_dir: where indexes are kept; None for ``OMG_CACHE`` or the platform's cache folder.
        """
        partitions = split_by_content(kb)
        root = cache_folder() if cache_dir is None else cache_dir
        try:
            client, opened = _cached(kb, partitions, root / "chroma")
        except (OSError, _UnusableIndexError) as error:
            why = f"the cache folder {root} can't be used ({error})"
            _log.warning("%s", why)
            try:
                client, opened = _in_memory(kb, partitions)
            except ValueError as clash:  # the host program has a client in memory with other settings
                return cls(
                    kb, None, partitions, f"{why}, nor memory ({clash}): entries are scored one by one"
                )
            return cls(kb, client, opened, f"{why}: the index is built in memory each time")
        return cls(kb, client, opened, None)

    def nearest(self, partition: Partition, queries: FloatArray, count: int) -> IntArray:
        """Places in the partition of about the best ``count`` entries for each query, in no given order.

        Args:
            partition: one that has a collection.
            queries: (queries, key width).
            count: how many; no more than the partition has.

        Returns:
            (queries, count), -1 where Chroma gave fewer.
        """
        found = partition.collection.query(
            query_embeddings=np.ascontiguousarray(queries, dtype=np.float32), n_results=count, include=[]
        )
        places = np.full((len(queries), count), -1, dtype=np.int64)
        for row, names in enumerate(found["ids"]):
            places[row, : len(names)] = [int(name) for name in names]
        return places

    def close(self) -> None:
        """Let go of the store; what was built in memory is dropped."""
        if self.degraded is not None:
            for partition in self.partitions:
                if partition.collection is not None:
                    self._client.delete_collection(partition.collection.name)
        if self._client is not None:
            self._client.close()


def cache_folder() -> Path:
    """Where derived things are kept: ``OMG_CACHE``, else this platform's folder for caches."""
    if chosen := os.environ.get("OMG_CACHE"):
        return Path(chosen)
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "omg-graph"


def split_by_content(kb: KnowledgeBase) -> tuple[Partition, ...]:
    """Partitions of the entries by the views and values they hold, the largest first."""
    modalities = sorted(kb.values)
    flags = np.concatenate(
        [kb.has_view, np.stack([kb.has_value[name] for name in modalities], axis=1)]
        if modalities
        else [kb.has_view],
        axis=1,
    )
    patterns, members = np.unique(flags, axis=0, return_inverse=True)
    views = len(kb.views)
    partitions = [
        Partition(
            name=f"views-{_bits(pattern[:views])}-values-{_bits(pattern[views:])}",
            rows=np.flatnonzero(members.reshape(-1) == number),
            has_view=pattern[:views],
            modalities=frozenset(np.array(modalities, dtype=np.str_)[pattern[views:]].tolist()),
        )
        for number, pattern in enumerate(patterns)
    ]
    return tuple(sorted(partitions, key=lambda partition: (-len(partition.rows), partition.name)))


def hnsw_settings(entries: int) -> dict[str, Any]:
    """Chroma's HNSW settings with which its search is exact, or as good as, for so many entries.

    With the defaults two builds of the same 3,000 vectors agreed on the top ten for 161 of 200 queries; a
    search list of a fifth of the entries, and of 1,000 at least, gave the exact ones up to 20,000.
    """
    return {
        "hnsw": {
            "space": "ip",
            "ef_search": max(1_000, entries // 5),
            "ef_construction": 400 if entries <= BATCH else 200,
            "max_neighbors": 32,
            # Everything is written once, with the last entry: otherwise Chroma writes again at each opening.
            "sync_threshold": entries,
            "batch_size": min(entries, 100),
        }
    }


def _bits(flags: BoolArray) -> str:
    return "".join("1" if flag else "0" for flag in flags) or "none"


def _indexed(partitions: tuple[Partition, ...]) -> tuple[Partition, ...]:
    return tuple(
        partition
        for number, partition in enumerate(partitions)
        if number == 0 or len(partition.rows) >= SMALLEST_COLLECTION
    )


def _settings() -> Settings:
    return Settings(anonymized_telemetry=False)


def _fill(client: Any, kb: KnowledgeBase, partitions: tuple[Partition, ...], suffix: str = "") -> None:
    for partition in _indexed(partitions):
        collection = client.create_collection(
            partition.name + suffix,
            # Vectors are our own; the default function would download a model.
            embedding_function=None,
            configuration=hnsw_settings(len(partition.rows)),
        )
        for start in range(0, len(partition.rows), BATCH):
            block = partition.rows[start : start + BATCH]
            collection.add(
                ids=[str(place) for place in range(start, start + len(block))], embeddings=kb.keys[block]
            )


def _with_collections(
    client: Any, kb: KnowledgeBase, partitions: tuple[Partition, ...], suffix: str = ""
) -> tuple[Partition, ...]:
    names = {partition.name for partition in _indexed(partitions)}
    opened = []
    for partition in partitions:
        collection = None
        if partition.name in names:
            collection = client.get_collection(partition.name + suffix, embedding_function=None)
            _probe(collection, kb, partition)
        opened.append(replace(partition, collection=collection))
    return tuple(opened)


def _probe(collection: Any, kb: KnowledgeBase, partition: Partition) -> None:
    """Ask for a few entries by their own keys: what comes must be as near as the entry itself."""
    if collection.count() != len(partition.rows):
        raise _UnusableIndexError(f"{collection.count()} of {len(partition.rows)} entries are there")
    sample = partition.rows[:: max(1, len(partition.rows) // 8)][:8]
    found = collection.query(query_embeddings=kb.keys[sample], n_results=1, include=[])["ids"]
    keys = kb.keys[sample].astype(np.float64)
    best = kb.keys[[partition.rows[int(names[0])] for names in found]].astype(np.float64)
    if ((keys * best).sum(axis=1) < (keys * keys).sum(axis=1) - 1e-4).any():
        raise _UnusableIndexError("an entry isn't found by its own key")


def _cached(kb: KnowledgeBase, partitions: tuple[Partition, ...], root: Path) -> Opened:
    folder = root / f"{kb.fingerprint[:32]}-{LAYOUT}-{chromadb.__version__}"
    for _ in range(ATTEMPTS):
        there = folder.exists()
        if not there:
            with step("index.build", entries=len(kb), collections=len(_indexed(partitions))):
                _build(kb, partitions, folder)
        _log.info("index %s: %s", "reused" if there else "built", folder)
        try:
            return _open(kb, partitions, folder)
        except _UnusableIndexError as error:
            reason = error
            _discard(folder)
    raise reason


def _build(kb: KnowledgeBase, partitions: tuple[Partition, ...], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    _sweep(folder.parent)
    # Chroma keeps one client for each path and process: a new path for each build, so that the
    # client of an older index never answers for a rebuilt one.
    store_name = f"store-{secrets.token_hex(8)}"
    try:
        with whole_folder(folder, replace=False) as made:
            store = made / store_name
            client = chromadb.PersistentClient(path=str(store), settings=_settings())
            try:
                _fill(client, kb, partitions)
            finally:
                client.close()
            _blank_unused(store)
            marker = {"fingerprint": kb.fingerprint, "store": store_name, "sha256": _hashes(store)}
            (made / MARKER).write_text(json.dumps(marker, indent=2), encoding="utf-8")
    except OSError as error:
        # Another process was faster: its index is as good.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _blank_unused(store: Path) -> None:
    """Blank the places that Chroma keeps for further entries, and the lengths that inner products don't use.

    It writes them as it got them from the operating system: with what the process held there before, which
    may be a provider's key (chroma-core/chroma#7688).
    """
    for header in store.rglob("header.bin"):
        # version, offset, places, entries, bytes of each
        _, _, _, entries, size = struct.unpack_from("<i4Q", header.read_bytes())
        for name, start in (("data_level0.bin", entries * size), ("length.bin", 0)):
            with header.with_name(name).open("r+b") as file:
                unused = file.seek(0, os.SEEK_END) - start
                file.seek(start)
                file.write(bytes(max(unused, 0)))


def _open(kb: KnowledgeBase, partitions: tuple[Partition, ...], folder: Path) -> Opened:
    status = folder.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o002):
        raise _UnusableIndexError(f"{folder} belongs to, or can be written by, someone else")
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        store = folder / str(marker["store"])
        whole = marker["fingerprint"] == kb.fingerprint and marker["sha256"] == _hashes(store)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _UnusableIndexError(f"its marker can't be read ({error})") from error
    if not whole:
        raise _UnusableIndexError("its files aren't those that were built")
    _check_database(store / DATABASE)
    failure: Exception | None = None
    for attempt in range(ATTEMPTS):
        # Another process that opens the store at this moment may hold its database for an instant.
        time.sleep(0.2 * attempt)
        client = None
        try:
            client = chromadb.PersistentClient(path=str(store), settings=_settings())
            return client, _with_collections(client, kb, partitions)
        except Exception as error:  # Chroma reports damage by errors of many kinds
            failure = error
            if client is not None:
                client.close()
            if isinstance(error, _UnusableIndexError):
                raise
    raise _UnusableIndexError(f"Chroma can't open it ({failure})") from failure


def _check_database(path: Path) -> None:
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            verdict = database.execute("PRAGMA quick_check").fetchone()
    except sqlite3.OperationalError as error:
        raise _UnusableIndexError(f"its database can't be read ({error})") from error
    except sqlite3.DatabaseError as error:
        raise _UnusableIndexError(f"its database is damaged ({error})") from error
    if verdict != ("ok",):
        raise _UnusableIndexError(f"its database is damaged ({verdict[0]})")


def _hashes(store: Path) -> dict[str, str]:
    """SHA-256 of every file but the database, which Chroma touches whenever it opens a store."""
    files = sorted(path for path in store.rglob("*") if path.is_file() and not path.name.startswith(DATABASE))
    return {
        path.relative_to(store).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


def _discard(folder: Path) -> None:
    # Renamed first: nobody may find it half deleted.
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old-", dir=folder.parent))
    with suppress(FileNotFoundError):  # another process may have found the damage too
        folder.rename(aside / folder.name)
    shutil.rmtree(aside, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove what builders that were killed have left."""
    for left in root.glob(".*-*"):
        if left.is_dir() and time.time() - left.stat().st_mtime > STALE_AFTER:
            shutil.rmtree(left, ignore_errors=True)


def _in_memory(kb: KnowledgeBase, partitions: tuple[Partition, ...]) -> Opened:
    client = chromadb.EphemeralClient(settings=_settings())
    # All clients in memory share one store in a process: names of our own keep indexes apart.
    suffix = f"-{secrets.token_hex(8)}"
    _fill(client, kb, partitions, suffix)
    return client, _with_collections(client, kb, partitions, suffix)
