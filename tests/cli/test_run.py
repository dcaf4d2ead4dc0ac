"""``omg run``: the files that other programs rely on, and what it says when it can't."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from omg_graph import api
from omg_graph.cli import main
from omg_graph.data.reader import read_data_file
from omg_graph.errors import OmgError
from omg_graph.model.folder import load_model
from omg_graph.record.artifacts import content_hash
from omg_graph.record.trajectory import Trajectory

Capture = pytest.CaptureFixture[str]
Run = Callable[..., dict[str, Any]]
Save = Callable[[str, object], Path]
Clip = Callable[..., dict[str, object]]
Refused = Callable[..., str]
FILES = {"reconstruction.npz", "trajectory.jsonl", "arrays.safetensors", "run.json", "report.html"}


@pytest.fixture
def run(tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path, capsys: Capture) -> Run:
    """``omg run`` on the clips, or on ``input`` with ``model``; its arrays, trajectories and output."""

    def go(
        *arguments: str,
        input: Path | None = None,
        model: Path | None = None,
        output: str = "out",
    ) -> dict[str, Any]:
        folder = tmp_path / output
        source = ["--input", str(input or tiny_data_file), "--model", str(model or tiny_model_folder)]
        code = main(["run", *source, "--output", str(folder), *arguments])
        out, err = capsys.readouterr()
        assert code == 0, err
        assert {path.name for path in folder.iterdir()} == FILES
        lines = (folder / "trajectory.jsonl").read_text(encoding="utf-8").splitlines()
        return {
            "folder": folder,
            "arrays": dict(np.load(folder / "reconstruction.npz", allow_pickle=False)),
            "lines": [json.loads(line) for line in lines],
            "stdout": out,
            "stderr": err,
        }

    return go


def test_the_arrays(run: Run, tiny_data_file: Path) -> None:
    made = run("--split", "test", "--missing", "audio", "--missing", "vision", "--limit", "5", "--json")
    document = json.loads(made["stdout"])
    assert (document["samples"], document["output"]) == (5, str(made["folder"]))
    assert document["trajectories"] == made["lines"]
    assert set(document["nmse"]) == {"audio", "vision"}
    arrays, split = made["arrays"], read_data_file(tiny_data_file).splits["test"]
    assert set(arrays) == {"ids", "audio", "audio_reconstructed", "vision", "vision_reconstructed"}
    assert arrays["ids"].tolist() == list(split.ids[:5])
    for name, width in (("audio", 5), ("vision", 4)):
        assert arrays[name].shape == (5, width)
        assert np.isfinite(arrays[name]).all()
        assert arrays[f"{name}_reconstructed"].tolist() == [True] * 5
        assert arrays[f"{name}_reconstructed"].dtype == np.bool_
        # in the input's units: nearer to the data's mean than standard units would be
        spread = split.arrays[name].std(axis=0)
        assert (np.abs(arrays[name] - split.arrays[name].mean(axis=0)) < 4 * spread + 1e-6).mean() > 0.8


def test_rows_that_are_not_reconstructed_are_nan(run: Run, save: Save, one_clip: Clip) -> None:
    clips = [one_clip(id="whole"), one_clip(id="deaf", audio=None)]
    content = {"some": {key: [clip[key] for clip in clips] for key in clips[0]}}
    made = run("--draws", "3", input=save("two.pkl", content))
    arrays = made["arrays"]
    assert set(arrays) == {"ids", "audio", "audio_reconstructed", "audio_draws", "audio_std"}
    assert arrays["audio_reconstructed"].tolist() == [False, True]
    assert arrays["audio_draws"].shape == (2, 3, 5)
    assert arrays["audio_std"].shape == (2, 5)
    for name in ("audio", "audio_draws", "audio_std"):
        assert np.isnan(arrays[name][0]).all()
        assert np.isfinite(arrays[name][1]).all()
    assert (arrays["audio_std"][1] > 0).any()
    whole, deaf = made["lines"]
    assert (whole["missing"], deaf["missing"]) == ([], ["audio"])
    assert whole["evidence"] == whole["denoising"] == whole["reconstruction"] == {}
    assert any("nothing was reconstructed" in note for note in whole["notes"])
    assert whole["prediction"]["value"] is not None


def test_a_single_sample_has_no_leading_axis(run: Run, save: Save, one_clip: Clip) -> None:
    made = run("--draws", "3", input=save("one.pkl", one_clip(audio=None)))
    shapes = {name: array.shape for name, array in made["arrays"].items()}
    assert shapes == {
        "ids": (1,),
        "audio": (5,),
        "audio_reconstructed": (1,),
        "audio_draws": (3, 5),
        "audio_std": (5,),
    }
    assert len(made["lines"]) == 1


def test_the_trajectories(run: Run, tiny_data_file: Path, tiny_model_folder: Path) -> None:
    made = run("--split", "valid", "--missing", "audio", "--top-k", "3", "--candidates", "4", "--steps", "6")
    split = read_data_file(tiny_data_file).splits["valid"]
    manifest = json.loads((tiny_model_folder / "manifest.json").read_text(encoding="utf-8"))
    assert [line["id"] for line in made["lines"]] == list(split.ids)
    for line in made["lines"]:
        Trajectory.model_validate(line)
        assert (line["observed"], line["missing"]) == (["text", "vision"], ["audio"])
        assert len(line["plan"]["candidates"]) == 4
        for candidate in line["plan"]["candidates"]:
            cost = line["plan"]["semantic_weight"] * candidate["semantic_cost"]
            assert candidate["score"] == pytest.approx(candidate["log_probability"] - cost, abs=1e-6)
        chosen = line["plan"]["candidates"][line["plan"]["chosen"]]
        assert chosen["score"] == max(candidate["score"] for candidate in line["plan"]["candidates"])
        assert list(line["evidence"]) == list(line["denoising"]) == ["audio"]
        assert len(line["evidence"]["audio"]) == 3
        for entry in line["evidence"]["audio"]:
            assert set(entry) == {"id", "weight", "similarity", "text", "source"}
            assert entry["source"] == "clips.pkl · train"
        assert len(line["denoising"]["audio"]) == 6
        prediction = line["prediction"]
        assert set(prediction) == {"value", "label", "probabilities"}
        assert sum(prediction["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert prediction["label"] in prediction["probabilities"]
        assert -3 <= prediction["value"] <= 3
        terms = line["utility"]
        weights = terms["weights"]
        assert terms["total"] == pytest.approx(
            -terms["reconstruction"]
            - sum(weights[term] * terms[term] for term in ("semantic", "evidence", "path"))
        )
        assert set(line["timings"]) == {"planner", "rerank", "retriever", "executor"}
        assert line["seed"] == 0
        assert line["model"] == manifest["fingerprint"]


def resolve(stacks: dict[str, np.ndarray], uri: str) -> np.ndarray:
    file, _, place = uri.partition("#")
    assert file == "arrays.safetensors"
    key, _, row = place.removesuffix("]").rpartition("[")
    return stacks[key][int(row)]


def refs_of(line: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {**line["arrays"], **{f"reconstruction/{k}": v for k, v in line["reconstruction"].items()}}


def test_every_reference_leads_to_its_array(run: Run, save: Save, one_clip: Clip) -> None:
    clips = [
        one_clip(id=f"clip-{number}", **dict.fromkeys(missing))
        for number, missing in enumerate((["audio"], [], ["vision", "audio"], ["text", "raw_text"]))
    ]
    content = {"some": {key: [clip[key] for clip in clips] for key in clips[0]}}
    made = run("--draws", "2", input=save("some.pkl", content))
    stacks = load_file(made["folder"] / "arrays.safetensors")
    kinds = set()
    for number, line in enumerate(made["lines"]):
        for key, ref in refs_of(line).items():
            array = resolve(stacks, ref["uri"])
            assert content_hash(array) == ref["sha256"]
            assert list(array.shape) == ref["shape"]
            assert str(array.dtype) == ref["dtype"]
            kinds.add(key.partition("/")[0])
        for name, ref in line["reconstruction"].items():
            np.testing.assert_array_equal(resolve(stacks, ref["uri"]), made["arrays"][name][number])
    assert {"reconstruction", "draws"} < kinds


def test_whose_path_is_kept(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert api.FULL_PATHS == 100
    monkeypatch.setattr(api, "FULL_PATHS", 3)
    for keep, expected in (("first", 3), ("all", 5), ("none", 0)):
        given = ("--missing", "audio", "--limit", "5", "--steps", "1", "--candidates", "1")
        made = run(*given, "--keep-path", keep, output=keep)
        kept = [any("path" in key for key in line["arrays"]) for line in made["lines"]]
        assert kept == [True] * expected + [False] * (5 - expected)
        assert all(len(line["denoising"]["audio"]) == 1 for line in made["lines"])


def test_the_same_command_gives_the_same_bytes(run: Run) -> None:
    command = ("--split", "test", "--missing", "audio", "--draws", "2", "--limit", "3", "--seed")
    one, two = run(*command, "7", output="one"), run(*command, "7", output="two")
    for name in ("reconstruction.npz", "arrays.safetensors"):
        assert (one["folder"] / name).read_bytes() == (two["folder"] / name).read_bytes()
    for line in one["lines"] + two["lines"]:
        line.pop("timings")
    assert one["lines"] == two["lines"]
    other = run(*command, "8", output="other")
    assert not np.array_equal(one["arrays"]["audio_draws"], other["arrays"]["audio_draws"])


def test_results_of_an_earlier_run_are_replaced_whole(run: Run, tmp_path: Path) -> None:
    run("--missing", "audio", "--draws", "2", "--limit", "1")
    arrays = run("--missing", "vision", "--limit", "2")["arrays"]
    assert set(arrays) == {"ids", "vision", "vision_reconstructed"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_text_from_files_is_not_markup(run: Run, save: Save, one_clip: Clip) -> None:
    odd = one_clip(id="[red]x\x1b[2J", raw_text="[bold]shout[/nope]", audio=None)
    told = run(input=save("odd.pkl", odd))["stdout"]
    assert "[bold]shout[/nope]" in told
    assert "[red]x" in told
    assert "\x1b[2J" not in told


def test_classes_and_no_labels(
    run: Run, tiny_views_folder: Path, tiny_views_file: Path, tiny_plain_folder: Path, tiny_plain_file: Path
) -> None:
    hidden = ("--missing", "fac", "--missing", "pix", "--limit", "4", "--split", "valid")
    made = run(*hidden, input=tiny_views_file, model=tiny_views_folder)
    for line in made["lines"]:
        prediction = line["prediction"]
        assert prediction["value"] is None
        assert set(prediction["probabilities"]) == {"ant", "bee", "cat"}
        assert prediction["label"] == max(prediction["probabilities"], key=prediction["probabilities"].get)
    assert {"fac", "pix"} <= set(made["arrays"])
    made = run("--missing", "keys", input=tiny_plain_file, model=tiny_plain_folder, output="plain")
    assert all(line["prediction"] is None for line in made["lines"])
    assert "without labels" in made["stdout"]


def test_odd_names_sequences_and_images(run: Run, tiny_plain_folder: Path, tiny_plain_file: Path) -> None:
    shapes = {"a.b": (5, 2), "photo": (2, 3, 4), "grey": (3, 3)}
    hidden = [word for name in shapes for word in ("--missing", name)]
    made = run(*hidden, "--draws", "2", input=tiny_plain_file, model=tiny_plain_folder)
    arrays = made["arrays"]
    ends = ("", "_reconstructed", "_draws", "_std")
    assert set(arrays) == {"ids", "a.b_lengths"} | {f"{name}{end}" for name in shapes for end in ends}
    for name, shape in shapes.items():
        assert arrays[name].shape == (6, *shape)
        assert arrays[f"{name}_draws"].shape == (6, 2, *shape)
    for line in made["lines"]:
        assert set(line["evidence"]) == set(shapes)
        assert line["length_source"]["a.b"] == "training median"
    for row, length in enumerate(arrays["a.b_lengths"]):
        assert 1 <= length <= 5
        assert not arrays["a.b"][row, length:].any()


def test_another_knowledge_base(
    run: Run, tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path, capsys: Capture
) -> None:
    kb = str(tmp_path / "kb")
    build = ["kb", "build", "--data", str(tiny_data_file), "--split", "valid", "--output", kb]
    assert main([*build, "--model", str(tiny_model_folder)]) == 0
    capsys.readouterr()
    made = run("--missing", "audio", "--kb", kb, "--limit", "2")
    sources = {entry["source"] for line in made["lines"] for entry in line["evidence"]["audio"]}
    assert sources == {"clips.pkl · valid"}


def test_npz_in_and_the_npz_out_read_alike(run: Run, tiny_data_file: Path, tmp_path: Path) -> None:
    split = read_data_file(tiny_data_file).splits["test"]
    buffer = io.BytesIO()
    assert split.raw_text is not None
    np.savez(
        buffer,
        id=np.array(split.ids),
        raw_text=np.array(split.raw_text),
        text=split.arrays["text"],
        vision=split.arrays["vision"],
    )
    (tmp_path / "clips.npz").write_bytes(buffer.getvalue())
    from_npz = run(input=tmp_path / "clips.npz")["arrays"]
    from_pickle = run("--missing", "audio", output="other")["arrays"]
    assert set(from_npz) == set(from_pickle)
    np.testing.assert_array_equal(from_npz["audio"], from_pickle["audio"])


# what it refuses


@pytest.fixture
def refuses(refused: Refused, tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path) -> Refused:
    """``omg run`` must fail, and write nothing."""

    def go(*arguments: str, **options: object) -> str:
        given = {"input": tiny_data_file, "model": tiny_model_folder, "output": tmp_path / "out"} | options
        pairs = [word for name, value in given.items() for word in (f"--{name}", value)]
        said = refused("run", *pairs, *arguments)
        assert not (tmp_path / "out").exists()
        return said

    return go


def test_inputs_that_are_refused(refuses: Refused, tmp_path: Path, save: Save, one_clip: Clip) -> None:
    clip = one_clip()
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "noise.pkl").write_bytes(b"\x80\x04not a pickle")
    (tmp_path / "empty.pkl").write_bytes(b"")
    np.savez(tmp_path / "objects.npz", text=np.array([{"a": 1}], dtype=object))
    cases: list[tuple[tuple[str, ...], dict[str, object], str]] = [
        ((), {"input": tmp_path / "none.pkl"}, "none.pkl"),
        ((), {"input": tmp_path}, str(tmp_path)),
        ((), {"input": tmp_path / "notes.txt"}, "notes.txt"),
        ((), {"input": tmp_path / "noise.pkl"}, "noise.pkl"),
        ((), {"input": tmp_path / "empty.pkl"}, "empty.pkl"),
        ((), {"input": tmp_path / "objects.npz"}, "objects.npz"),
        ((), {"input": save("list.pkl", [1, 2])}, "list.pkl"),
        ((), {"input": save("wide.pkl", clip | {"audio": np.ones(6)})}, "5"),
        ((), {"input": save("flat.pkl", clip | {"audio": "loud"})}, "audio"),
        ((), {"input": save("nan.pkl", clip | {"audio": [1.0, np.nan, 1, 1, 1]})}, "audio"),
        (("--missing", "video"), {}, "'video'"),
        (("--split", "tset"), {}, "'tset'"),
        (tuple(word for name in ("text", "audio", "vision") for word in ("--missing", name)), {}, "nothing"),
        ((), {"input": save("dark.pkl", {"id": "a", "text": None, "audio": None})}, "dark.pkl"),
        ((), {"input": save("rows.pkl", {"test": {"text": np.ones((0, 12))}})}, "rows.pkl"),
        (
            (),
            {"input": save("twins.pkl", {"test": {"id": ["a", "a"], "text": np.ones((2, 12))}})},
            "'a'",
        ),
        (("--device", "tpu"), {}, "'tpu'"),
        (("--keep-path", "some"), {}, "'some'"),
        (("--draws", "-1"), {}, "--draws"),
        (("--top-k", "x"), {}, "--top-k"),
    ]
    for arguments, options, culprit in cases:
        assert culprit in refuses(*arguments, **options)


def test_a_malicious_pickle_is_refused_and_not_run(
    refuses: Refused, tmp_path: Path, malicious: object, save: Save
) -> None:
    for name, wrap in (("bare", lambda bad: bad), ("inside", lambda bad: {"test": {"text": [bad]}})):
        file = save(f"{name}.pkl", wrap(malicious))
        assert "system" in refuses(input=file)
    assert not (tmp_path / "done").exists()


def test_no_cuda_here(refuses: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "--device cpu" in refuses("--device", "cuda")


def test_a_folder_of_other_things_is_left_alone(
    refuses: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    assert "thesis.txt" in refuses(output=mine)
    assert (mine / "thesis.txt").read_text() == "all of it"
    assert "a file is there" in refuses(output=mine / "thesis.txt")
    assert "can't be written to" in refuses(output=mine / "thesis.txt" / "deeper")
    monkeypatch.chdir(mine)
    assert "the folder you are in" in refuses(output=Path())


@pytest.fixture
def copied(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def test_models_that_are_refused(refuses: Refused, copied: Path, tmp_path: Path) -> None:
    assert "no such folder" in refuses(model=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "isn't a model" in refuses(model=tmp_path / "empty")
    (tmp_path / "later.training").mkdir()
    assert "--resume" in refuses(model=tmp_path / "later")
    assert "isn't a model" in refuses(model=copied / "model.json")


def test_any_damage_to_a_model_is_found(refuses: Refused, copied: Path) -> None:
    """A byte changed, an end cut off, a file gone: whichever file it is."""
    for path in sorted(path for path in copied.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        middle = len(whole) // 2
        for damaged in (
            whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            whole[:middle],
            None,
        ):
            path.unlink(missing_ok=True)
            if damaged is not None:
                path.write_bytes(damaged)
            with pytest.raises(OmgError) as told:
                load_model(copied)
            name = path.relative_to(copied).as_posix()
            assert name in str(told.value) or name == "manifest.json"
        path.write_bytes(whole)
    (copied / "codecs.safetensors").unlink()
    assert "codecs.safetensors" in refuses(model=copied)


def test_a_knowledge_base_of_another_model(refuses: Refused, tiny_views_folder: Path, tmp_path: Path) -> None:
    assert "model" in refuses(kb=tiny_views_folder / "knowledge_base")
    assert "none" in refuses(kb=tmp_path / "none")
