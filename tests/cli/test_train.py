"""``omg train``: its model, going on after a kill, and what it says when it can't."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from omg_graph.cli import main
from omg_graph.model.folder import load_model, read_manifest

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def config(tiny_settings: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_settings))
    return path


def test_a_model_for_people(
    tiny_data_file: Path, tiny_model_folder: Path, config: Path, tmp_path: Path, capsys: Capture
) -> None:
    output = tmp_path / "new" / "model"
    command = ["train", "--data", str(tiny_data_file), "--output", str(output), "--config", str(config)]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "validation" in out
    assert str(output) in out
    assert "executor: 2/2" in err
    assert "fitted on 'train' (48)" in err
    # a setting's place, on the line or in a file, makes no difference
    assert read_manifest(output).files == read_manifest(tiny_model_folder).files
    capsys.readouterr()
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--overwrite", "--epochs", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    manifest = read_manifest(output)
    assert document["fingerprint"] == manifest.fingerprint
    assert document["model"] == str(output)
    assert manifest.config["optimiser"]["epochs"] == 1


def test_a_choice_of_modalities_and_plans(
    tiny_data_file: Path, config: Path, tmp_path: Path, capsys: Capture
) -> None:
    command = ["train", "--data", str(tiny_data_file), "--config", str(config)]
    command += ["--output", str(tmp_path / "m")]
    assert main([*command, "--modalities", "vision, audio", "--annotator", "clusters"]) == 0
    capsys.readouterr()
    model = load_model(tmp_path / "m")
    assert sorted(model.names) == ["audio", "vision"]
    assert "cluster" in model.schema.name


# kill -9

RUNNER = """
import os, signal, sys, time
from pathlib import Path
import omg_graph.cli.app, omg_graph.api, omg_graph.training.graph, transformers, diffusers, accelerate
from omg_graph.cli import main

workspace, command = Path(sys.argv[1]), sys.argv[3:]
for moment in sys.argv[2].split(","):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(main(command))
    started = time.monotonic()
    while True:
        if moment.replace(".", "").isdigit():
            due = time.monotonic() - started > float(moment)
        else:
            due = bool(list(workspace.parent.glob(moment)))
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            print(moment, "finished", os.waitstatus_to_exitcode(status), flush=True)
            break
        if due:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            whole = [str(path) for path in workspace.parent.glob("model/manifest.json")]
            print(moment, "killed", *whole, flush=True)
            break
        time.sleep(0.002)
    if "--resume" not in command:
        command.append("--resume")
"""
"""Trains in forks of a process that has everything imported, and kills each at its moment: when a file
appears, or after so many seconds."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_run_that_is_killed_again_and_again(
    tiny_data_file: Path, tiny_model_folder: Path, config: Path, tmp_path: Path
) -> None:
    """It ends with the same files as one that was left alone, and no half of it is taken for a model."""
    output = tmp_path / "place" / "model"
    output.parent.mkdir()
    workspace = output.with_name("model.training")
    stages = ["codecs", "label-regression", "encoder", "student-fold-0", "plans", "executor", "prediction"]
    key = "[0-9a-f]" * 24
    moments = ["model.training/request.json"]
    moments += [f"model.training/{stage}-{key}.safetensors" for stage in stages]
    moments[-2:-2] = [f"model.training/executor-{key}.under-way.safetensors"]
    moments[3:3] = ["0.3"]
    moments += [".model.new-*/codecs.safetensors", "60"]
    command = ["train", "--data", str(tiny_data_file), "--output", str(output), "--config", str(config)]
    command.append("--no-planner-report")
    result = subprocess.run(
        [sys.executable, "-c", RUNNER, str(workspace), ",".join(moments), *command],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    said = result.stdout.splitlines()
    assert [line.split()[0] for line in said] == moments, result.stderr
    assert said[-1] == "60 finished 0", result.stderr
    killed = [line for line in said[:-1] if "killed" in line]
    # the last kill may come after the rename, never before the folder is whole
    assert len(killed) >= len(moments) - 2
    assert all(line.endswith("killed") for line in killed)
    assert read_manifest(output).files == read_manifest(tiny_model_folder).files
    assert not workspace.exists()


# what goes wrong


@pytest.fixture
def refuses(
    refused: Callable[..., str], tiny_data_file: Path, config: Path, tmp_path: Path
) -> Callable[..., str]:
    """``omg train`` must fail, and write nothing."""

    def go(*arguments: str, **options: object) -> str:
        given = {"data": tiny_data_file, "output": tmp_path / "out", "config": config} | options
        said = refused(
            "train", *(w for name, value in given.items() for w in (f"--{name}", value)), *arguments
        )
        assert not (tmp_path / "out").exists()
        return said

    return go


def test_requests_that_are_refused(
    refuses: Callable[..., str], tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    def save(name: str, content: object) -> Path:
        (tmp_path / name).write_bytes(pickle.dumps(content))
        return tmp_path / name

    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    (tmp_path / "bad.yaml").write_text("a: [1\n")
    (tmp_path / "typo.yaml").write_text("optimiser:\n  epohcs: 3\n")
    (tmp_path / "nowhere.yaml").write_text("encoder:\n  text_encoder: nobody/nothing\n")
    rows = {"text": np.ones((4, 3)), "audio": [[1.0, 2.0], [np.nan, 1.0], [2.0, 2.0], [3.0, 1.0]]}
    cases: list[tuple[tuple[str, ...], dict[str, object], str]] = [
        ((), {"data": tmp_path / "none.pkl"}, "none.pkl"),
        ((), {"data": tmp_path / "notes.txt"}, "notes.txt"),
        ((), {"data": save("test.pkl", {"test": {"text": np.ones((4, 3))}})}, "'train'"),
        ((), {"data": save("nan.pkl", {"train": rows})}, "--fill-nonfinite"),
        ((), {"data": save("empty.pkl", {"train": {"text": np.ones((0, 3))}})}, "empty.pkl"),
        ((), {"config": tmp_path / "none.yaml"}, "none.yaml"),
        ((), {"config": tmp_path / "list.yaml"}, "list.yaml"),
        ((), {"config": tmp_path / "bad.yaml"}, "bad.yaml"),
        ((), {"config": tmp_path / "typo.yaml"}, "epohcs"),
        ((), {"config": tmp_path / "nowhere.yaml"}, "nobody/nothing"),
        (("--modalities", "text,video"), {}, "'video'"),
        (("--label", "mood"), {}, "mood"),
        (("--device", "tpu"), {}, "'tpu'"),
        (("--annotator", "magic"), {}, "'magic'"),
        (("--fill-nonfinite", "median"), {}, "'median'"),
        (("--schema", str(tmp_path / "none.yaml")), {}, "none.yaml"),
        (("--text-encoder", str(tmp_path)), {}, str(tmp_path)),
        (("--epochs", "0"), {}, "--epochs"),
    ]
    for arguments, options, culprit in cases:
        assert culprit in refuses(*arguments, **options)


def test_a_malicious_pickle_is_refused_and_not_run(
    refuses: Callable[..., str], tmp_path: Path, malicious: object
) -> None:
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps({"train": {"text": np.ones((4, 3)), "raw_text": malicious}}))
    assert "system" in refuses(data=path)
    assert not (tmp_path / "done").exists()


def test_an_output_that_is_something_else(refuses: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    assert "isn't a model" in refuses("--overwrite", output=tmp_path / "mine")
    assert "isn't a model" in refuses(output=tmp_path / "mine" / "thesis.txt")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "all of it"
