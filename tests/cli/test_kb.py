"""``omg kb`` with a small trained model."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omg_graph.cli import main
from omg_graph.model.config import ModelConfig
from omg_graph.retriever.entries import KnowledgeBase

Capture = pytest.CaptureFixture[str]
Refused = Callable[..., str]


def _rows(config: ModelConfig, ids: list[str]) -> dict[str, object]:
    rng = np.random.default_rng(len(ids))
    rows: dict[str, object] = {"id": ids, "group": [f"g{sample_id[0]}" for sample_id in ids]}
    rows["raw_text"] = [f"words of [b]{sample_id}[/b]" for sample_id in ids]
    for spec in config.modalities:
        rows[spec.name] = rng.standard_normal((len(ids), *spec.shape)).astype(np.float32)
    return rows


@pytest.fixture
def data(tiny_model_folder: Path, tmp_path: Path) -> Path:
    """Two splits that the model can read, without labels."""
    config = ModelConfig.model_validate_json((tiny_model_folder / "model.json").read_text(encoding="utf-8"))
    path = tmp_path / "some.pkl"
    splits = {"train": _rows(config, ["a1", "a2", "b1"]), "valid": _rows(config, ["c1", "c2"])}
    path.write_bytes(pickle.dumps(splits))
    return path


@pytest.fixture
def built(tiny_model_folder: Path, data: Path, tmp_path: Path, capsys: Capture) -> Path:
    folder = tmp_path / "kb"
    code = main(
        ["kb", "build", "--data", str(data), "--model", str(tiny_model_folder), "--output", str(folder)]
    )
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "3 entries" in out
    assert "split 'train'" in err
    return folder


def test_entries_come_from_the_training_split(built: Path) -> None:
    kb = KnowledgeBase.load(built)
    assert kb.ids == ("a1", "a2", "b1")
    assert set(kb.sources) == {"some.pkl · train"}
    assert kb.name == "kb"
    assert all("words of" in text for text in kb.texts)


def test_the_same_command_makes_the_same_entries(
    built: Path, tiny_model_folder: Path, data: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    splits = ["--split", "valid", "--split", "train"]
    model = ["--model", str(tiny_model_folder)]
    assert main(["kb", "build", "--data", str(data), *splits, *model, "--output", str(again)]) == 0
    all_of_them, few = KnowledgeBase.load(again), KnowledgeBase.load(built)
    assert len(all_of_them) == 5
    # What an entry is doesn't depend on what else is there.
    kept = all_of_them.take([all_of_them.row_of[entry] for entry in few.ids])
    assert kept.texts == few.texts
    np.testing.assert_allclose(kept.keys, few.keys, rtol=1e-4, atol=1e-5)


def test_add_extends_and_replaces(built: Path, tiny_model_folder: Path, data: Path, capsys: Capture) -> None:
    model = ["--model", str(tiny_model_folder)]
    assert main(["kb", "add", "--data", str(data), "--split", "valid", "--kb", str(built), *model]) == 0
    assert "2 entries added" in capsys.readouterr().out
    assert KnowledgeBase.load(built).ids == ("a1", "a2", "b1", "c1", "c2")
    before = KnowledgeBase.load(built).fingerprint
    assert main(["kb", "add", "--data", str(data), "--kb", str(built), *model]) == 0
    assert "0 entries added" in capsys.readouterr().out
    assert KnowledgeBase.load(built).fingerprint == before


def test_query_finds_an_entry_by_its_own_text(built: Path, tiny_model_folder: Path, capsys: Capture) -> None:
    text = KnowledgeBase.load(built).texts[1]
    command = ["kb", "query", "--text", text, "--kb", str(built), "--model", str(tiny_model_folder)]
    assert main([*command, "--top-k", "2", "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)["entries"]
    assert len(entries) == 2
    assert entries[0]["id"] == "a2"
    assert entries[0]["score"] == pytest.approx(1.0, abs=1e-3)
    assert entries[0]["score"] >= entries[1]["score"]
    assert main(command) == 0
    table = capsys.readouterr().out
    assert "[b]a2[/b]" in table


def test_stats(built: Path, tiny_model_folder: Path, capsys: Capture) -> None:
    assert main(["kb", "stats", "--model", str(tiny_model_folder), "--json"]) == 0
    counted = json.loads(capsys.readouterr().out)
    assert counted["entries"] == len(KnowledgeBase.load(tiny_model_folder / "knowledge_base"))
    assert counted["entries"] == sum(counted["sources"].values())
    assert all(value["width"] > 0 for value in counted["values"].values())
    assert main(["kb", "stats", "--kb", str(built)]) == 0
    assert "some.pkl · train" in capsys.readouterr().out


def test_another_models_entries_are_refused(
    built: Path, data: Path, tiny_model_folder: Path, tmp_path: Path, refused: Refused
) -> None:
    """The same entries, said to be another model's."""
    foreign = tmp_path / "foreign"
    replace(KnowledgeBase.load(built), model_fingerprint="f" * 64, name="foreign").save(foreign)
    before = KnowledgeBase.load(foreign).fingerprint
    for arguments in (["query", "--text", "x"], ["stats"], ["add", "--data", data]):
        said = refused("kb", *arguments, "--kb", foreign, "--model", tiny_model_folder)
        assert said.startswith("omg: knowledge base foreign")
    assert KnowledgeBase.load(foreign).fingerprint == before


def test_bad_requests(tiny_model_folder: Path, data: Path, tmp_path: Path, refused: Refused) -> None:
    twin, mine, own = tmp_path / "twin.pkl", tmp_path / "mine", tiny_model_folder / "knowledge_base"
    shutil.copy(data, twin)
    mine.mkdir()
    (mine / "notes.txt").write_text("keep me")
    output = ["--output", tmp_path / "new"]
    for arguments, complaint in (
        (["build", "--data", data, "--split", "tset", *output], "tset"),
        (["build", "--data", tmp_path / "none.pkl", *output], "none.pkl"),
        (["build", "--data", data, "--data", twin, *output], "'a1' comes from some.pkl"),
        (["build", "--data", data, "--output", mine], "other things"),
        (["build", "--data", data, "--output", own], "part of a model"),
        (["add", "--data", data, "--kb", own], "part of a model"),
        (["query", "--text", "  "], "--text"),
        (["query", "--text", "x", "--kb", tmp_path], "knowledge base folder"),
    ):
        assert complaint in refused("kb", *arguments, "--model", tiny_model_folder, notes=True)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
