"""What ``omg run`` tells of a sample."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from omg_graph.cli import main
from omg_graph.cli.features import FEATURES_SHOWN, feature_table
from omg_graph.cli.runtime import Settings
from omg_graph.cli.story import probabilities_text
from omg_graph.record.results import SavedRun, open_run
from omg_graph.record.trajectory import Prediction

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "apply", lambda self: None)


@pytest.fixture(scope="module")
def results(
    tiny_model_folder: Path, tiny_data_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> SavedRun:
    folder = tmp_path_factory.mktemp("story") / "out"
    command = _told(tiny_data_file, tiny_model_folder, folder, "--split", "valid", "--limit", "1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Settings, "apply", lambda self: None)
        assert main([*command, "--missing", "audio", "--no-report"]) == 0
    return open_run(folder)


def _told(data: Path, model: Path, output: Path, *more: str) -> list[str]:
    return ["run", "--input", str(data), "--model", str(model), "--output", str(output), *more]


@pytest.mark.parametrize("width", [80, 120])
def test_the_story_has_every_chapter_and_fits(
    tiny_data_file: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    command = _told(tiny_data_file, tiny_model_folder, tmp_path / "out", "--split", "valid", "--limit", "1")
    assert main([*command, "--missing", "audio"]) == 0
    out = capsys.readouterr().out
    chapters = [
        "observed   text, vision",
        "missing    audio (hidden on request)",
        "plan       ",
        "chosen (✓) and rejected of 5 candidates",
        "evidence for audio from",
        "denoising  audio: ",
        "result     audio: 5 numbers",
        "normalised squared error",
        "prediction ",
        " strongly positive, most probable: ",
        "results    ",
    ]
    places = [out.find(chapter) for chapter in chapters]
    assert -1 not in places, chapters[places.index(-1)]
    assert places == sorted(places)
    assert out.count("✓") == 2  # in the title of the table, and before the one that won
    tables = [line for line in out.splitlines() if line and line[0] in "┏┃┡│└─"]
    assert max(map(cell_len, tables)) <= width
    assert {line[-1] for line in tables} <= set("┓┃┩│┘")  # no table is cut off
    assert "┃ weight ┃ similarity ┃" in out


def test_nothing_missing(
    tiny_data_file: Path, tiny_model_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    assert main(_told(tiny_data_file, tiny_model_folder, tmp_path / "out", "--limit", "1")) == 0
    out = capsys.readouterr().out
    assert "missing    nothing" in out
    assert "nothing was reconstructed" in out
    assert "evidence for" not in out
    assert "prediction " in out


def test_several_samples_are_listed(
    tiny_data_file: Path, tiny_model_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = _told(tiny_data_file, tiny_model_folder, tmp_path / "out", "--split", "test")
    assert main([*command, "--missing", "text", "--missing", "audio"]) == 0
    out = capsys.readouterr().out
    assert "12 samples" in out
    assert "… and 2 more" in out
    assert "against the hidden truth (1 = training mean): text " in out


def _text(table: object) -> list[str]:
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    return captured.get().splitlines()


def test_features_without_names_are_not_listed(results: SavedRun) -> None:
    assert feature_table(results, "audio", np.zeros(5, np.float32)) is None


def test_the_features_furthest_from_the_mean_come_first(results: SavedRun) -> None:
    names = ("loud", "shrill", "slow", "hoarse", "wet")
    units = ("dB", "1", "Hz", "1", "1")
    assert results.facts is not None
    named = replace(
        results,
        facts=results.facts.model_copy(
            update={"feature_names": {"audio": names}, "feature_units": {"audio": units}}
        ),
    )
    scale = named.scale("audio")
    assert scale is not None
    distances = np.array([0.5, -3.0, 0.1, 2.0, -0.2], np.float32)
    lines = _text(feature_table(named, "audio", distances * scale[1] + scale[0]))
    told = [line for line in lines if any(name in line for name in names)]
    assert [next(name for name in names if name in line) for line in told] == [
        "shrill",
        "hoarse",
        "loud",
        "wet",
        "slow",
    ]
    assert len(told) <= FEATURES_SHOWN
    assert "-3.00" in told[0]
    assert "dB" in told[2]
    assert told[0].count("█") > told[1].count("█") > told[2].count("█")


def test_degrees_are_told_from_low_to_high(results: SavedRun) -> None:
    assert results.facts is not None
    degrees = results.facts.degrees or {}
    words = sorted(degrees, key=degrees.__getitem__)
    shares = dict(zip(words, [0.0, 0.0, 0.0, 0.1, 0.2, 0.4, 0.3], strict=True))
    prediction = Prediction(value=2.0, label="positive", probabilities=shares)
    told = probabilities_text(prediction, results.facts)
    assert told == "strongly negative ▁▁▁▃▅█▆ strongly positive, most probable: positive (40%)"


def test_classes_are_told_by_probability(results: SavedRun) -> None:
    shares = {"ant": 0.1, "bee": 0.7, "cat": 0.15, "dog": 0.05}
    prediction = Prediction(value=None, label="bee", probabilities=shares)
    assert probabilities_text(prediction, results.facts) == "bee 0.70, cat 0.15, ant 0.10"
