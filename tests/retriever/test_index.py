from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import chromadb
import numpy as np
import pytest

from omg_graph.retriever import index as index_module
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.index import ChromaIndex, cache_folder, split_by_content

Made = Callable[..., KnowledgeBase]


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Records what is built."""
    done: list[str] = []
    fill = index_module._fill

    def recorded(client: object, kb: KnowledgeBase, *rest: object) -> None:
        done.append(kb.fingerprint)
        fill(client, kb, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(index_module, "_fill", recorded)
    return done


def stored(cache: Path) -> Path:
    (folder,) = (path for path in (cache / "chroma").iterdir() if not path.name.startswith("."))
    return folder


def nearest_itself(index: ChromaIndex) -> bool:
    partition = index.partitions[0]
    keys = index.kb.keys[partition.rows]
    return bool((index.nearest(partition, keys, 1)[:, 0] == np.arange(len(keys))).all())


def test_partitions_hold_equal_views_and_every_entry_once(made: Made) -> None:
    kb = made(60, missing=0.4)
    partitions = split_by_content(kb)
    assert sorted(np.concatenate([partition.rows for partition in partitions])) == list(range(60))
    for partition in partitions:
        assert (kb.has_view[partition.rows] == partition.has_view).all()
        for name, flags in kb.has_value.items():
            assert (flags[partition.rows] == (name in partition.modalities)).all()
    assert len(split_by_content(made(30))) == 1


def test_built_once_and_opened_afterwards(made: Made, cache: Path, builds: list[str]) -> None:
    for _ in range(3):
        index = ChromaIndex.open(made(50))
        assert index.degraded is None
        assert nearest_itself(index)
        index.close()
    assert len(builds) == 1
    assert [path.name for path in (cache / "chroma").iterdir()] == [stored(cache).name]


@pytest.mark.parametrize("rows", [1, 2, 50, 1_150])
def test_reopening_finds_the_files_as_they_were_built(made: Made, builds: list[str], rows: int) -> None:
    for _ in range(3):
        index = ChromaIndex.open(made(rows))
        assert nearest_itself(index)
        index.close()
    assert len(builds) == 1


def test_nothing_is_written_of_what_the_process_held_in_memory(made: Made, cache: Path) -> None:
    assert nearest_itself(ChromaIndex.open(made(50)))
    (data,) = stored(cache).rglob("data_level0.bin")
    content, places = data.read_bytes(), 100  # for 100 entries Chroma keeps room at first
    used = 50 * len(content) // places
    assert any(content[:used])
    assert not any(content[used:])
    assert not any(data.with_name("length.bin").read_bytes())


def test_other_entries_get_an_index_of_their_own(made: Made, cache: Path, builds: list[str]) -> None:
    indexes = [ChromaIndex.open(made(30, seed=seed)) for seed in (1, 2)]
    assert all(nearest_itself(index) for index in indexes)
    assert len(set(builds)) == 2
    assert len(list((cache / "chroma").iterdir())) == 2


@pytest.mark.parametrize("still_open", [True, False])
@pytest.mark.parametrize("damage", ["marker", "vectors", "database", "database header", "lost"])
def test_a_damaged_index_is_rebuilt(
    made: Made, cache: Path, builds: list[str], damage: str, still_open: bool
) -> None:
    kb = made(300)
    first = ChromaIndex.open(kb)
    if not still_open:
        first.close()
    folder = stored(cache)
    database = next(folder.rglob("chroma.sqlite3"))
    if damage == "marker":
        (folder / "index.json").write_text("{")
    elif damage == "vectors":
        vectors = next(folder.rglob("data_level0.bin"))
        content = bytearray(vectors.read_bytes())
        content[len(content) // 2] ^= 1
        vectors.write_bytes(content)
    elif damage == "database":
        content = bytearray(database.read_bytes())
        content[4096:] = os.urandom(len(content) - 4096)
        database.write_bytes(content)
    elif damage == "database header":
        database.write_bytes(b"not a database" * 100)
    else:
        database.unlink()
    second = ChromaIndex.open(kb)
    assert second.degraded is None
    assert nearest_itself(second)
    assert len(builds) == 2


def test_an_index_with_the_wrong_entries_is_rebuilt(made: Made, cache: Path, builds: list[str]) -> None:
    kb = made(50)
    ChromaIndex.open(kb).close()
    folder = stored(cache)
    marker = json.loads((folder / "index.json").read_text())
    client = chromadb.PersistentClient(
        path=str(folder / marker["store"]), settings=chromadb.Settings(anonymized_telemetry=False)
    )
    client.list_collections()[0].update(ids=["0"], embeddings=-kb.keys[:1])
    client.close()
    assert nearest_itself(ChromaIndex.open(kb))
    assert len(builds) == 2


def test_a_cache_that_cannot_be_written_is_said_in_words(made: Made, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    first = ChromaIndex.open(made(40, seed=1), blocked)
    second = ChromaIndex.open(made(40, seed=2), blocked)
    assert first.degraded is not None
    assert str(blocked) in first.degraded
    assert "in memory" in first.degraded
    assert nearest_itself(first)
    assert nearest_itself(second)
    first.close()
    assert nearest_itself(second)
    second.close()


def test_a_host_with_a_client_of_its_own_in_memory_is_not_disturbed(made: Made, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    settings = chromadb.Settings(anonymized_telemetry=False, allow_reset=True)
    client = chromadb.EphemeralClient(settings=settings)
    index = ChromaIndex.open(made(40), blocked)
    index.close()
    client.close()
    assert "scored one by one" in (index.degraded or "")
    assert [partition.collection for partition in index.partitions] == [None]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX permissions")
def test_a_store_that_others_can_write_is_not_opened(made: Made, cache: Path) -> None:
    kb = made(40)
    ChromaIndex.open(kb).close()
    folder = stored(cache)
    folder.chmod(0o777)
    index = ChromaIndex.open(kb)
    assert index.degraded is None
    assert stored(cache).stat().st_mode & 0o002 == 0


def test_builders_at_the_same_time_do_not_disturb_each_other(made: Made, cache: Path) -> None:
    kb = made(120)
    start = threading.Barrier(3)
    opened: list[ChromaIndex] = []

    def build() -> None:
        start.wait()
        opened.append(ChromaIndex.open(kb))

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [index.degraded for index in opened] == [None] * 3
    assert all(nearest_itself(index) for index in opened)
    assert len(list((cache / "chroma").iterdir())) == 1


def test_a_failed_build_leaves_nothing(made: Made, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(store: Path) -> dict[str, str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index_module, "_hashes", full)
    index = ChromaIndex.open(made(40))
    index.close()
    assert "No space left" in (index.degraded or "")
    assert list((cache / "chroma").iterdir()) == []


def test_what_a_killed_builder_left_is_swept(made: Made, cache: Path) -> None:
    left = cache / "chroma" / ".abc.new-1234"
    left.mkdir(parents=True)
    os.utime(left, (0, 0))
    ChromaIndex.open(made(20)).close()
    assert not left.exists()


def test_the_cache_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OMG_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("OMG_CACHE")
    assert cache_folder().name == "omg-graph"
