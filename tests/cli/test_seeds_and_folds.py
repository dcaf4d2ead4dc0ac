"""``omg train --seeds --folds`` and ``omg tune``: what they print, what they leave, what goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from omg_graph.cli import main
from omg_graph.model.folder import read_manifest

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def config(tiny_settings: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_settings))
    return path


def test_seeds_into_one_folder_that_is_evaluated(
    tiny_data_file: Path, config: Path, tmp_path: Path, capsys: Capture
) -> None:
    output = tmp_path / "models"
    command = ["train", "--data", str(tiny_data_file), "--output", str(output), "--config", str(config)]
    several = [*command, "--seed", "4", "--seeds", "2", "--missing-rate", "0.5"]
    assert main(several) == 0
    out, err = capsys.readouterr()
    assert "seed-4" in out
    assert "seed-5" in out
    assert "seed-5: executor: 2/2" in err
    assert "missing rate 0.5" in err
    assert [read_manifest(output / f"seed-{seed}").seed for seed in (4, 5)] == [4, 5]
    assert main([*several, "--resume", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [model["folder"] for model in document["models"]] == ["seed-4", "seed-5"]
    assert document["models"][0]["metrics"]["rows"]
    results = [*("--draws", "0", "--floors", "none", "--patterns", "text"), "--output", str(tmp_path / "out")]
    assert main(["evaluate", "--model", str(output), "--data", str(tiny_data_file), *results, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["model_seed"] for row in rows] == [4, 5]


def test_folds_that_are_measured_and_compared(
    tiny_folds_folder: Path, tiny_data_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = ["evaluate", "--model", str(tiny_folds_folder), "--data", str(tiny_data_file), "--draws", "0"]
    assert main([*command, "--patterns", "text", "--output", str(tmp_path / "out")]) == 0
    _, err = capsys.readouterr()
    assert "held it out (folds 0, 1 of 2)" in err
    assert main(["compare", str(tmp_path / "out"), str(tmp_path / "out")]) == 0
    assert "no difference shown" in capsys.readouterr().out


def test_weights_are_tuned_and_trained_with(
    tiny_data_file: Path, config: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "grid.yaml").write_text("semantic: [0.3]\nplan: [0.5]\nevidence: [0.1]\n")
    given = ["--data", str(tiny_data_file), "--config", str(config)]
    command = ["tune", *given, "--grid", str(tmp_path / "grid.yaml"), "--budget", "1"]
    assert main([*command, "--output", str(tmp_path / "tuned")]) == 0
    out, err = capsys.readouterr()
    for shown in ("lambda_s", "lambda_p", "lambda_e", "plan agreement", "chosen", "best.yaml"):
        assert shown in out
    assert "lambda_p=0.5" in err
    assert main([*command, "--output", str(tmp_path / "tuned")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    best = ["--config", str(tmp_path / "tuned" / "best.yaml"), "--epochs", "1"]
    assert main(["train", "--data", str(tiny_data_file), *best, "--output", str(tmp_path / "model")]) == 0
    assert read_manifest(tmp_path / "model").config["objective"]["plan"] == 0.5


def test_requests_that_are_refused(
    tiny_data_file: Path, config: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "grid.yaml").write_text("plan: [-1]\n")
    given = ["--data", str(tiny_data_file), "--output", str(tmp_path / "out"), "--config", str(config)]
    for arguments, culprit in (
        (["train", *given, "--seeds", "0"], "--seeds"),
        (["train", *given, "--folds", "1"], "--folds"),
        (["train", *given, "--folds", "40"], "at most 16"),
        (["train", *given, "--folds", "2", "--fill-nonfinite", "mean"], "--folds"),
        (["train", *given, "--missing-rate", "1.5"], "--missing-rate"),
        (["tune", *given, "--grid", str(tmp_path / "grid.yaml")], "plan.0"),
        (["tune", *given, "--grid", str(tmp_path / "none.yaml")], "none.yaml"),
        (["tune", *given, "--criterion", "accuracy", "--budget", "1"], "one of auto"),
    ):
        assert main(arguments) == 2, arguments
        out, err = capsys.readouterr()
        assert out == ""
        assert culprit in err.splitlines()[-1], err
        assert not list(tmp_path.glob("out*")), arguments
