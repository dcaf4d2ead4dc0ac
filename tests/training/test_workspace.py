"""What a run has finished is there whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from omg_graph.errors import ModelError
from omg_graph.training.workspace import IDENTITY, Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.beside(tmp_path / "model")
    made.create()
    return made


def test_a_stage_comes_back_as_it_was(workspace: Workspace) -> None:
    tensors = {"a": torch.randn(3, 2, generator=torch.Generator().manual_seed(0)), "b": torch.arange(4)}
    facts = {"loss": 0.1 + 0.2, "plans": [["x", "y"]], "best": float("inf"), "none": None}
    assert not workspace.has("some")
    workspace.save("some", tensors, facts)
    assert workspace.has("some")
    came, kept = workspace.load("some")
    assert kept == facts
    assert all(torch.equal(came[name], value) for name, value in tensors.items())
    # views and tensors that share memory too
    workspace.save("some", {"rows": tensors["a"].T, "same": tensors["a"]}, {})
    assert torch.equal(workspace.load("some")[0]["rows"], tensors["a"].T)


def test_it_lies_beside_the_model_and_goes(workspace: Workspace, tmp_path: Path) -> None:
    assert workspace.folder == tmp_path / "model.training"
    workspace.save("some", {}, {})
    assert [path.name for path in workspace.folder.iterdir()] == ["some.safetensors"]
    workspace.remove()
    workspace.remove()
    assert not workspace.folder.exists()


@pytest.mark.parametrize("keep", [0, 5, 40])
def test_damage_is_told_with_what_to_do(workspace: Workspace, keep: int) -> None:
    workspace.save("some", {"a": torch.ones(8)}, {"x": 1})
    path = workspace.path("some")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"damaged.*delete it"):
        workspace.load("some")


def test_a_folder_that_no_run_began_is_told_from_one_that_was_killed_early(workspace: Workspace) -> None:
    assert not workspace.is_foreign()
    assert not Workspace(workspace.folder / "new").is_foreign()
    (workspace.folder / f".{IDENTITY}.safetensors.x7w2").write_bytes(b"")  # killed while it wrote it
    assert not workspace.is_foreign()
    (workspace.folder / "notes.txt").write_text("mine")
    assert workspace.is_foreign()
    workspace.save(IDENTITY, {}, {})
    assert not workspace.is_foreign()
    file = workspace.folder / "file"
    file.write_text("mine")
    assert Workspace(file).is_foreign()


def test_beside_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Workspace.beside(Path()).folder == tmp_path.with_name(tmp_path.name + ".training")
    with pytest.raises(ModelError, match="--output"):
        Workspace.beside(Path("/"))
