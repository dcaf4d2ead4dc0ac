"""What ``omg run`` refuses: one line on stderr, exit code 2, nothing written."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.cli import main
from omg_graph.cli.runtime import Settings
from omg_graph.data.reader import read_data_file

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "apply", lambda self: None)


def save(path: Path, content: object) -> Path:
    path.write_bytes(pickle.dumps(content))
    return path


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


def one_clip(file: Path) -> dict[str, object]:
    """The first test clip by itself."""
    split = read_data_file(file).splits["test"]
    return {"id": split.ids[0], **{name: split.arrays[name][0] for name in split.names}}


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
