"""Priors of the training rows: the label's regression, and the Gaussian conditional that reads plans."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omg_graph.bench.ablation.components import gaussian_noise, no_plan
from omg_graph.data.dataset import Labels, ModalitySpec, Split
from omg_graph.predictor.label_regression import LabelRegression
from omg_graph.predictor.task import TaskHeadConfig, label_width
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.training.patterns import pattern_pool
from omg_graph.training.priors import fit_label_regression, fit_planned, label_pairs, planned_pairs
from omg_graph.training.stages import TrainingRun

ROWS, WIDTHS = 60, {"text": 3, "audio": 2}
IDS = tuple(f"row{row}" for row in range(ROWS))
GROUPS = tuple(f"group{row // 3}" for row in range(ROWS))
SCORES = np.tile([-2.0, -1.0, 0.0, 1.0, 2.0], ROWS // 5)
WORDS = {
    -2.0: "a terrible film",
    -1.0: "a dull film",
    0.0: "a film",
    1.0: "a nice film",
    2.0: "a superb film",
}


def split(words: bool = True, labels: np.ndarray = SCORES) -> Split:
    random = np.random.default_rng(0)
    return Split(
        name="train",
        ids=IDS,
        groups=GROUPS,
        modalities=tuple(
            ModalitySpec(name=name, kind="vector", shape=(width,)) for name, width in WIDTHS.items()
        ),
        arrays={
            name: random.standard_normal((ROWS, width)).astype(np.float32) for name, width in WIDTHS.items()
        },
        observed={name: np.ones(ROWS, dtype=np.bool_) for name in WIDTHS},
        raw_text=tuple(WORDS[score] for score in SCORES) if words else None,
        labels=Labels(name="label", kind="number", values=labels.astype(np.float64)),
    )


def latents(data: Split) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in data.arrays.items()}


TASK = TaskHeadConfig(
    kind="degrees",
    names=("bad", "poor", "fair", "good", "fine"),
    degrees=(-2.0, -1.0, 0.0, 1.0, 2.0),
    target_deviation=1.5,
    widths=WIDTHS,
    scales=dict.fromkeys(WIDTHS, 1.0),
)
TASK = TASK.model_copy(update={"reading": label_width(TASK)})


def fitted(data: Split, words: bool = True) -> LabelRegression:
    known = torch.from_numpy(data.mask())
    gaussian = GaussianConditional.fit(latents(data), known)
    pool = pattern_pool(data.mask(), data.ids, 24, 0)
    return fit_label_regression(latents(data), data, gaussian, TASK, pool, words, ROWS, 0)


def read(regression: LabelRegression, data: Split, shown: tuple[bool, bool], texts: bool) -> Tensor:
    """Of new samples with the same features and words."""
    new = tuple(f"new{row}" for row in range(ROWS))
    words = data.raw_text if texts else None
    return regression.predict(latents(data), torch.tensor([shown] * ROWS), words, new, new)


def test_words_tell_the_label_where_features_are_noise() -> None:
    data = split()
    value = read(fitted(data), data, (True, False), texts=True)[:, 0] * 1.5
    assert float((value - torch.from_numpy(SCORES)).abs().mean()) < 0.5
    unread = read(fitted(data, words=False), data, (True, False), texts=True)[:, 0] * 1.5
    assert float((unread - torch.from_numpy(SCORES)).abs().mean()) > 0.8


def test_hidden_text_is_not_read() -> None:
    data = split()
    pool = pattern_pool(data.mask(), data.ids, 24, 0)
    regression = fitted(data)
    pairs = label_pairs(regression, latents(data), data, pool)
    other = replace(data, raw_text=tuple("a superb film" for _ in IDS))
    changed = label_pairs(regression, latents(data), other, pool)
    hidden = ~pool.visible[:, 0]
    assert torch.equal(pairs[hidden], changed[hidden])
    assert not torch.allclose(pairs[~hidden], changed[~hidden], atol=0.1)


def test_a_row_s_own_group_has_no_say() -> None:
    """Labels that no other group explains can't be read off a training row."""
    random = np.random.default_rng(1)
    data = split(words=False, labels=random.permutation(SCORES))
    pool = pattern_pool(data.mask(), data.ids, 24, 0)
    regression = fitted(data)
    value = label_pairs(regression, latents(data), data, pool)[:, 0].numpy()
    truth = np.asarray(data.labels.values)[pool.rows]  # type: ignore[union-attr]
    assert abs(np.corrcoef(value, truth)[0, 1]) < 0.35


def test_rows_without_a_label_teach_nothing() -> None:
    labels = SCORES.copy()
    labels[::4] = np.nan
    data = split(labels=labels)
    regression = fitted(data)
    assert int(regression.kernel.known[:, -1].sum()) == ROWS - ROWS // 4
    assert bool(read(regression, data, (True, True), texts=True).isfinite().all())


def test_a_split_without_labels_is_refused() -> None:
    data = replace(split(), labels=None)
    with pytest.raises(ValueError, match="nothing to learn from"):
        fitted(data)


def test_nobody_reads_what_is_wholly_missing() -> None:
    data = split()
    assert not read(fitted(data), data, (False, False), texts=False).any()


# the Gaussian conditional that reads the plan


def telling(tiny_run: TrainingRun) -> tuple[Any, torch.Tensor]:
    """The pairs, with a latent that is known from each row's plan and from nothing else."""
    data, table = tiny_run.pairs[0].value, tiny_run.plan_table.value[2]
    rows = torch.from_numpy(data.pool.rows)
    source = torch.Generator().manual_seed(0)
    index = torch.randint(len(table), (len(data.ids),), generator=source)  # one plan for each row
    last = data.names[-1]
    told = table[index][:, 1:].flatten(1)
    latents = dict(data.latents)
    mixing = torch.randn(told.shape[1], latents[last].shape[1], generator=source)
    latents[last] = (told - told.mean(0)) @ mixing
    return replace(data, latents=latents, plan_index=index[rows]), table


def test_what_the_plan_tells_is_read_from_it(tiny_run: TrainingRun) -> None:
    data, table = telling(tiny_run)
    name = data.names[-1]
    gaussian = deepcopy(tiny_run.gaussian.value)
    model = fit_planned(gaussian, data, table, tiny_run.folds)
    assert model.reads_plan(name)
    made = planned_pairs(model, gaussian, data, table, tiny_run.folds)
    hidden = ~data.visible(np.arange(len(data.pool)))[:, -1]
    truth = data.latents[name][torch.from_numpy(data.pool.rows)][hidden]
    with_plan = (made.gaussian[name][hidden] - truth).square().mean()
    without = (data.gaussian[name][hidden] - truth).square().mean()
    assert float(with_plan) < 0.5 * float(without)


@pytest.mark.parametrize("condition", [gaussian_noise, no_plan])
def test_what_is_no_plan_is_left_out(tiny_run: TrainingRun, condition: Any) -> None:
    data, table = telling(tiny_run)
    data = replace(data, condition=condition)
    model = fit_planned(tiny_run.gaussian.value, data, table, tiny_run.folds)
    assert not model.reads_plan(data.names[-1])


def test_a_row_s_own_values_never_reach_its_prediction(tiny_run: TrainingRun) -> None:
    """What is predicted of a fold doesn't change with the fold's own latents."""
    data, table = telling(tiny_run)
    folds, name = tiny_run.folds, data.names[-1]
    model = fit_planned(tiny_run.gaussian.value, data, table, folds)
    other = dict(data.latents)
    other[name] = torch.where(torch.from_numpy(folds == 1)[:, None], other[name] + 5.0, other[name])
    made, moved = (
        planned_pairs(model, tiny_run.gaussian.value, one, table, folds)
        for one in (data, replace(data, latents=other))
    )
    hidden = ~data.pool.visible[:, -1]
    of_fold = torch.from_numpy((folds[data.pool.rows] == 1) & hidden)
    assert torch.equal(made.gaussian[name][of_fold], moved.gaussian[name][of_fold])
    others = torch.from_numpy((folds[data.pool.rows] != 1) & hidden)
    assert not torch.equal(made.gaussian[name][others], moved.gaussian[name][others])


def test_a_setting_leaves_it_out(tiny_run: TrainingRun, tmp_path: Path) -> None:
    anchor = tiny_run.config.anchor.model_copy(update={"plan": False})
    other = tiny_run.variant(tiny_run.config.model_copy(update={"anchor": anchor}), tmp_path)
    model, data = other.planned_conditional.value, tiny_run.pairs[0].value
    assert not model.scales.any()
    table = tiny_run.plan_table.value[2]
    assert planned_pairs(model, tiny_run.gaussian.value, data, table, None) is data
