"""Results read again: whole, in part, and damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from omg_graph.errors import DataError, OmgError
from omg_graph.record.artifacts import content_hash
from omg_graph.record.results import SavedRun, open_run


@pytest.fixture(scope="module")
def results(clips_run: SavedRun) -> Path:
    return clips_run.folder


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
    with pytest.raises(DataError, match="run omg run first"):
        open_run(results.parent / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("trajectory.jsonl", b'{"id": "a"}\n', "line 1: expected a trajectory that omg run wrote"),
        ("trajectory.jsonl", b"\xff\xfe\x00", "one trajectory a line"),
        ("trajectory.jsonl", b"\n", "one trajectory or more"),
        ("run.json", b"[]", "run.json: expected what omg run wrote"),
        ("arrays.safetensors", b"nonsense", "a safetensors file"),
    ],
)
def test_damage_is_one_line(copy: Path, name: str, content: bytes, complaint: str) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(DataError, match=complaint) as told:
        open_run(copy)
    assert "\n" not in str(told.value)


def test_a_field_from_elsewhere_is_named(copy: Path) -> None:
    path = copy / "trajectory.jsonl"
    path.write_text(path.read_text("utf-8").replace("{", '{"surprise": 1, ', 1), "utf-8")
    with pytest.raises(DataError, match="surprise"):
        open_run(copy)
