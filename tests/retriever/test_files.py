from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from omg_graph.errors import KnowledgeBaseError
from omg_graph.files import whole_folder
from omg_graph.retriever.entries import KnowledgeBase

Made = Callable[..., KnowledgeBase]


@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_round_trip(made: Made, tmp_path: Path, missing: float) -> None:
    kb = made(20, missing=missing)
    kb.save(tmp_path / "kb")
    again = KnowledgeBase.load(tmp_path / "kb")
    assert again.fingerprint == kb.fingerprint
    assert (again.ids, again.labels, again.views, again.name) == (kb.ids, kb.labels, kb.views, kb.name)
    np.testing.assert_array_equal(again.has_view, kb.has_view)
    for name, flags in kb.has_value.items():
        np.testing.assert_array_equal(again.has_value[name], flags)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kb"]
    assert sorted(path.name for path in (tmp_path / "kb").iterdir()) == [
        "entries.jsonl",
        "entries.safetensors",
        "knowledge_base.json",
    ]


def test_texts_of_any_kind_survive(made: Made, tmp_path: Path) -> None:
    from dataclasses import replace

    texts = ("line\nbreak", "\u2028 and \r", "愤怒 · 😠", "")
    replace(made(4), texts=texts).save(tmp_path / "kb")
    assert KnowledgeBase.load(tmp_path / "kb").texts == texts


def test_the_same_entries_give_the_same_bytes(made: Made, tmp_path: Path) -> None:
    for name in ("a", "b"):
        made(6).save(tmp_path / name)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_an_older_knowledge_base_is_replaced_and_nothing_else(made: Made, tmp_path: Path) -> None:
    folder = tmp_path / "kb"
    made(4).save(folder)
    made(6).save(folder)
    assert len(KnowledgeBase.load(folder)) == 6
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("precious")
    with pytest.raises(KnowledgeBaseError, match="holds other things"):
        made(4).save(other)
    assert (other / "chapter.tex").read_text() == "precious"


@pytest.mark.parametrize("name", ["knowledge_base.json", "entries.jsonl", "entries.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damage_is_told(made: Made, tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "kb"
    made(6).save(folder)
    path = folder / name
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(KnowledgeBaseError) as caught:
        KnowledgeBase.load(folder)
    assert "\n" not in str(caught.value)
    assert "omg kb build" in str(caught.value)


def test_entries_swapped_with_their_hashes_are_still_checked(made: Made, tmp_path: Path) -> None:
    import hashlib

    folder = tmp_path / "kb"
    kb = made(4)
    kb.save(folder)
    arrays = {"keys": kb.keys, "text_embeddings": kb.text_embeddings}
    save_file(
        arrays | {f"values.{name}": array + np.float32(1) for name, array in kb.values.items()},
        folder / "entries.safetensors",
    )
    header = json.loads((folder / "knowledge_base.json").read_text())
    digest = hashlib.sha256((folder / "entries.safetensors").read_bytes()).hexdigest()
    header["sha256"]["entries.safetensors"] = digest
    (folder / "knowledge_base.json").write_text(json.dumps(header))
    with pytest.raises(KnowledgeBaseError, match="don't belong together"):
        KnowledgeBase.load(folder)


def test_a_later_version_is_refused(made: Made, tmp_path: Path) -> None:
    made(4).save(tmp_path / "kb")
    header = tmp_path / "kb" / "knowledge_base.json"
    header.write_text(json.dumps(json.loads(header.read_text()) | {"version": 9}))
    with pytest.raises(KnowledgeBaseError, match="version 1 was expected, version 9 came"):
        KnowledgeBase.load(tmp_path / "kb")


def test_no_folder_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeBaseError, match="there is none"):
        KnowledgeBase.load(tmp_path / "nothing")


def test_a_failure_while_writing_leaves_what_was_there(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "kb"
    made(4).save(folder)

    def full(self: Path, *_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(KnowledgeBaseError, match="No space left on device"):
        made(6).save(folder)
    assert len(KnowledgeBase.load(folder)) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["kb"]


def test_a_folder_is_not_there_before_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    with whole_folder(target, replace=False) as made:
        (made / "file").write_text("content")
        assert not target.exists()
    assert (target / "file").read_text() == "content"
    with pytest.raises(OSError, match=r"not empty|exists"), whole_folder(target, replace=False) as made:
        (made / "file").write_text("later")
    assert (target / "file").read_text() == "content"
    assert [path.name for path in target.parent.iterdir()] == ["folder"]
