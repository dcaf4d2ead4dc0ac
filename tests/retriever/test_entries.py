from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from omg_graph.errors import KnowledgeBaseError
from omg_graph.files import whole_folder
from omg_graph.retriever.entries import KnowledgeBase

Made = Callable[..., KnowledgeBase]


def test_entries_are_kept_in_the_order_of_their_ids(made: Made) -> None:
    kb = made(12)
    order = list(range(11, -1, -1))
    fields = {
        name: tuple(getattr(kb, name)[row] for row in order) for name in ("ids", "groups", "texts", "sources")
    }
    turned = replace(
        kb,
        **fields,
        keys=kb.keys[order],
        has_view=kb.has_view[order],
        values={name: array[order] for name, array in kb.values.items()},
        has_value={name: flags[order] for name, flags in kb.has_value.items()},
        text_embeddings=kb.text_embeddings[order],
        labels=tuple((kb.labels or ())[row] for row in order),
    )
    assert list(kb.ids) == sorted(kb.ids)
    assert turned.ids == kb.ids
    assert turned.fingerprint == kb.fingerprint
    np.testing.assert_array_equal(turned.values["audio"], kb.values["audio"])


def test_the_fingerprint_is_of_the_content(made: Made) -> None:
    kb = made(8)
    assert replace(kb, name="another name").fingerprint == kb.fingerprint
    assert made(8).fingerprint == kb.fingerprint
    values = kb.values | {"audio": kb.values["audio"] + np.float32(1e-6)}
    changed = [
        replace(kb, values=values),
        replace(kb, texts=("other", *kb.texts[1:])),
        replace(kb, model_fingerprint="other"),
        replace(kb, labels=None),
        kb.take(range(7)),
    ]
    assert len({other.fingerprint for other in changed} | {kb.fingerprint}) == 6


def test_extending_adds_and_replaces_by_id(made: Made) -> None:
    mine, other = made(8, seed=1), made(12, seed=2).take(range(6, 12))
    both = mine.extended(other)
    assert set(both.ids) == set(mine.ids) | set(other.ids)
    for source, ids in ((other, other.ids), (mine, set(mine.ids) - set(other.ids))):
        for entry_id in ids:
            np.testing.assert_array_equal(
                both.keys[both.row_of[entry_id]], source.keys[source.row_of[entry_id]]
            )
    assert mine.extended(mine).fingerprint == mine.fingerprint


def test_labels_of_one_side_are_kept(made: Made) -> None:
    mine, other = made(4), replace(made(8).take(range(4, 8)), labels=None)
    both = mine.extended(other)
    assert both.labels is not None
    assert both.labels[both.row_of[other.ids[0]]] is None
    assert both.labels[both.row_of[mine.ids[1]]] == (mine.labels or ())[1]


def test_another_model_or_width_is_refused(made: Made) -> None:
    kb = made(4)
    with pytest.raises(KnowledgeBaseError, match="expected entries of model model, they are of model other"):
        kb.extended(made(4, model="other"))
    wider = replace(kb, values=kb.values | {"audio": np.zeros((4, 9), np.float32)})
    with pytest.raises(KnowledgeBaseError, match=r"expected widths.*'audio': 3.*got.*'audio': 9"):
        kb.extended(wider)
    kb.require("model", kb.views, kb.value_widths, 8)
    with pytest.raises(KnowledgeBaseError, match="'text': 9"):
        kb.require("model", kb.views, kb.value_widths, 9)


def test_what_makes_no_sense_is_refused(made: Made) -> None:
    kb = made(4)
    bad = kb.values["audio"].copy()
    bad[1] = np.nan
    with pytest.raises(KnowledgeBaseError, match="at least one entry"):
        kb.take([])
    with pytest.raises(KnowledgeBaseError, match="comes twice"):
        kb.take([0, 0])
    with pytest.raises(KnowledgeBaseError, match="unit-length"):
        replace(kb, keys=kb.keys * np.float32(2))
    with pytest.raises(KnowledgeBaseError, match="view audio, lengths"):
        replace(kb, has_view=kb.has_view & [True, False, True])
    with pytest.raises(KnowledgeBaseError, match=r"finite float32.*values\.audio.*3 non-finite"):
        replace(kb, values=kb.values | {"audio": bad})
    with pytest.raises(KnowledgeBaseError, match="for texts"):
        replace(kb, texts=kb.texts[1:])


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
    with pytest.raises(KnowledgeBaseError, match="version 1, got version 9"):
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
