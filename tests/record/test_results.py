"""Results read again: whole, in part, and damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from omg_graph.cli import main
from omg_graph.errors import DataError, OmgError
from omg_graph.record.artifacts import content_hash
from omg_graph.record.results import open_run


@pytest.fixture(scope="module")
def results(tiny_data_file: Path, tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "out"
    common = ["--input", str(tiny_data_file), "--model", str(tiny_model_folder), "--split", "valid"]
    assert main(["run", *common, "--missing", "audio", "--limit", "2", "--output", str(folder)]) == 0
    return folder


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(results, tmp_path / "copy"))


def test_every_array_is_what_its_reference_says(results: Path) -> None:
    run = open_run(results)
    for trajectory in run.trajectories:
        refs = [*trajectory.arrays.values(), *trajectory.reconstruction.values()]
        assert {f"{kind}/audio" for kind in ("truth", "nearest", "clean", "steps")} <= set(trajectory.arrays)
        for ref in refs:
            array = run.arrays.get(ref)
            assert (array.shape, content_hash(array)) == (ref.shape, ref.sha256)


def test_the_folder_or_its_trajectories_can_be_named(results: Path) -> None:
    by_file, by_folder = open_run(results / "trajectory.jsonl"), open_run(results)
    assert by_file.trajectories == by_folder.trajectories
    assert by_file.facts == by_folder.facts
    assert by_folder.lacking == ()


def test_the_facts_tell_of_the_model_and_the_settings(results: Path) -> None:
    facts = open_run(results).facts
    assert facts is not None
    assert facts.model == "tiny"
    assert facts.settings["seed"] == 0
    assert facts.degrees is not None
    assert [spec.name for spec in facts.modalities] == ["text", "audio", "vision"]


def test_the_training_mean_is_in_the_units_of_the_input(results: Path) -> None:
    run = open_run(results)
    scale = run.arrays.scale("audio")
    assert scale is not None
    truth = np.stack([run.arrays.get(t.arrays["truth/audio"]) for t in run.trajectories])
    assert np.abs((truth - scale[0]) / scale[1]).mean() < 3
    assert run.arrays.scale("nothing") is None


def test_what_is_not_there_is_said(copy: Path) -> None:
    (copy / "run.json").unlink()
    (copy / "arrays.safetensors").unlink()
    run = open_run(copy)
    assert [lack.split()[0] for lack in run.lacking] == ["run.json", "arrays.safetensors"]
    ref = run.trajectories[0].reconstruction["audio"]
    assert run.arrays.find(ref) is None
    with pytest.raises(OmgError, match="isn't in"):
        run.arrays.get(ref)


def test_a_reference_beyond_the_array_finds_nothing(results: Path) -> None:
    run = open_run(results)
    ref = run.trajectories[0].reconstruction["audio"]
    assert run.arrays.find(ref.model_copy(update={"uri": ref.uri.replace("[0]", "[99]")})) is None
    assert run.arrays.find(ref.model_copy(update={"uri": "file:///etc/passwd"})) is None


def test_another_sample_is_an_error_that_names_some(results: Path) -> None:
    run = open_run(results)
    assert run.trajectory(run.trajectories[1].id) is run.trajectories[1]
    with pytest.raises(DataError, match=r"no sample 'nobody', but .*--id"):
        run.trajectory("nobody")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("trajectory.jsonl", b'{"id": "a"}\n', "line 1: a trajectory that omg run wrote"),
        ("trajectory.jsonl", b"\xff\xfe\x00", "one trajectory a line"),
        ("trajectory.jsonl", b"\n", "one trajectory or more"),
        ("run.json", b"[]", "run.json: what omg run wrote"),
        ("arrays.safetensors", b"nonsense", "a safetensors file"),
    ],
)
def test_damage_is_one_line(copy: Path, name: str, content: bytes, complaint: str) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint) as told:
        open_run(copy)
    assert "\n" not in str(told.value)


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run omg run first"):
        open_run(tmp_path)


def test_a_field_from_elsewhere_is_named(copy: Path) -> None:
    path = copy / "trajectory.jsonl"
    line = json.loads(path.read_text("utf-8").splitlines()[0]) | {"surprise": 1}
    path.write_text(json.dumps(line), "utf-8")
    with pytest.raises(DataError, match="surprise"):
        open_run(copy)
