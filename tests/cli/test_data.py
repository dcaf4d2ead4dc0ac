"""Data files: ``omg data check`` and ``omg simulate``."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from omg_graph.cli import main
from omg_graph.cli.data import app, speakers_of_splits
from omg_graph.cli.options import model_folder
from omg_graph.data.reader import read_data_file
from omg_graph.model.folder import KNOWLEDGE_BASE
from omg_graph.retriever.entries import KnowledgeBase


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.pkl"
    split = {
        "id": ["a", "b"],
        "x": np.ones((2, 3)),
        "y": np.ones((2, 4, 2)),
        "y_lengths": [1, 2],
        "label": [0.5, 1.0],
    }
    path.write_bytes(pickle.dumps({"train": split}))
    return path


def test_tables(good: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(good)], env={"COLUMNS": "80"})
    assert result.exit_code == 0
    for words in (
        "train: 2 samples",
        "vector 3",
        "sequence 4 x 2",
        "frames of y: 1 to 2 of 4",
        "2 labelled",
        "can be used",
    ):
        assert words in result.output


def test_json_is_all_there_is(good: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(good), "--json", "--modalities", "x"])
    report = json.loads(result.output)
    assert report["usable"]
    assert [modality["name"] for modality in report["splits"][0]["modalities"]] == ["x"]


def test_a_bad_file_ends_with_2(tmp_path: Path) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"x": np.array([[1.0, np.nan]]), "more": None}))
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 2
    assert "not finite" in result.stdout
    (line,) = result.stderr.splitlines()
    assert "--fill-nonfinite" in line
    assert CliRunner().invoke(app, ["check", str(path), "--fill-nonfinite", "zero"]).exit_code == 0
    path.write_bytes(pickle.dumps(os.getcwd))
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert "getcwd" in line


def test_every_speaker_is_in_one_split() -> None:
    assert speakers_of_splits(2) == {"train": 2}
    assert speakers_of_splits(3) == {"train": 1, "valid": 1, "test": 1}
    assert speakers_of_splits(101) == {"train": 71, "valid": 15, "test": 15}


def test_speakers_are_strangers_to_the_embedded_model(tmp_path: Path, hashed_sentences: None) -> None:
    path = tmp_path / "clips.npz"
    assert main(["simulate", "--output", str(path), "--speakers", "3", "--clips", "2", "--seed", "3"]) == 0
    groups = {group for split in read_data_file(path).splits.values() for group in split.groups}
    assert groups == {f"synthetic-s3-{number:04d}" for number in range(3)}
    assert not groups & set(KnowledgeBase.load(model_folder(None) / KNOWLEDGE_BASE).groups)
