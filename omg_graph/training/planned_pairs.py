"""Stage: the Gaussian conditional that reads the plan, fitted where held-out rows are better off with it."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.planned import PlannedConditional
from omg_graph.training.fold_pairs import RIDGES
from omg_graph.training.kernel_pairs import observed_sets
from omg_graph.training.pairs import IntArray, PairData
from omg_graph.training.run import RunData

SCALES = (1.0, 3.0)
"""Candidates for what a plan's coordinate counts beside a latent; 0, the plan left out, is another."""
TOLERANCE = 0.005
"""By so much of itself the error of held-out rows has to fall for the plan to be read."""
PAIRS = 20_000
"""Pairs that moments are taken of, at most."""
CHECKED = 600
"""Held-out pairs that choose ridge and scale."""
BLOCK = 1024
FEW_PLANS = 2000
"""Pairs whose plans decide which directions there are."""


def run_planned(
    run: RunData, gaussian: GaussianConditional, data: PairData, table: Tensor
) -> PlannedConditional:
    """The fitted conditional, or the workspace's; one that leaves the plan out where nothing asks for it.

    Args:
        run: Settings, folds and workspace.
        gaussian: Of the training rows' latents.
        data: Training pairs, with plans of students that never saw them.
        table: The plan table.
    """
    model = PlannedConditional(gaussian.widths)
    if not run.config.anchor.plan or run.config.executor.anchor not in ("gaussian", "mixture"):
        return model
    if not run.workspace.has("planned"):
        run.workspace.save("planned", fit_planned(gaussian, data, table, run.folds).state_dict(), {})
    model.load_state_dict(run.workspace.load("planned")[0])
    run.progress("Gaussian conditional, planned", 1, 1, None)
    return model


def fit_planned(
    gaussian: GaussianConditional, data: PairData, table: Tensor, folds: IntArray
) -> PlannedConditional:
    """Moments of all training pairs; ridge and scale of each target by what predicts a held-out fold best."""
    every = np.arange(len(data.pool), dtype=np.int64)
    few = data.pool.spaced(every, FEW_PLANS)
    model = PlannedConditional.telling_apart(gaussian.widths, data.plans(few, table))
    held = folds[data.pool.rows] == 0
    kept = torch.from_numpy(folds != 0)
    inner_gaussian = GaussianConditional.fit(
        {name: value[kept] for name, value in data.latents.items()}, data.known[kept]
    )
    inner = deepcopy(model)
    _take_moments(inner, inner_gaussian, data, table, every[~held])
    checked = data.pool.spaced(np.flatnonzero(held), CHECKED)
    rows, visible = data.rows(checked), data.visible(checked)
    given, plans = data.shown(checked), data.plans(checked, table)
    for column, (name, latents) in enumerate(data.latents.items()):
        wanted = data.known[rows, column] & ~visible[:, column]
        if not bool(wanted.any()):
            continue
        shown = {other: value[wanted] for other, value in given.items()}
        truth = latents[rows][wanted]

        def error(guess: Tensor, truth: Tensor = truth) -> float:
            return float((guess - truth).square().sum())

        # the ridge that is best without a plan, lest a plan is read for the sake of another ridge
        least = min(
            error(inner_gaussian.predict(name, shown, visible[wanted], ridge)) for ridge in RIDGES
        ) * (1 - TOLERANCE)
        for scale in SCALES:
            for ridge in RIDGES:
                inner.use(name, ridge, scale)
                guess = inner.predict(inner_gaussian, name, shown, visible[wanted], plans[wanted])
                if (changed := error(guess)) < least:
                    least = changed
                    model.use(name, ridge, scale)
    if bool(model.scales.any()):
        _take_moments(model, gaussian, data, table, every)
    return model


def planned_pairs(
    model: PlannedConditional,
    gaussian: GaussianConditional,
    data: PairData,
    table: Tensor,
    folds: IntArray | None,
) -> PairData:
    """The pairs with the conditional's predictions in the Gaussian's place.

    Args:
        model: The fitted conditional.
        gaussian: Of the training rows' latents.
        data: Pairs of one split, with the Gaussian's own predictions.
        table: The plan table.
        folds: Each row's, for predictions out of fold; None for rows that took no part in fitting.
    """
    read = [name for name in model.widths if model.reads_plan(name)]
    if not read:
        return data
    out = {name: value.clone() if name in read else value for name, value in data.gaussian.items()}
    every = np.arange(len(data.pool), dtype=np.int64)
    parts = [(model, gaussian, every)]
    if folds is not None:
        parts = list(_out_of_fold(model, data, table, folds))
    for fitted, of_latents, pairs in parts:
        for start in range(0, len(pairs), BLOCK):
            block = pairs[start : start + BLOCK]
            shown, visible, plans = data.shown(block), data.visible(block), data.plans(block, table)
            for name in read:
                out[name][torch.from_numpy(block)] = fitted.predict(of_latents, name, shown, visible, plans)
    return replace(data, gaussian=out)


def _out_of_fold(
    model: PlannedConditional, data: PairData, table: Tensor, folds: IntArray
) -> Iterator[tuple[PlannedConditional, GaussianConditional, IntArray]]:
    """For each fold what was fitted on the others, and its pairs."""
    every = np.arange(len(data.pool), dtype=np.int64)
    for fold in np.unique(folds):
        others = torch.from_numpy(folds != fold)
        gaussian = GaussianConditional.fit(
            {name: value[others] for name, value in data.latents.items()}, data.known[others]
        )
        fitted = deepcopy(model)
        of_fold = folds[data.pool.rows] == fold
        _take_moments(fitted, gaussian, data, table, every[~of_fold])
        yield fitted, gaussian, every[of_fold]


def _take_moments(
    model: PlannedConditional,
    gaussian: GaussianConditional,
    data: PairData,
    table: Tensor,
    pairs: IntArray,
) -> None:
    pairs = data.pool.spaced(pairs, PAIRS)
    blocks = [pairs[start : start + BLOCK] for start in range(0, len(pairs), BLOCK)]
    coordinates = torch.cat([model.coordinates(data.plans(block, table)) for block in blocks])
    rows = data.rows(pairs)
    model.fit(
        gaussian,
        coordinates,
        {name: value[rows] for name, value in data.latents.items()},
        data.known[rows],
        data.visible(pairs),
        observed_sets(data.pool),
    )
