"""A run stage by stage: what training rows are given as evidence, and what is measured."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.data.dataset import group_of
from omg_graph.model.folder import read_manifest
from omg_graph.training.session import TrainingRequest, TrainingSession


@pytest.fixture(scope="module")
def session(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> TrainingSession:
    output = tmp_path_factory.mktemp("session") / "model"
    request = TrainingRequest(data=str(tiny_data_file), output=str(output), overrides=tiny_settings)
    made = TrainingSession(request, lambda *_: None)
    for stage in ("prepare", "autoencoders", "planner", "executor"):
        getattr(made, stage)()
    return made


def test_no_row_is_given_an_entry_of_its_own_group(session: TrainingSession) -> None:
    entries = session.prepared.source.kb
    for data in (session.prepared.training, session.prepared.validation):
        for name, table in data.shortlist.items():
            assert table.shape[0] == len(data.pool)
            for row, found in zip(data.pool.rows, table.tolist(), strict=True):
                places = [place for place in found if place >= 0]
                assert places
                assert len(set(places)) == len(places)
                assert data.groups[row] not in {entries.groups[place] for place in places}
                assert all(entries.has_value[name][place] for place in places)


def test_only_training_rows_become_entries(session: TrainingSession) -> None:
    assert session.prepared.source.kb.ids == session.run.train.ids
    assert not {group_of(entry) for entry in session.prepared.source.kb.ids} & set(session.run.valid.groups)


def test_what_a_pair_hides_is_what_it_is_asked_for(session: TrainingSession) -> None:
    data = session.prepared.training
    pairs = np.arange(len(data.pool), dtype=np.int64)
    targets = data.targets(pairs, session.device)
    query, has_view = data.raw_queries(pairs)
    visible = data.visible(pairs)
    assert not (targets.known & visible).any()
    assert (has_view == visible).all()
    for column in range(visible.shape[1]):
        part = query[:, data.view_of_column == column]
        assert not part[~visible[:, column]].any()
        np.testing.assert_allclose(part[visible[:, column]].norm(dim=1), 1.0, rtol=1e-5)


def test_rows_that_the_kernel_leaves_out_are_told(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    told = {}
    for kept in (48, 40):
        settings = tiny_settings | {"anchor": {"rows": kept}}
        output = str(tmp_path / "model")
        request = TrainingRequest(data=str(tiny_data_file), output=output, overrides=settings)
        session = TrainingSession(request, lambda *_: None)
        session.prepare()
        told[kept] = [note for note in session.notes if "kernel" in note]
        shutil.rmtree(session.workspace.folder)
    assert told == {48: [], 40: ["kernel regressions keep 40 of 48 training rows (anchor.rows)"]}


def test_a_planner_that_nothing_stops_early_is_told(tiny_model_folder: Path, tiny_plain_folder: Path) -> None:
    told = "no validation row has a plan"
    assert not any(told in remark for remark in read_manifest(tiny_model_folder).notes)
    assert any(told in remark for remark in read_manifest(tiny_plain_folder).notes)


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
