"""What a stage made is there whole, or it is made anew."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omg_graph.errors import ModelError
from omg_graph.training.cache import REQUEST, Checkpoint, Content, Made, StageCache, digest_of
from omg_graph.training.config import AutoencoderSettings


@dataclass
class Counted:
    """A stage that counts its calls."""

    calls: int = 0

    def __call__(self, *arguments: Any) -> Content:
        self.calls += 1
        rows = torch.arange(6.0).reshape(2, 3)
        return {"rows": rows.T, "again": rows}, {"of": str(arguments), "best": float("inf"), "none": None}


def content(tensors: dict[str, Tensor], facts: dict[str, Any]) -> Content:
    return tensors, facts


def stage_file(folder: Path) -> Path:
    (path,) = folder.glob("some-*.safetensors")
    return path


def test_a_stage_runs_once_for_its_arguments(tmp_path: Path) -> None:
    stage = Counted()
    first = StageCache(tmp_path).stage("some", stage, content, 1, "a")
    again = StageCache(tmp_path).stage("some", stage, content, 1, "a")
    assert stage.calls == 1
    assert again.digest == first.digest
    assert again.value[1] == {"of": "(1, 'a')", "best": float("inf"), "none": None}
    assert torch.equal(again.value[0]["rows"], torch.arange(6.0).reshape(2, 3).T)
    StageCache(tmp_path).stage("some", stage, content, 2, "a")
    StageCache(tmp_path).stage("some", stage, content, 1, "a", version=2)
    assert stage.calls == 3


def test_keys_chain_by_what_was_made(tmp_path: Path) -> None:
    cache, stage = StageCache(tmp_path), Counted()
    for digest in ("x", "x", "y"):
        cache.stage("some", stage, content, Made(1, digest))
    assert stage.calls == 2


def test_values_count_by_their_content() -> None:
    array = np.arange(4, dtype=np.int64)
    assert digest_of([array, torch.ones(2)]) == digest_of((array.copy(), torch.ones(2)))
    assert digest_of(array) != digest_of(array.astype(np.int32))
    assert digest_of(AutoencoderSettings()) != digest_of(AutoencoderSettings(max_width=3))
    with pytest.raises(TypeError, match="Linear"):
        digest_of(torch.nn.Linear(2, 2))


def test_any_damage_is_noticed_and_the_stage_made_anew(tmp_path: Path) -> None:
    stage = Counted()
    made = StageCache(tmp_path).stage("some", stage, content)
    path = stage_file(tmp_path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    damaged = [whole[:0], whole[:5], whole[:-1]]
    for place in [len(whole) - 1, *random.integers(8, len(whole), 40).tolist()]:
        flipped = bytearray(whole)
        flipped[place] ^= 1
        damaged.append(bytes(flipped))
    for calls, one in enumerate(damaged, start=2):
        path.write_bytes(one)
        cache = StageCache(tmp_path)
        assert cache.stage("some", stage, content).digest == made.digest
        if stage.calls != calls:
            # white space in the header says nothing
            assert cache.notes == []
            stage.calls += 1
        else:
            assert len(cache.notes) == 1
            assert path.name in cache.notes[0]
    assert path.read_bytes() == whole


def test_a_damaged_checkpoint_is_no_worse_than_none(tmp_path: Path) -> None:
    cache = StageCache(tmp_path)
    begun = []

    def make(checkpoint: Checkpoint) -> Content:
        kept = checkpoint.load()
        begun.append(0 if kept is None else kept[1]["epoch"])
        if len(begun) < 4:
            checkpoint.save({"a": torch.ones(2)}, {"epoch": len(begun)})
            raise KeyboardInterrupt
        return {}, {}

    for number in range(3):
        if number == 2:
            (path,) = tmp_path.glob("*under-way*")
            path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(KeyboardInterrupt):
            cache.stage("some", make, content, resumable=True)
    assert begun == [0, 1, 0]
    assert len(cache.notes) == 1


def test_runs_share_a_folder_but_for_what_is_private(tmp_path: Path) -> None:
    stage, shared = Counted(), tmp_path / "shared"
    for name in ("one", "other"):
        cache = StageCache(tmp_path / name, shared)
        cache.stage("some", stage, content)
        cache.stage("own", stage, content, private=True)
    assert stage.calls == 3
    assert stage_file(shared).is_file()
    assert [path.name.split("-")[0] for path in (tmp_path / "other").iterdir()] == ["own"]


def test_a_folder_that_no_training_began_is_told_from_one_that_was_killed_early(tmp_path: Path) -> None:
    cache = StageCache(tmp_path / "model.training")
    assert not cache.is_foreign()
    cache.folder.mkdir()
    (cache.folder / f".{REQUEST}.x7w2").write_bytes(b"")  # killed while it wrote it
    assert not cache.is_foreign()
    (cache.folder / "notes.txt").write_text("mine")
    assert cache.is_foreign()
    cache.begin({"seed": 3})
    assert not cache.is_foreign()
    assert cache.request() == {"seed": 3}
    (cache.folder / REQUEST).write_text(json.dumps({"seed": 3})[:-1])
    with pytest.raises(ModelError, match=r"damaged.*--resume"):
        cache.request()
    cache.remove()
    cache.remove()
    assert not cache.folder.exists()
    (tmp_path / "file").write_text("mine")
    assert StageCache(tmp_path / "file").is_foreign()


def test_beside_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert StageCache.beside(Path()).folder == tmp_path.with_name(tmp_path.name + ".training")
    with pytest.raises(ModelError, match="--output"):
        StageCache.beside(Path("/"))
