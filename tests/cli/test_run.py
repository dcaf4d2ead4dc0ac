"""``omg run``: the files that other programs rely on, and what it says when it can't."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from omg_graph.cli import main
from omg_graph.cli.runtime import Settings
from omg_graph.samples.reading import read_data_file
from omg_graph.trajectory.artifacts import content_hash
from omg_graph.trajectory.trajectory import Trajectory

Capture = pytest.CaptureFixture[str]
Run = Callable[..., dict[str, Any]]
FILES = {"reconstruction.npz", "trajectory.jsonl", "arrays.safetensors"}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "apply", lambda self: None)


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


def save(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


def one_clip(file: Path, **changes: object) -> dict[str, object]:
    """The first test clip by itself."""
    split = read_data_file(file).splits["test"]
    assert split.raw_text is not None
    arrays: dict[str, object] = {name: split.arrays[name][0] for name in split.names}
    return {"id": split.ids[0], "raw_text": split.raw_text[0], **arrays, **changes}


def test_the_arrays(run: Run, tiny_data_file: Path) -> None:
    made = run("--split", "test", "--missing", "audio", "--missing", "vision", "--limit", "5")
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


def test_rows_that_are_not_reconstructed_are_nan(run: Run, tiny_data_file: Path, tmp_path: Path) -> None:
    clips = [one_clip(tiny_data_file, id="whole"), one_clip(tiny_data_file, id="deaf", audio=None)]
    content = {"some": {key: [clip[key] for clip in clips] for key in clips[0]}}
    made = run("--draws", "3", input=save(tmp_path / "two.pkl", content))
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


def test_a_single_sample_has_no_leading_axis(run: Run, tiny_data_file: Path, tmp_path: Path) -> None:
    made = run("--draws", "3", input=save(tmp_path / "one.pkl", one_clip(tiny_data_file, audio=None)))
    shapes = {name: array.shape for name, array in made["arrays"].items()}
    assert shapes == {
        "ids": (1,),
        "audio": (5,),
        "audio_reconstructed": (1,),
        "audio_draws": (3, 5),
        "audio_std": (5,),
    }
    assert len(made["lines"]) == 1


def test_a_sample_alone_gives_what_it_gave_among_others(
    run: Run, tiny_data_file: Path, tmp_path: Path
) -> None:
    alone = run("--missing", "audio", input=save(tmp_path / "one.pkl", one_clip(tiny_data_file)))
    others = run("--missing", "audio", output="others")
    np.testing.assert_allclose(alone["arrays"]["audio"], others["arrays"]["audio"][0], rtol=1e-4, atol=1e-4)
    assert alone["lines"][0]["plan"]["text"] == others["lines"][0]["plan"]["text"]
    assert alone["lines"][0]["errors"]["audio"] == pytest.approx(
        others["lines"][0]["errors"]["audio"], rel=1e-3
    )


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


def test_every_reference_leads_to_its_array(run: Run, tiny_data_file: Path, tmp_path: Path) -> None:
    clips = [
        one_clip(tiny_data_file, id=f"clip-{number}", **dict.fromkeys(missing))
        for number, missing in enumerate((["audio"], [], ["vision", "audio"], ["text", "raw_text"]))
    ]
    content = {"some": {key: [clip[key] for clip in clips] for key in clips[0]}}
    made = run("--draws", "2", input=save(tmp_path / "some.pkl", content))
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


def test_whose_path_is_kept(run: Run) -> None:
    sizes = []
    for keep in ("first", "all", "none"):
        made = run("--missing", "audio", "--keep-path", keep, output=keep)
        sizes.append((made["folder"] / "arrays.safetensors").stat().st_size)
        assert all(len(line["denoising"]["audio"]) == 5 for line in made["lines"])
    assert sizes[0] == sizes[1] > sizes[2]


def test_the_first_hundred_paths_are_kept(run: Run, tiny_data_file: Path, tmp_path: Path) -> None:
    split = read_data_file(tiny_data_file).splits["test"]
    rows = np.resize(np.arange(len(split)), 104)
    content = {"id": [f"clip-{n}" for n in range(104)], "text": split.arrays["text"][rows]}
    file = save(tmp_path / "many.pkl", {"some": content})
    for keep, expected in (("first", 100), ("all", 104)):
        made = run("--keep-path", keep, "--steps", "1", "--candidates", "1", input=file, output=keep)
        kept = [any("path" in key for key in line["arrays"]) for line in made["lines"]]
        assert kept == [True] * expected + [False] * (104 - expected)


def test_the_same_command_gives_the_same_bytes(run: Run) -> None:
    command = ("--split", "test", "--missing", "audio", "--draws", "2", "--seed", "7")
    one, two = run(*command, output="one"), run(*command, output="two")
    for name in ("reconstruction.npz", "arrays.safetensors"):
        assert (one["folder"] / name).read_bytes() == (two["folder"] / name).read_bytes()
    for line in one["lines"] + two["lines"]:
        line.pop("timings")
    assert one["lines"] == two["lines"]
    other = run("--split", "test", "--missing", "audio", "--draws", "2", "--seed", "8", output="other")
    assert not np.array_equal(one["arrays"]["audio_draws"], other["arrays"]["audio_draws"])


def test_results_of_an_earlier_run_are_replaced_whole(run: Run, tmp_path: Path) -> None:
    run("--missing", "audio", "--draws", "2")
    arrays = run("--missing", "vision")["arrays"]
    assert set(arrays) == {"ids", "vision", "vision_reconstructed"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_json_is_all_of_stdout(run: Run, tmp_path: Path) -> None:
    made = run("--missing", "audio", "--limit", "2", "--json")
    document = json.loads(made["stdout"])
    assert document["samples"] == 2
    assert document["output"] == str(tmp_path / "out")
    assert document["trajectories"] == made["lines"]
    assert set(document["nmse"]) == {"audio"}


def test_what_people_are_told(run: Run, tiny_data_file: Path, tmp_path: Path) -> None:
    told = run("--missing", "audio", "--limit", "3")["stdout"]
    for word in (
        "text, vision",
        "(hidden",
        "evidence",
        "denoising",
        "prediction",
        "clips.pkl",
        "reconstruction.npz",
    ):
        assert word in told
    whole = run(input=save(tmp_path / "one.pkl", one_clip(tiny_data_file)))["stdout"]
    assert "nothing was reconstructed" in whole


def test_text_from_files_is_not_markup(run: Run, tiny_data_file: Path, tmp_path: Path) -> None:
    odd = one_clip(tiny_data_file, id="[red]x\x1b[2J", raw_text="[bold]shout[/nope]", audio=None)
    told = run(input=save(tmp_path / "odd.pkl", odd))["stdout"]
    assert "[bold]shout[/nope]" in told
    assert "[red]x" in told
    assert "\x1b[2J" not in told


def test_classes_and_no_labels(
    run: Run, tiny_views_folder: Path, tiny_views_file: Path, tiny_plain_folder: Path, tiny_plain_file: Path
) -> None:
    made = run(
        "--missing",
        "fac",
        "--missing",
        "pix",
        "--limit",
        "4",
        "--split",
        "valid",
        input=tiny_views_file,
        model=tiny_views_folder,
    )
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
    for name, shape in (("keys", (3,)), ("a.b", (5, 2)), ("photo", (2, 3, 4)), ("grey", (3, 3))):
        made = run(
            "--missing", name, "--draws", "2", input=tiny_plain_file, model=tiny_plain_folder, output=name
        )
        arrays = made["arrays"]
        expected = {"ids", name, f"{name}_reconstructed", f"{name}_draws", f"{name}_std"}
        assert set(arrays) == expected | ({"a.b_lengths"} if name == "a.b" else set())
        assert arrays[name].shape == (6, *shape)
        assert arrays[f"{name}_draws"].shape == (6, 2, *shape)
        for line in made["lines"]:
            assert list(line["evidence"]) == [name]
        if name == "a.b":
            lengths = arrays["a.b_lengths"]
            assert lengths.shape == (6,)
            assert {line["length_source"]["a.b"] for line in made["lines"]} == {"training median"}
            for row, length in enumerate(lengths):
                assert 1 <= length <= 5
                assert not arrays[name][row, length:].any()


def test_a_sequence_takes_the_length_of_an_aligned_one(
    run: Run, train_tiny: Callable[..., Path], tmp_path: Path
) -> None:
    random = np.random.default_rng(0)

    def rows(count: int) -> dict[str, Any]:
        lengths = random.integers(1, 5, count)
        hidden = random.standard_normal((count, 1, 2))
        made: dict[str, Any] = {"one_lengths": lengths, "two_lengths": lengths}
        for name in ("one", "two"):
            made[name] = hidden + 0.1 * random.standard_normal((count, 4, 2))
            made[name][np.arange(4)[None] >= lengths[:, None]] = 0.0
        return made

    data = save(tmp_path / "aligned.pkl", {"train": rows(24), "valid": rows(8)})
    model = train_tiny(data, "aligned")
    content = pickle.loads(data.read_bytes())["valid"]  # our own file
    made = run("--missing", "two", input=data, model=model)
    assert made["arrays"]["two_lengths"].tolist() == content["one_lengths"].tolist()
    assert {line["length_source"]["two"] for line in made["lines"]} == {"aligned with one"}


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


# what goes wrong


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def refused(
    tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path, capsys: Capture
) -> Callable[..., str]:
    """``omg run`` must fail: its one line."""

    def go(*arguments: str, **options: object) -> str:
        given = {"input": tiny_data_file, "model": tiny_model_folder, "output": tmp_path / "out"} | options
        pairs = [word for name, value in given.items() for word in (f"--{name}", str(value))]
        code = main(["run", *pairs, *arguments])
        out, err = capsys.readouterr()
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("omg: ")
        if not options.get("output"):
            assert not (tmp_path / "out").exists()
        return err

    return go


def test_inputs_that_are_refused(refused: Callable[..., str], tiny_data_file: Path, tmp_path: Path) -> None:
    clip = one_clip(tiny_data_file)
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
        ((), {"input": save(tmp_path / "list.pkl", [1, 2])}, "list.pkl"),
        ((), {"input": save(tmp_path / "wide.pkl", clip | {"audio": np.ones(6)})}, "5"),
        ((), {"input": save(tmp_path / "flat.pkl", clip | {"audio": "loud"})}, "audio"),
        ((), {"input": save(tmp_path / "nan.pkl", clip | {"audio": [1.0, np.nan, 1, 1, 1]})}, "audio"),
        (("--missing", "video"), {}, "'video'"),
        (("--split", "tset"), {}, "'tset'"),
        (tuple(word for name in ("text", "audio", "vision") for word in ("--missing", name)), {}, "nothing"),
        ((), {"input": save(tmp_path / "dark.pkl", {"id": "a", "text": None, "audio": None})}, "dark.pkl"),
        ((), {"input": save(tmp_path / "rows.pkl", {"test": {"text": np.ones((0, 12))}})}, "rows.pkl"),
        (
            (),
            {"input": save(tmp_path / "twins.pkl", {"test": {"id": ["a", "a"], "text": np.ones((2, 12))}})},
            "'a'",
        ),
        (("--device", "tpu"), {}, "'tpu'"),
        (("--keep-path", "some"), {}, "'some'"),
        (("--draws", "0"), {}, "--draws"),
        (("--top-k", "x"), {}, "--top-k"),
    ]
    for arguments, options, culprit in cases:
        assert culprit in refused(*arguments, **options)


def test_a_malicious_pickle_is_refused_and_not_run(refused: Callable[..., str], tmp_path: Path) -> None:
    for name, wrap in (("bare", lambda bad: bad), ("inside", lambda bad: {"test": {"text": [bad]}})):
        file = save(tmp_path / f"{name}.pkl", wrap(Malicious(tmp_path / "done")))
        assert "system" in refused(input=file)
    assert not (tmp_path / "done").exists()


def test_no_cuda_here(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "--device cpu" in refused("--device", "cuda")


def test_a_folder_of_other_things_is_left_alone(refused: Callable[..., str], tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    assert "thesis.txt" in refused(output=mine)
    assert (mine / "thesis.txt").read_text() == "all of it"
    assert "a file is there" in refused(output=mine / "thesis.txt")
    assert "can't be written to" in refused(output=mine / "thesis.txt" / "deeper")


def test_the_folder_one_is_in_is_not_replaced(
    refused: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    monkeypatch.chdir(mine)
    assert "the folder you are in" in refused(output=Path())


@pytest.fixture
def copied(tiny_model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_folder, tmp_path / "model"))


def test_models_that_are_refused(refused: Callable[..., str], copied: Path, tmp_path: Path) -> None:
    assert "no such folder" in refused(model=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "isn't a model" in refused(model=tmp_path / "empty")
    (tmp_path / "later.training").mkdir()
    assert "--resume" in refused(model=tmp_path / "later")
    assert "isn't a model" in refused(model=copied / "model.json")


def paths_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_any_damage_to_a_model_is_found(
    refused: Callable[..., str], tiny_model_folder: Path, copied: Path
) -> None:
    """A byte changed, an end cut off, a file gone: whichever file it is."""
    for name in paths_in(copied):
        whole = (copied / name).read_bytes()
        middle = len(whole) // 2
        for damaged in (
            whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            whole[:middle],
            None,
        ):
            if damaged is None:
                (copied / name).unlink()
            else:
                (copied / name).write_bytes(damaged)
            said = refused(model=copied)
            assert name in said or name == "manifest.json"
        (copied / name).write_bytes(whole)


def test_a_knowledge_base_of_another_model(
    refused: Callable[..., str], tiny_views_folder: Path, tmp_path: Path
) -> None:
    assert "model" in refused(kb=tiny_views_folder / "knowledge_base")
    assert "none" in refused(kb=tmp_path / "none")


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
