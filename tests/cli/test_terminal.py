"""What ``omg run`` shows of a sample in the terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from omg_graph.cli import main
from omg_graph.cli.terminal import features_table, labels_text
from omg_graph.record.results import SavedRun
from omg_graph.record.trajectory import Prediction
from omg_graph.record.view import FeatureView, TrajectoryView, view

Capture = pytest.CaptureFixture[str]


def _run(data: Path, model: Path, output: Path, *more: str) -> list[str]:
    return ["run", "--input", str(data), "--model", str(model), "--output", str(output), *more]


def test_every_part_is_shown_in_order_and_fits(
    tiny_data_file: Path,
    tiny_model_folder: Path,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    width = 80
    monkeypatch.setenv("COLUMNS", str(width))
    command = _run(tiny_data_file, tiny_model_folder, tmp_path / "out", "--split", "valid", "--limit", "1")
    assert main([*command, "--missing", "audio"]) == 0
    out = capsys.readouterr().out
    parts = [
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
    places = [out.find(part) for part in parts]
    assert -1 not in places, parts[places.index(-1)]
    assert places == sorted(places)
    assert out.count("✓") == 2  # in the title of the table, and before the one that won
    tables = [line for line in out.splitlines() if line and line[0] in "┏┃┡│└─"]
    assert max(map(cell_len, tables)) <= width
    assert {line[-1] for line in tables} <= set("┓┃┩│┘")  # no table is cut off
    assert "┃ weight ┃ similarity ┃" in out


def test_nothing_missing(
    tiny_data_file: Path, tiny_model_folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = _run(tiny_data_file, tiny_model_folder, tmp_path / "out", "--limit", "1", "--no-report")
    assert main(command) == 0
    out = capsys.readouterr().out
    assert all(part in out for part in ("missing    nothing", "nothing was reconstructed", "prediction "))
    assert "evidence for" not in out


def test_samples_are_listed(clips_run: SavedRun, capsys: Capture) -> None:
    assert main(["trace", "show", str(clips_run.folder)]) == 0
    out = capsys.readouterr().out
    assert "12 samples" in out
    assert "… and 2 more" in out
    assert "against the hidden truth (1 = training mean): audio " in out


def _view(clips_run: SavedRun, prediction: Prediction) -> TrajectoryView:
    trajectory = clips_run.trajectories[0].model_copy(update={"prediction": prediction})
    return view(trajectory, clips_run.facts)


def test_degrees_are_shown_from_low_to_high(clips_run: SavedRun) -> None:
    assert clips_run.facts is not None
    degrees = clips_run.facts.degrees or {}
    words = sorted(degrees, key=degrees.__getitem__)
    shares = dict(zip(words, [0.0, 0.0, 0.0, 0.1, 0.2, 0.4, 0.3], strict=True))
    sample = _view(clips_run, Prediction(value=2.0, label="positive", probabilities=shares))
    assert labels_text(sample) == "strongly negative ▁▁▁▃▅█▆ strongly positive, most probable: positive (40%)"


def test_classes_are_shown_by_probability(clips_run: SavedRun) -> None:
    shares = {"ant": 0.1, "bee": 0.7, "cat": 0.15, "dog": 0.05}
    sample = _view(clips_run, Prediction(value=None, label="bee", probabilities=shares))
    assert labels_text(sample) == "bee 0.70, cat 0.15, ant 0.10"


def test_a_table_of_features() -> None:
    distances = {"shrill": -3.0, "hoarse": 2.0, "loud": 0.5}
    features = [FeatureView(name, "dB", 1.0, 0.0, distance) for name, distance in distances.items()]
    console = Console(width=100, file=io.StringIO())
    with console.capture() as captured:
        console.print(features_table("audio", features))
    rows = [row for row in captured.get().splitlines() if "dB" in row]
    assert [row.split()[1] for row in rows] == list(distances)
    assert "-3.00" in rows[0]
    assert rows[0].count("█") > rows[1].count("█") > rows[2].count("█")
