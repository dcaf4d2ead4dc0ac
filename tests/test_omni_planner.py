"""A Qwen2.5-Omni thinker plans in the whole graph: text, sound and an image go in, a trajectory comes out."""

from __future__ import annotations

import json
import pickle
import sys
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from omg_graph import reconstruct
from omg_graph.cli import main
from omg_graph.data.reader import read_data_file
from omg_graph.model.model import Model
from omg_graph.model.planners import PlannerOptions, make_planner
from omg_graph.planner.prompting import load_prompt

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]


@pytest.fixture(scope="module")
def clips(tiny_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips with the recordings behind their features: a WAV file and an image each."""
    folder = tmp_path_factory.mktemp("clips")
    split = read_data_file(tiny_data_file).splits["test"].take([0, 1])
    assert split.raw_text is not None
    random = np.random.default_rng(0)
    for row in range(2):
        with wave.open(str(folder / f"{row}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(8_000)
            file.writeframes((random.standard_normal(4_000) * 3_000).astype(np.int16).tobytes())
        Image.fromarray(random.integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(folder / f"{row}.png")
    fields = {
        "id": list(split.ids),
        "raw_text": list(split.raw_text),
        "raw_audio": ["0.wav", "1.wav"],
        "raw_vision": ["0.png", "1.png"],
        **{name: split.arrays[name] for name in split.names},
        **{f"{name}_lengths": lengths for name, lengths in split.lengths.items()},
    }
    path = folder / "clips.pkl"
    path.write_bytes(pickle.dumps({"test": fields}, protocol=4))
    return path


def test_one_sample_of_text_sound_and_image_through_the_graph(
    model: Model, clips: Path, tiny_thinker_folder: Path
) -> None:
    options = PlannerOptions(model=str(tiny_thinker_folder), device="cpu")
    planner = make_planner("qwen-omni", model, options)
    changed = {}
    for missing in ([], ["text"], ["audio"], ["vision"]):
        (trajectory, _) = reconstruct(model.with_planner(planner), clips, missing=missing)
        plan = trajectory.plan
        assert plan is not None
        assert plan.planner == f"qwen-omni {tiny_thinker_folder.name}"
        assert plan.drawn == 5
        assert any(candidate.greedy for candidate in plan.candidates)
        assert all(not candidate.violations for candidate in plan.candidates)
        assert (plan.prompt_version, plan.prompt_sha256) == (load_prompt().version, load_prompt().sha256)
        assert plan.confidence == "model log-probabilities"
        assert plan.decoding == "held to the schema by llguidance"
        assert [link.field for link in plan.constraints] == list(model.schema.field_names)
        assert set(trajectory.reconstruction) >= set(missing)
        best = next(candidate for candidate in plan.candidates if candidate.greedy)
        changed[tuple(missing)] = best.log_probability
    # each of the three was read: without it the model says something else
    assert len(set(changed.values())) == 4


@pytest.fixture
def run(
    tiny_model_folder: Path,
    clips: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """``omg run`` on the two clips; its code, its trajectories and everything that it said."""

    def go(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
        output = tmp_path / "out"
        source = ["--input", str(clips), "--model", str(tiny_model_folder), "--missing", "audio"]
        code = main(["run", *source, "--planner", "qwen-omni", "--output", str(output), *arguments])
        out, err = capsys.readouterr()
        lines = output / "trajectory.jsonl"
        made = [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if code == 0 else []
        return code, made, out + err

    return go


def test_from_the_command_line(run: Run, tiny_thinker_folder: Path) -> None:
    code, made, told = run("--planner-model", str(tiny_thinker_folder), "--planner-dtype", "float32")
    assert code == 0, told
    assert "held to the schema by llguidance" in told
    assert [trajectory["plan"]["planner"] for trajectory in made] == [
        f"qwen-omni {tiny_thinker_folder.name}"
    ] * 2
    assert str(tiny_thinker_folder.parent) not in json.dumps(made)
    code, chinese, _ = run("--planner-model", str(tiny_thinker_folder), "--planner-language", "zh")
    assert code == 0
    assert chinese[0]["plan"]["prompt_sha256"] == load_prompt("zh").sha256


def test_written_freely_it_is_an_error_or_a_marked_fall_back(
    run: Run, tiny_thinker_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    code, _, told = run("--planner-model", str(tiny_thinker_folder))
    assert code == 2
    assert "--on-invalid-plan distilled" in told
    code, made, told = run("--planner-model", str(tiny_thinker_folder), "--on-invalid-plan", "distilled")
    assert code == 0, told
    for trajectory in made:
        assert trajectory["plan"]["planner"] == "distilled (fallback)"
        assert any("gave no valid plan" in note for note in trajectory["notes"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--planner-model"),
        (("--planner-model", "no/where/at/all"), "there is no such folder"),
        (("--planner-model", "Qwen/none"), "hf download Qwen/none"),
        (("--planner-model", "THINKER", "--planner-device", "tpu"), "got 'tpu'"),
        (("--planner-model", "MODEL"), "config.json"),
    ],
)
def test_what_cannot_be_is_one_line(
    run: Run, tiny_thinker_folder: Path, tiny_model_folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    places = {"THINKER": str(tiny_thinker_folder), "MODEL": str(tiny_model_folder)}
    code, _, told = run(*(places.get(word, word) for word in arguments))
    assert code == 2
    assert words in told
    assert told.count("\n") == 1
