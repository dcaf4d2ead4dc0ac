"""Stages that runs share: the right ones, the same bytes, and never another run's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from omg_graph.training.config import TrainingConfig, load_config
from omg_graph.training.graph import STAGES
from omg_graph.training.session import TrainingRequest, TrainingSession
from omg_graph.training.sharing import AFTER, UNREAD, SharedStages
from omg_graph.training.workspace import Workspace

CHANGED = {
    "name": "changed",
    "planner": {"candidates": 3, "include_greedy": False, "semantic_weight": 1.0, "schema_penalty": 0.5},
    "retriever": {"top_k": 2, "temperature": 0.2, "learning_rate": 3e-3},
    "executor": {"dropout": 0.0, "sample_steps": 3},
    "objective": {"plan": 0.7, "evidence": 0.0, "task": 0.3, "mean_share": 0.2},
    "optimiser": {"epochs": 1, "learning_rate": 3e-3},
    "task": {"epochs": 3},
}
"""Settings that no stage before the pairs reads."""


def changed(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return settings | {
        name: settings.get(name, {}) | value if isinstance(value, dict) else value
        for name, value in changes.items()
    }


def run(
    data: Path, output: Path, settings: dict[str, Any], own: frozenset[str] = frozenset(), **more: Any
) -> Path:
    """Train, but for the last step, which would clear the workspace away."""
    request = TrainingRequest(data=str(data), output=str(output), overrides=settings, **more)
    session = TrainingSession(request, lambda *_: None, own_stages=own)
    for stage in STAGES[:-1]:
        session.stage(stage, getattr(session, stage))
    return session.workspace.folder


def test_what_another_run_made_is_taken_and_changes_nothing(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    stages = str(tmp_path / "stages")
    first = run(tiny_data_file, tmp_path / "first", tiny_settings, shared_stages=stages)
    settings = changed(tiny_settings, CHANGED)
    second = run(tiny_data_file, tmp_path / "second", settings, shared_stages=stages)
    alone = run(tiny_data_file, tmp_path / "alone", settings)
    early = ["codecs", "psi", "psi-fold-0", "student", "student-fold-1", "gaussian", "label-reader", "direct"]
    for stage in [*early, "pairs", "query", "executor"]:
        files = [folder / f"{stage}.safetensors" for folder in (first, second, alone)]
        assert files[1].read_bytes() == files[2].read_bytes(), stage
        assert files[0].samefile(files[1]) == (stage in early), stage
    assert not list(Path(stages).glob("executor*"))


def test_the_objective_moves_the_executor_alone(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    stages = str(tmp_path / "stages")
    settings = changed(tiny_settings, {"objective": {"plan": 1.0}})
    folders = [
        run(tiny_data_file, tmp_path / f"{number}", one, shared_stages=stages)
        for number, one in enumerate((tiny_settings, settings))
    ]
    assert not (folders[1] / "student-fold-1.safetensors").exists()  # the pairs were there: nobody needs it
    for stage in ("codecs", "psi", "student", "pairs", "gaussian", "query"):
        assert (folders[0] / f"{stage}.safetensors").samefile(folders[1] / f"{stage}.safetensors"), stage
    executors = [folder / "executor.safetensors" for folder in folders]
    assert executors[0].read_bytes() != executors[1].read_bytes()


def test_a_stage_of_a_run_s_own_is_neither_taken_nor_given(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    stages = tmp_path / "stages"
    own = frozenset({"pairs"})
    run(tiny_data_file, tmp_path / "own", tiny_settings, own, shared_stages=str(stages))
    kept = {path.name.rsplit("-", 1)[0] for path in stages.iterdir()}
    assert kept >= {"codecs", "psi", "psi-fold-0", "student", "student-fold-1", "gaussian"}
    assert not kept & {"pairs", "query"}


def stages_of(
    settings: dict[str, Any], seed: int = 0, rows: str = "a", own: tuple[str, ...] = ()
) -> SharedStages:
    return SharedStages(Path("stages"), settings, {"data": rows}, seed, own)


def test_every_setting_counts_unless_it_is_named() -> None:
    """So with those that don't exist yet."""
    settings = TrainingConfig().model_dump(mode="json")
    before = stages_of(settings)
    for stage, unread in UNREAD.items():
        for block, value in settings.items():
            for name in value if isinstance(value, dict) else [None]:
                other = settings | {block: "x" if name is None else {**value, name: "x"}}
                counts = block not in unread and f"{block}.{name}" not in unread
                if (block, name) == ("autoencoder", "kind"):
                    continue  # what it is decides whether the seed counts
                assert (before.path(stage) != stages_of(other).path(stage)) == counts, (stage, block, name)
        assert before.path(stage) != stages_of(settings | {"novelty": 1}).path(stage)
        assert before.path(stage) != stages_of(settings, rows="b").path(stage)


def test_seeds_share_what_draws_nothing() -> None:
    for kind, shared in (("pca", True), ("vae", False)):
        settings = load_config(None, {"autoencoder": {"kind": kind}}).model_dump(mode="json")
        one, other = stages_of(settings), stages_of(settings, seed=1)
        assert (one.path("codecs") == other.path("codecs")) == shared
        assert one.path("psi") != other.path("psi")


def test_what_is_made_from_a_stage_of_one_s_own_is_one_s_own() -> None:
    settings = TrainingConfig().model_dump(mode="json")
    assert {stage for stage in UNREAD if stages_of(settings, own=("codecs",)).path(stage)} == set()
    assert stages_of(settings, own=("pairs",)).path("student") is not None
    assert stages_of(settings, own=("pairs",)).path("query") is None
    assert stages_of(settings).path("executor") is None
    assert AFTER.keys() == UNREAD.keys()


def test_a_run_under_other_settings_shares_what_they_leave_alone() -> None:
    settings = TrainingConfig().model_dump(mode="json")
    shared = stages_of(settings)
    for stage in UNREAD:
        assert shared.under(settings).path(stage) == shared.path(stage)
    other = shared.under(changed(settings, {"retriever": {"source": "none"}}), own=("psi",))
    assert other.path("gaussian") == shared.path("gaussian")
    assert other.path("label-reader") == shared.path("label-reader")
    assert shared.under(changed(settings, {"retriever": {"source": "none"}})).path("query") != shared.path(
        "query"
    )
    assert other.path("pairs") is None


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("omg_graph.training.sharing.os.link", refuse)
    shared = SharedStages(tmp_path / "stages", TrainingConfig().model_dump(mode="json"), {}, 0)
    one, other = (Workspace(tmp_path / name, shared) for name in ("one", "other"))
    for workspace in (one, other):
        workspace.create()
        assert not workspace.has("executor")
    assert not other.has("codecs")
    one.save("codecs", {"a": torch.ones(2)}, {"x": 1})
    assert other.has("codecs")
    assert torch.equal(other.load("codecs")[0]["a"], torch.ones(2))
    assert not other.path("codecs").samefile(one.path("codecs"))
    assert sorted(path.name for path in other.folder.iterdir()) == ["codecs.safetensors"]
