"""The Gaussian conditional reads the plan where that helps held-out rows, and predicts rows out of fold."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from omg_graph.model.conditions import gaussian_noise, no_plan
from omg_graph.training.planned_pairs import fit_planned, planned_pairs, run_planned
from omg_graph.training.session import TrainingRequest, TrainingSession


@pytest.fixture(scope="module")
def session(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> TrainingSession:
    """A run up to its pairs, whose targets follow from the plan alone."""
    output = tmp_path_factory.mktemp("planned") / "model"
    request = TrainingRequest(data=str(tiny_data_file), output=str(output), overrides=tiny_settings)
    made = TrainingSession(request, lambda *_: None)
    for stage in ("prepare", "autoencoders", "planner", "executor"):
        getattr(made, stage)()
    return made


def telling(session: TrainingSession) -> tuple[Any, torch.Tensor]:
    """The pairs, with a latent that is known from each row's plan and from nothing else."""
    data, table = session.prepared.training, session.prepared.plan_table
    rows = torch.from_numpy(data.pool.rows)
    source = torch.Generator().manual_seed(0)
    index = torch.randint(len(table), (len(data.ids),), generator=source)  # one plan for each row
    last = data.names[-1]
    told = table[index][:, 1:].flatten(1)
    latents = dict(data.latents)
    mixing = torch.randn(told.shape[1], latents[last].shape[1], generator=source)
    latents[last] = (told - told.mean(0)) @ mixing
    return replace(data, latents=latents, plan_index=index[rows]), table


def test_what_the_plan_tells_is_read_from_it(session: TrainingSession) -> None:
    data, table = telling(session)
    name = data.names[-1]
    gaussian = deepcopy(session.prepared.gaussian)
    model = fit_planned(gaussian, data, table, session.run.folds)
    assert model.reads_plan(name)
    made = planned_pairs(model, gaussian, data, table, session.run.folds)
    hidden = ~data.visible(np.arange(len(data.pool)))[:, -1]
    truth = data.latents[name][torch.from_numpy(data.pool.rows)][hidden]
    with_plan = (made.gaussian[name][hidden] - truth).square().mean()
    without = (data.gaussian[name][hidden] - truth).square().mean()
    assert float(with_plan) < 0.5 * float(without)


@pytest.mark.parametrize("condition", [gaussian_noise, no_plan])
def test_what_is_no_plan_is_left_out(session: TrainingSession, condition: Any) -> None:
    data, table = telling(session)
    data = replace(data, condition=condition)
    model = fit_planned(session.prepared.gaussian, data, table, session.run.folds)
    assert not model.reads_plan(data.names[-1])


def test_a_row_s_own_values_never_reach_its_prediction(session: TrainingSession) -> None:
    """What is predicted of a fold doesn't change with the fold's own latents."""
    data, table = telling(session)
    folds, name = session.run.folds, data.names[-1]
    model = fit_planned(session.prepared.gaussian, data, table, folds)
    other = dict(data.latents)
    other[name] = torch.where(torch.from_numpy(folds == 1)[:, None], other[name] + 5.0, other[name])
    made, moved = (
        planned_pairs(model, session.prepared.gaussian, one, table, folds)
        for one in (data, replace(data, latents=other))
    )
    hidden = ~data.pool.visible[:, -1]
    of_fold = torch.from_numpy((folds[data.pool.rows] == 1) & hidden)
    assert torch.equal(made.gaussian[name][of_fold], moved.gaussian[name][of_fold])
    others = torch.from_numpy((folds[data.pool.rows] != 1) & hidden)
    assert not torch.equal(made.gaussian[name][others], moved.gaussian[name][others])


def test_a_setting_leaves_it_out(session: TrainingSession) -> None:
    run = session.run
    anchor = run.config.anchor.model_copy(update={"plan": False})
    told = replace(run, config=run.config.model_copy(update={"anchor": anchor}))
    prepared = session.prepared
    model = run_planned(told, prepared.gaussian, prepared.training, prepared.plan_table)
    assert not model.scales.any()
    assert planned_pairs(model, prepared.gaussian, prepared.training, prepared.plan_table, None) is (
        prepared.training
    )
