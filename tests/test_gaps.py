"""Lost frames end to end: training on them, and a run that fills them and leaves the rest alone."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from omg_graph.api import prepare, reconstruct
from omg_graph.cli.app import app
from omg_graph.data.dataset import BoolArray
from omg_graph.data.reader import read_data_file
from omg_graph.errors import DataError
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model

FRAMES = 8


def clips(name: str, rows: int, seed: int) -> dict[str, Any]:
    """A vector, and a padded sequence that swings too fast to be interpolated; some frames are lost."""
    random = np.random.default_rng(seed)
    hidden = random.standard_normal((rows, 2))
    time = np.arange(FRAMES)
    base = np.stack([np.cos(2.5 * time), np.sin(2.5 * time)])
    sequence = np.einsum("kt,nk->nt", base, hidden)[..., None] * np.array([1.0, -2.0, 0.5])
    sequence = (sequence + 0.05 * random.standard_normal(sequence.shape)).astype(np.float32)
    lengths = random.integers(FRAMES - 2, FRAMES + 1, rows)
    sequence[np.arange(FRAMES)[None] >= lengths[:, None]] = 0.0
    return {
        "id": [f"{name}{row // 2}$_${row}" for row in range(rows)],
        "view": hidden + 0.1 * random.standard_normal(hidden.shape),
        "waves": sequence,
        "waves_lengths": lengths,
        "regression_labels": np.clip(hidden[:, 0], -3, 3),
    }


def with_lost_frames(split: dict[str, Any], seed: int) -> tuple[dict[str, Any], BoolArray]:
    random = np.random.default_rng(seed)
    inside: BoolArray = np.arange(FRAMES)[None] < split["waves_lengths"][:, None]
    lost: BoolArray = (random.random(inside.shape) < 0.25) & inside
    lost[:, 0] = False
    sequence = split["waves"].copy()
    sequence[lost] = np.nan
    return split | {"waves": sequence}, lost


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return clips("test", 6, 2)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory, whole: dict[str, Any]) -> Path:
    """Frames are lost in every split."""
    path = tmp_path_factory.mktemp("gaps") / "gaps.pkl"
    splits = {
        "train": with_lost_frames(clips("train", 60, 0), 3)[0],
        "valid": with_lost_frames(clips("valid", 12, 1), 4)[0],
        "test": with_lost_frames(whole, 5)[0],
    }
    path.write_bytes(pickle.dumps(splits))
    return path


@pytest.fixture(scope="module")
def folder(file: Path, train_tiny: Callable[..., Path]) -> Path:
    return train_tiny(file, "gaps-model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load_model(folder)


def test_frames_are_filled_and_the_rest_is_left_alone(
    file: Path, folder: Path, whole: dict[str, Any], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    told = CliRunner().invoke(
        app, ["run", "--input", str(file), "--model", str(folder), "--output", str(output), "--split", "test"]
    )
    assert told.exit_code == 0, told.output
    given, lost = with_lost_frames(whole, 5)
    with np.load(output / "reconstruction.npz") as results:
        filled, marks = results["waves"], results["waves_filled"]
        assert not results["waves_reconstructed"].any()
        rows: BoolArray = np.asarray(lost.any(axis=1))
        np.testing.assert_array_equal(results["waves_lengths"][rows], given["waves_lengths"][rows])
    np.testing.assert_array_equal(marks, lost)
    assert np.isnan(filled[~rows]).all()
    there = ~lost & rows[:, None]
    assert filled[there].tobytes() == given["waves"][there].tobytes()
    error = np.square(filled - whole["waves"])[lost].mean()
    assert error < 0.1 * np.square(whole["waves"])[lost].mean()
    lines = [json.loads(line) for line in (output / "trajectory.jsonl").read_text().splitlines()]
    for row, line in enumerate(lines):
        frames = np.flatnonzero(lost[row]).tolist()
        if not frames:
            assert "filled" not in line
            continue
        assert line["filled"] == {"waves": {"frames": frames, "of": int(given["waves_lengths"][row])}}
        assert line["missing"] == []
        assert any("were lost and filled" in note for note in line["notes"])


def test_the_manifest_says_how_well_frames_are_filled(model: Model) -> None:
    told = model.manifest.training["frame_filling"]["waves"]
    assert told["error"] < 0.4 < 1.0 < told["interpolation"]
    assert model.manifest.data["lost_frames"]["waves"] > 0
    assert any("lost frames in the training rows" in note for note in model.manifest.notes)


def test_lost_frames_beside_a_wholly_missing_modality(model: Model, file: Path) -> None:
    """The frames are then filled from the sequence itself alone."""
    both = reconstruct(model, file, split="test", missing=["view"])
    assert all("view" in trajectory.errors for trajectory in both)
    assert any(trajectory.filled for trajectory in both)


def test_a_hidden_sequence_is_scored_on_the_frames_that_are_known(
    model: Model, file: Path, whole: dict[str, Any]
) -> None:
    """Whatever stands in a lost frame, the error of the others is the same."""
    with_gaps = reconstruct(model, file, split="test", missing=["waves"])
    split = read_data_file(file).splits["test"]
    assert np.array_equal(split.lost["waves"], with_lost_frames(whole, 5)[1])
    complete = reconstruct(model, whole, missing=["waves"])
    gaps: BoolArray = np.asarray(with_lost_frames(whole, 5)[1].any(axis=1))
    for row, (first, second) in enumerate(zip(with_gaps, complete, strict=True)):
        assert not first.filled
        assert (first.errors["waves"] == second.errors["waves"]) == (not gaps[row])
        assert first.errors["waves"].squared_deviation <= second.errors["waves"].squared_deviation


def test_other_modalities_help_to_fill(model: Model, whole: dict[str, Any]) -> None:
    """With one frame left, the vector tells what the others were."""
    truth = np.array(whole["waves"])
    lost = np.arange(FRAMES)[None] < whole["waves_lengths"][:, None]
    lost[:, 3] = False
    sequence = truth.copy()
    sequence[lost] = np.nan

    def error(**changes: Any) -> float:
        content = {name: value for name, value in whole.items() if "labels" not in name}
        split = prepare(model, content | {"waves": sequence} | changes).observed
        filled = model.latent_space.fill_frames(split)["waves"]
        return float(np.square(filled - truth)[lost].mean() / np.square(truth)[lost].mean())

    assert error() < 0.5 * error(view=None)


def test_a_partly_broken_frame_is_still_an_error(model: Model, whole: dict[str, Any]) -> None:
    sequence = np.array(whole["waves"])
    sequence[1, 2, 0] = np.nan
    with pytest.raises(DataError, match="make the whole frame NaN if it is lost"):
        reconstruct(model, whole | {"waves": sequence})


def test_one_sample_in_json(model: Model, whole: dict[str, Any]) -> None:
    """A frame that is null is lost; so is one of nulls."""
    frames: list[Any] = np.array(whole["waves"])[0].tolist()
    frames[1], frames[4] = None, [None, None, None]
    sample = {"id": "one", "view": whole["view"][0].tolist(), "waves": frames}
    (trajectory,) = reconstruct(model, sample)
    assert trajectory.filled["waves"].frames == (1, 4)
