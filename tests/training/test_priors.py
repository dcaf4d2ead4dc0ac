"""Priors of the training rows: the label's regression, and the Gaussian conditional that reads plans."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from omg_graph.bench.ablation.components import gaussian_noise, no_plan
from omg_graph.data.dataset import Labels, ModalitySpec, Split
from omg_graph.data.patterns import pattern_pool
from omg_graph.predictor.label_regression import LabelRegression
from omg_graph.predictor.task import TaskHeadConfig, label_width
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.planned import PlannedConditional
from omg_graph.priors.prior import Examples, Shown, prior_class
from omg_graph.training.priors import label_pairs, pair_estimates
from omg_graph.training.rows import PairData
from omg_graph.training.stages import TrainingRun
from omg_graph.training.targets import label_tensor

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


TASK = TaskHeadConfig(
    kind="degrees",
    names=("bad", "poor", "fair", "good", "fine"),
    degrees=(-2.0, -1.0, 0.0, 1.0, 2.0),
    target_deviation=1.5,
    widths=WIDTHS,
    scales=dict.fromkeys(WIDTHS, 1.0),
)
TASK = TASK.model_copy(update={"reading": label_width(TASK)})


def examples(data: Split) -> Examples:
    pool = pattern_pool(data.mask(), data.ids, 24, 0)
    values = {name: torch.from_numpy(array) for name, array in data.arrays.items()}
    return Examples.of(data, values, pool, most_rows=ROWS)


def fitted(data: Split, words: bool = True) -> LabelRegression:
    label = label_tensor(data)
    assert label is not None
    return LabelRegression.fit(examples(data), TASK, label, data.raw_text if words else None, 0)


def read(regression: LabelRegression, data: Split, shown: tuple[bool, bool], texts: bool) -> Tensor:
    """Of new samples with the same features and words."""
    new = tuple(f"new{row}" for row in range(ROWS))
    asked = Shown(ids=new, groups=new, latents=examples(data).latents, observed=torch.tensor([shown] * ROWS))
    return regression.predict(asked, data.raw_text if texts else None)


def test_words_tell_the_label_where_features_are_noise() -> None:
    data = split()
    value = read(fitted(data), data, (True, False), texts=True)[:, 0] * 1.5
    assert float((value - torch.from_numpy(SCORES)).abs().mean()) < 0.5
    unread = read(fitted(data, words=False), data, (True, False), texts=True)[:, 0] * 1.5
    assert float((unread - torch.from_numpy(SCORES)).abs().mean()) > 0.8


def test_hidden_text_is_not_read() -> None:
    data = split()
    rows, regression = examples(data), fitted(data)
    pairs = label_pairs(regression, rows, data)
    other = replace(data, raw_text=tuple("a superb film" for _ in IDS))
    changed = label_pairs(regression, rows, other)
    hidden = ~rows.pool.visible[:, 0]
    assert torch.equal(pairs[hidden], changed[hidden])
    assert not torch.allclose(pairs[~hidden], changed[~hidden], atol=0.1)


def test_a_row_s_own_group_has_no_say() -> None:
    """Labels that no other group explains can't be read off a training row."""
    random = np.random.default_rng(1)
    data = split(words=False, labels=random.permutation(SCORES))
    rows, regression = examples(data), fitted(data)
    value = label_pairs(regression, rows, data)[:, 0].numpy()
    truth = np.asarray(data.labels.values)[rows.pool.rows]  # type: ignore[union-attr]
    assert abs(np.corrcoef(value, truth)[0, 1]) < 0.35


def test_rows_without_a_label_teach_nothing() -> None:
    labels = SCORES.copy()
    labels[::4] = np.nan
    data = split(labels=labels)
    regression = fitted(data)
    assert int(regression.kernel.known[:, -1].sum()) == ROWS - ROWS // 4
    assert bool(read(regression, data, (True, True), texts=True).isfinite().all())


def test_nobody_reads_what_is_wholly_missing() -> None:
    data = split()
    assert not read(fitted(data), data, (False, False), texts=False).any()


# estimates of pairs


def telling(tiny_run: TrainingRun) -> PairData:
    """The pairs, with a latent that is known from each row's plan and from nothing else."""
    data = tiny_run.pairs[0].value
    assert data.plan_table is not None
    source = torch.Generator().manual_seed(0)
    index = torch.randint(len(data.plan_table), (len(data.ids),), generator=source)  # one plan for each row
    features = data.plan_table[index][:, 1:].flatten(1)
    name = data.names[-1]
    mixing = torch.randn(features.shape[1], data.widths[name], generator=source)
    latents = {**data.latents, name: (features - features.mean(0)) @ mixing}
    return replace(data, latents=latents, plan_index=index[torch.from_numpy(data.pool.rows)])


def test_the_plan_is_read_where_it_predicts(tiny_run: TrainingRun) -> None:
    data = telling(tiny_run)
    name = data.names[-1]
    hidden = ~data.visible(data.pool.everything)[:, -1]
    truth = data.latents[name][torch.from_numpy(data.pool.rows)][hidden]
    errors = []
    for kind in (PlannedConditional, GaussianConditional):
        estimates = pair_estimates(kind.fit(data), data, training=True)
        assert estimates is not None
        errors.append(float((estimates[name][hidden] - truth).square().mean()))
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.parametrize("condition", [gaussian_noise, no_plan])
def test_what_is_no_plan_is_left_out(tiny_run: TrainingRun, condition: Any) -> None:
    data = replace(telling(tiny_run), condition=condition)
    assert not PlannedConditional.fit(data).reads_plan(data.names[-1])


@pytest.mark.parametrize("name", ["gaussian", "planned"])
def test_a_fold_s_own_values_never_reach_its_estimates(tiny_run: TrainingRun, name: str) -> None:
    """What is estimated of a fold's rows doesn't change with what is true of them."""
    data = telling(tiny_run)
    target, prior = data.names[-1], prior_class(name).fit(data, 0)
    of_fold = torch.from_numpy(data.folds == 1)
    moved = torch.where(of_fold[:, None], data.latents[target] + 5.0, data.latents[target])
    other = replace(data, latents={**data.latents, target: moved})
    first, second = (pair_estimates(prior, rows, training=True) for rows in (data, other))
    assert first is not None
    assert second is not None
    hidden, folds = ~data.pool.visible[:, -1], data.folds[data.pool.rows]
    own, others = (torch.from_numpy(which & hidden) for which in (folds == 1, folds != 1))
    assert torch.equal(first[target][own], second[target][own])
    assert not torch.equal(first[target][others], second[target][others])


def test_evidence_is_asked_for_every_batch(tiny_run: TrainingRun) -> None:
    data = tiny_run.pairs[0].value
    assert pair_estimates(prior_class("evidence").fit(data, 0), data, training=True) is None
