"""A training stage by stage: what rows are given as evidence, what stages share, what is done once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.data.dataset import group_of
from omg_graph.errors import ConfigError
from omg_graph.model.folder import read_manifest
from omg_graph.training.config import load_config
from omg_graph.training.graph import build_training_graph
from omg_graph.training.request import TrainingRequest
from omg_graph.training.stages import TrainingRun
from omg_graph.training.train import Training

CHANGED = {
    "name": "changed",
    "planner": {"candidates": 3, "include_greedy": False, "semantic_weight": 1.0},
    "retriever": {"top_k": 2, "temperature": 0.2},
    "executor": {"dropout": 0.0, "sample_steps": 3},
    "objective": {"plan": 0.7, "evidence": 0.0, "task": 0.3, "mean_share": 0.2},
    "optimiser": {"epochs": 1, "learning_rate": 3e-3},
    "task": {"epochs": 3},
}
"""Settings that no stage before the plans of pairs reads."""


def changed(settings: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return settings | {
        name: settings.get(name, {}) | value if isinstance(value, dict) else value
        for name, value in changes.items()
    }


def files_of(run: TrainingRun) -> dict[str, set[str]]:
    """Stages with their files."""
    files: dict[str, set[str]] = {}
    for folder in {run.cache.folder, run.cache.shared}:
        for path in folder.glob("*.safetensors"):
            name, _ = path.name.rsplit("-", 1)
            files.setdefault(name, set()).add(path.name)
    return files


def test_no_row_is_given_an_entry_of_its_own_group(tiny_run: TrainingRun) -> None:
    entries = tiny_run.entries.value
    for made in tiny_run.pairs:
        data = made.value
        for name, table in data.shortlist.items():
            assert table.shape[0] == len(data.pool)
            for row, places in zip(data.pool.rows, table.tolist(), strict=True):
                there = [place for place in places if place >= 0]
                assert there
                assert len(set(there)) == len(there)
                assert data.groups[row] not in {entries.groups[place] for place in there}
                assert all(entries.has_value[name][place] for place in there)


def test_only_training_rows_become_entries(tiny_run: TrainingRun) -> None:
    assert tiny_run.entries.value.ids == tiny_run.data.train.ids
    assert not {group_of(entry) for entry in tiny_run.entries.value.ids} & set(tiny_run.data.valid.groups)


def test_what_a_pair_hides_is_what_it_is_asked_for(tiny_run: TrainingRun) -> None:
    data = tiny_run.pairs[0].value
    pairs = data.pool.everything
    targets = data.targets(pairs, tiny_run.device)
    query, has_view = data.raw_queries(pairs)
    visible = data.visible(pairs)
    assert not (targets.known & visible).any()
    assert (has_view == visible).all()
    for column in range(visible.shape[1]):
        part = query[:, data.view_of_column == column]
        assert not part[~visible[:, column]].any()
        np.testing.assert_allclose(part[visible[:, column]].norm(dim=1), 1.0, rtol=1e-5)


def test_what_settings_leave_alone_is_made_once(
    tiny_run: TrainingRun, tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """And it gives the same as if it had been made anew."""
    shared = shutil.copytree(tiny_run.cache.shared, tmp_path / "stages")
    settings = changed(tiny_settings, CHANGED)
    runs = []
    for name, stages in (("second", str(shared)), ("alone", None)):
        request = TrainingRequest(
            data=str(tiny_data_file),
            output=str(tmp_path / name),
            overrides=settings,
            shared_stages=stages,
        )
        runs.append(Training(request).run)
        _ = runs[-1].prediction
    second, alone = runs
    early = {"codecs", "texts", "label-regression", "direct", "encoder", "student"}
    folds = {f"{part}-fold-{fold}" for part in ("encoder", "student") for fold in (0, 1)}
    twice = {name for name, files in files_of(second).items() if len(files) == 2}
    assert not twice & (early | folds)
    assert {"plans", "query"} <= twice
    assert (early | folds) <= set(files_of(second))
    for stage in ("executor", "trust", "prediction"):
        assert getattr(second, stage).digest == getattr(alone, stage).digest
        assert getattr(tiny_run, stage).digest != getattr(alone, stage).digest


def test_the_objective_moves_the_executor_alone(tiny_run: TrainingRun, tmp_path: Path) -> None:
    config = tiny_run.config.model_copy(
        update={"objective": tiny_run.config.objective.model_copy(update={"plan": 1.0})}
    )
    other = tiny_run.variant(config, tmp_path)
    for stage in ("codecs", "encoder", "student", "pair_plans", "label_regression", "query"):
        assert getattr(other, stage) == getattr(tiny_run, stage), stage
    assert other.trainer.digest != tiny_run.trainer.digest


def test_teacher_s_plans_change_what_is_made_of_plans_alone(tiny_run: TrainingRun, tmp_path: Path) -> None:
    other = tiny_run.variant(tiny_run.config, tmp_path, teacher_plans=True)
    assert other.student.digest == tiny_run.student.digest
    assert other.pair_plans.digest != tiny_run.pair_plans.digest
    rows = tiny_run.train_pool.rows.tolist()
    own = tiny_run.pair_plans.value.training_plans
    wanted = [tiny_run.data.plans[row] or plan for row, plan in zip(rows, own, strict=True)]
    assert other.pair_plans.value.training_plans == wanted


def test_seeds_share_what_draws_nothing(tiny_data_file: Path, tmp_path: Path) -> None:
    for kind, shared in (("pca", True), ("vae", False)):
        digests = set()
        for seed in (0, 1):
            request = TrainingRequest(
                data=str(tiny_data_file),
                output=str(tmp_path / f"{kind}-{seed}"),
                overrides={"autoencoder": {"kind": kind, "epochs": 1, "max_width": 4}},
                seed=seed,
            )
            digests.add(Training(request).run.codecs.digest)
        assert (len(digests) == 1) == shared


def test_damaged_stages_are_made_anew(
    tiny_run: TrainingRun,
    tiny_data_file: Path,
    tiny_model_folder: Path,
    tiny_settings: dict[str, Any],
    tmp_path: Path,
) -> None:
    output, stages = tmp_path / "model", tmp_path / "stages"
    shutil.copytree(tiny_run.cache.folder, tmp_path / tiny_run.cache.folder.name)
    shutil.copytree(tiny_run.cache.shared, stages)
    damaged = []
    for stage in ("codecs", "encoder-fold-1", "plans", "executor"):
        (path,) = tmp_path.glob(f"*/{stage}-????????????????????????.safetensors")
        content = bytearray(path.read_bytes())
        content[-3] ^= 0x10
        path.write_bytes(bytes(content))
        damaged.append(path.name)
    request = {"data": str(tiny_data_file), "output": str(output), "overrides": tiny_settings}
    result = build_training_graph().invoke(request | {"shared_stages": str(stages), "resume": True})
    assert read_manifest(output).files == read_manifest(tiny_model_folder).files
    notes = [note for note in result["notes"] if "damaged" in note]
    assert [note.split()[0] for note in notes] == damaged


def test_data_are_read_and_encoded_once(counted_run: Any) -> None:
    data = counted_run.run.data
    assert len(counted_run.read) == 1
    assert counted_run.encoded == {data.train.ids: 1, data.valid.ids: 1}


def test_rows_that_the_kernel_leaves_out_are_noted(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    notes = {}
    for kept in (48, 40):
        output = str(tmp_path / str(kept))
        settings = tiny_settings | {"kernel_rows": kept}
        request = TrainingRequest(data=str(tiny_data_file), output=output, overrides=settings)
        notes[kept] = [note for note in Training(request).run.notes if "kernel" in note]
    assert notes == {48: [], 40: ["kernel regressions keep 40 of 48 training rows (kernel_rows)"]}


def test_a_planner_that_nothing_stops_early_is_noted(
    tiny_model_folder: Path, tiny_plain_folder: Path
) -> None:
    note = "no validation row has a plan"
    assert not any(note in remark for remark in read_manifest(tiny_model_folder).notes)
    assert any(note in remark for remark in read_manifest(tiny_plain_folder).notes)


def test_every_pattern_is_measured(tiny_model_folder: Path, tiny_views_folder: Path) -> None:
    clips, views = read_manifest(tiny_model_folder), read_manifest(tiny_views_folder)
    assert {tuple(row["observed"]) for row in clips.metrics["rows"]} == {
        ("text",),
        ("audio",),
        ("vision",),
        ("text", "audio"),
        ("text", "vision"),
        ("audio", "vision"),
        ("text", "audio", "vision"),
    }
    for row in clips.metrics["rows"]:
        assert set(row["nmse"]) == set(row["missing"])
        assert all(value > 0 for value in row["nmse"].values())
        assert row["n"] == 16
    assert len(views.metrics["rows"]) == 13
    assert {"accuracy"} <= set(views.metrics["rows"][-1])
    # a view that isn't there by nature is never scored
    assert all(row["n"] <= 16 for row in views.metrics["rows"])


def test_parts_of_settings_hold_what_a_stage_reads() -> None:
    """A setting that two parts had would be read by a stage that isn't given it."""
    from omg_graph.training.config import PlanChoiceSettings, StudentSettings

    config = load_config(None)
    assert not set(StudentSettings.model_fields) & set(PlanChoiceSettings.model_fields)
    assert config.planner.only(StudentSettings) == StudentSettings()


@pytest.mark.parametrize(
    "named",
    [{"executor": {"priors": ["nope"]}}, {"task": {"predictor": "nope"}}, {"retriever": {"kind": "nope"}}],
)
def test_a_component_that_no_package_registers_is_refused_before_training(
    tiny_data_file: Path, tmp_path: Path, named: dict[str, Any]
) -> None:
    request = TrainingRequest(data=str(tiny_data_file), output=str(tmp_path / "model"), overrides=named)
    with pytest.raises(ConfigError, match=r"expected one of .*, got 'nope': install the package"):
        _ = Training(request).run
    assert not list(tmp_path.iterdir())
