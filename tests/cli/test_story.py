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
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model
from omg_graph.trajectory.trajectory import Prediction

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "apply", lambda self: None)


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Model:
    return load_model(tiny_model_folder)


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
        "denoising  audio: 5 steps",
        "result     audio: 5 numbers",
        "normalised squared error",
        "prediction ",
        "strongly negative ",
        "results    ",
    ]
    places = [out.find(chapter) for chapter in chapters]
    assert -1 not in places, chapters[places.index(-1)]
    assert places == sorted(places)
    assert out.count("✓") == 2  # in the title of the table, and before the one that won
    tables = [line for line in out.splitlines() if line and line[0] in "┏┃┡│└─"]
    assert max(map(cell_len, tables)) <= width
    assert {line[-1] for line in tables} <= set("┓┃┩│┘")  # no table is cut off
    assert "┃ weight ┃ cosine ┃" in out


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


def test_features_without_names_are_not_listed(model: Model) -> None:
    assert feature_table(model, "audio", np.zeros(5, np.float32)) is None


def test_the_features_furthest_from_the_mean_come_first(model: Model) -> None:
    names = ("loud", "shrill", "slow", "hoarse", "wet")
    named = replace(
        model,
        config=model.config.model_copy(
            update={
                "feature_names": {"audio": names},
                "feature_units": {"audio": ("dB", "1", "Hz", "1", "1")},
            }
        ),
    )
    standardiser = model.latent_space.codecs["audio"].standardiser
    distances = np.array([0.5, -3.0, 0.1, 2.0, -0.2], np.float32)
    lines = _text(feature_table(named, "audio", standardiser.invert(distances[None])[0]))
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


def test_degrees_are_told_from_low_to_high(model: Model) -> None:
    words = sorted(model.schema.degrees or {}, key=(model.schema.degrees or {}).__getitem__)
    shares = dict(zip(words, [0.0, 0.0, 0.0, 0.1, 0.2, 0.4, 0.3], strict=True))
    told = probabilities_text(Prediction(value=2.0, label="positive", probabilities=shares), model)
    assert told == "strongly negative ▁▁▁▃▅█▆ strongly positive, most probable: positive (40%)"


def test_classes_are_told_by_probability(model: Model) -> None:
    shares = {"ant": 0.1, "bee": 0.7, "cat": 0.15, "dog": 0.05}
    told = probabilities_text(Prediction(value=None, label="bee", probabilities=shares), model)
    assert told == "bee 0.70, cat 0.15, ant 0.10"
