"""Priors of missing latents and of the label, in closed form, and what they say of every pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.data.dataset import TEXT_MODALITY, Split
from omg_graph.predictor.label_regression import LABEL, LabelRegression, WordEncoder, with_words
from omg_graph.predictor.task import TaskHeadConfig, label_columns
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.kernel import KernelConditional
from omg_graph.priors.kernel_tuning import tune_kernel
from omg_graph.priors.planned import PlannedConditional
from omg_graph.seeding import derived_seed
from omg_graph.training.patterns import PatternPool
from omg_graph.training.rows import PairData
from omg_graph.training.targets import label_tensor

IntArray = npt.NDArray[np.int64]
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Candidates for the Gaussian conditional's ridge, in units of squared latents."""
CHECKED = 600
"""Held-out pairs that choose a ridge, and a plan's scale."""
TUNING_ROWS = 800
"""Lengths and ridges of kernels are chosen on no more rows than this."""
SCALES = (1.0, 3.0)
"""Candidates for what a plan's coordinate counts beside a latent; 0, the plan left out, is another."""
TOLERANCE = 0.005
"""By so much of itself the error of held-out rows has to fall for the plan to be read."""
PLANNED_PAIRS = 20_000
"""Pairs that moments with plans are taken of, at most."""
PLANNED_BLOCK = 1024
FEW_PLANS = 2000
"""Pairs whose plans decide which directions there are."""


@dataclass(frozen=True)
class PairEstimates:
    """What priors say of the pairs of one split; of training pairs nothing that saw a row's own group."""

    gaussian: dict[str, Tensor]
    """E[z | visible] of every modality, (pairs, latent) each."""
    kernel: dict[str, Tensor]
    """The same by kernel regression."""
    label: Tensor | None
    """The label's regression, (pairs, columns); None without one."""
    words: Tensor | None
    """What the transcripts say, (rows, terms); None where none is read."""


def estimate_pairs(
    gaussian: GaussianConditional,
    kernel: KernelConditional,
    label: Tensor | None,
    regression: LabelRegression | None,
    latents: Mapping[str, Tensor],
    split: Split,
    pool: PatternPool,
    folds: IntArray | None,
) -> PairEstimates:
    """What the priors say of every pair of a split; the Gaussian out of fold where folds are given."""
    return PairEstimates(
        gaussian_pairs(gaussian, latents, torch.from_numpy(split.mask()), folds, pool),
        kernel_pairs(kernel, latents, split, pool),
        label,
        None if regression is None else regression.describe(split.raw_text, len(split)),
    )


# the Gaussian conditional


def fit_gaussian(
    latents: Mapping[str, Tensor], split: Split, folds: IntArray, pool: PatternPool
) -> GaussianConditional:
    """The Gaussian of all rows; each target's ridge is the one that predicts a held-out fold best."""
    known = torch.from_numpy(split.mask())
    inner = _gaussian_of(latents, known, folds != 0)
    pairs = pool.spaced(np.flatnonzero(folds[pool.rows] == 0), CHECKED)
    rows, visible = torch.from_numpy(pool.rows[pairs]), torch.from_numpy(pool.visible[pairs])
    shown = pool.shown(latents, pairs)
    ridges = []
    for column, name in enumerate(latents):
        wanted = known[rows, column] & ~visible[:, column]
        if not bool(wanted.any()):
            ridges.append(1.0)
            continue
        part = {other: value[wanted] for other, value in shown.items()}
        truth = latents[name][rows][wanted]
        errors = [
            float((inner.predict(name, part, visible[wanted], ridge) - truth).square().sum())
            for ridge in RIDGES
        ]
        ridges.append(RIDGES[int(np.argmin(errors))])
    model = GaussianConditional.fit(dict(latents), known)
    model.ridges.copy_(torch.tensor(ridges))
    return model


def gaussian_pairs(
    model: GaussianConditional,
    latents: Mapping[str, Tensor],
    known: Tensor,
    folds: IntArray | None,
    pool: PatternPool,
) -> dict[str, Tensor]:
    """E[z | visible] of every pair and modality; out of fold where folds are given."""
    out = {name: torch.zeros(len(pool), value.shape[1]) for name, value in latents.items()}
    parts = [(model, pool.everything)]
    if folds is not None:
        parts = []
        for fold in np.unique(folds):
            fitted = _gaussian_of(latents, known, folds != fold)
            fitted.ridges.copy_(model.ridges)
            parts.append((fitted, np.flatnonzero(folds[pool.rows] == fold)))
    for fitted, pairs in parts:
        shown, visible = pool.shown(latents, pairs), torch.from_numpy(pool.visible[pairs])
        index = torch.from_numpy(pairs)
        for column, name in enumerate(latents):
            hidden = ~visible[:, column]
            if bool(hidden.any()):
                part = {other: value[hidden] for other, value in shown.items()}
                out[name][index[hidden]] = fitted.predict(name, part, visible[hidden])
    return out


def _gaussian_of(
    latents: Mapping[str, Tensor], known: Tensor, rows: npt.NDArray[np.bool_]
) -> GaussianConditional:
    kept = torch.from_numpy(rows)
    return GaussianConditional.fit({name: value[kept] for name, value in latents.items()}, known[kept])


# kernel regression of latents, and of the label


def fit_kernel(
    latents: Mapping[str, Tensor],
    split: Split,
    gaussian: GaussianConditional,
    pool: PatternPool,
    rows: int,
    seed: int,
) -> KernelConditional:
    """Keep rows, and choose every length and ridge by what predicts rows without their own groups best.

    Args:
        latents: Latents of the training rows.
        split: The training rows.
        gaussian: Fills what rows miss, where they serve as inputs.
        pool: Patterns to choose on.
        rows: Rows to keep at most.
        seed: Decides which.
    """
    known = torch.from_numpy(split.mask())
    inputs = gaussian.filled(latents, known)
    return _kept_and_tuned(inputs, known, split, pool.observed_sets(), rows, seed, "kernel")


def fit_label_regression(
    latents: Mapping[str, Tensor],
    split: Split,
    gaussian: GaussianConditional,
    task: TaskHeadConfig,
    pool: PatternPool,
    words: bool,
    rows: int,
    seed: int,
) -> LabelRegression:
    """Keep rows with their words and labels, and choose length and ridge for every observed set.

    Args:
        latents: Latents of the training rows.
        split: The training rows, labelled.
        gaussian: Fills what rows miss, where they serve as inputs.
        task: What the head predicts.
        pool: Patterns to choose on.
        words: Whether to read transcripts.
        rows: Rows to keep at most.
        seed: Decides which.
    """
    label = label_tensor(split)
    if label is None:
        raise ValueError("a split without labels has nothing to learn from")
    # a transcript belongs to the modality text, and is hidden with it: without it nothing would hide it
    words = words and TEXT_MODALITY in split.names
    encoder = WordEncoder.fit((split.raw_text or ()) if words else ())
    known = torch.from_numpy(split.mask())
    texts = split.raw_text if encoder.width else None
    inputs, there = with_words(gaussian.filled(latents, known), known, texts, encoder)
    inputs[LABEL] = label_columns(task, label)
    there = torch.cat([there, ~label.isnan().unsqueeze(1)], dim=1)
    shown = _with_words(pool.observed_sets(), split, texts is not None)
    return LabelRegression(
        _kept_and_tuned(inputs, there, split, shown, rows, seed, "reader", [LABEL]), encoder
    )


def _with_words(patterns: Tensor, split: Split, read: bool) -> Tensor:
    """Observed sets of modalities with whether words are there, and no label."""
    patterns = torch.cat([patterns, torch.ones(1, patterns.shape[1], dtype=torch.bool)])
    shown = torch.zeros(len(patterns), 1, dtype=torch.bool)
    if read:
        shown = patterns[:, split.names.index(TEXT_MODALITY)].unsqueeze(1)
    return torch.cat([patterns, shown, shown, torch.zeros_like(shown)], dim=1)


def _kept_and_tuned(
    inputs: Mapping[str, Tensor],
    known: Tensor,
    split: Split,
    patterns: Tensor,
    rows: int,
    seed: int,
    purpose: str,
    targets: Sequence[str] | None = None,
) -> KernelConditional:
    """Keep rows, with lengths and ridges for these observed sets chosen on at most ``TUNING_ROWS``."""
    kept, tuned = (
        _keep(inputs, known, split, rows_drawn(split.ids, count, seed, purpose))
        for count in (rows, min(rows, TUNING_ROWS))
    )
    tune_kernel(tuned, patterns, targets)
    kept.patterns, kept.lengths, kept.ridges = tuned.patterns, tuned.lengths, tuned.ridges
    kept.relevance = tuned.relevance
    return kept


def rows_drawn(ids: Sequence[str], count: int, seed: int, purpose: str) -> Tensor:
    """Up to ``count`` rows in their order, drawn by the seed; fewer of them are among more of them."""
    drawn = np.argsort(np.array([derived_seed(seed, purpose, sample_id) for sample_id in ids]), kind="stable")
    return torch.from_numpy(np.sort(drawn[:count]))


def _keep(inputs: Mapping[str, Tensor], known: Tensor, split: Split, rows: Tensor) -> KernelConditional:
    return KernelConditional.keep(
        {name: value[rows] for name, value in inputs.items()},
        known[rows],
        [split.ids[row] for row in rows.tolist()],
        [split.groups[row] for row in rows.tolist()],
    )


def kernel_pairs(
    model: KernelConditional, latents: Mapping[str, Tensor], split: Split, pool: PatternPool
) -> dict[str, Tensor]:
    """E[z | visible] of every pair and modality, never from a row's own group."""
    out = {name: torch.zeros(len(pool), value.shape[1]) for name, value in latents.items()}
    for pairs in pool.by_pattern():
        shown, visible = pool.shown(latents, pairs), torch.from_numpy(pool.visible[pairs])
        for column, name in enumerate(latents):
            if not visible[0, column]:
                guess = model.predict(name, shown, visible, *_own(split, pool, pairs))
                out[name][torch.from_numpy(pairs)] = guess
    return out


def label_pairs(
    regression: LabelRegression, latents: Mapping[str, Tensor], split: Split, pool: PatternPool
) -> Tensor:
    """The label's regression of each pair, (pairs, columns), never from a row's own group."""
    out = torch.zeros(len(pool), regression.width)
    for pairs in pool.by_pattern():
        visible = torch.from_numpy(pool.visible[pairs])
        out[torch.from_numpy(pairs)] = regression.predict(
            pool.shown(latents, pairs), visible, pool.texts(split, pairs), *_own(split, pool, pairs)
        )
    return out


def _own(split: Split, pool: PatternPool, pairs: IntArray) -> tuple[list[str], list[str]]:
    """Ids and groups of the rows of some pairs."""
    rows = pool.rows[pairs]
    return [split.ids[row] for row in rows], [split.groups[row] for row in rows]


# the Gaussian conditional that reads the plan, where held-out rows are better off with it


def fit_planned(
    gaussian: GaussianConditional, data: PairData, table: Tensor, folds: IntArray
) -> PlannedConditional:
    """Moments of all training pairs; ridge and scale of each target by what predicts a held-out fold best."""
    every = data.pool.everything
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
    given, plans = data.pool.shown(data.latents, checked), data.plans(checked, table)
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
    every = data.pool.everything
    parts = [(model, gaussian, every)]
    if folds is not None:
        parts = list(_out_of_fold(model, data, table, folds))
    for fitted, of_latents, pairs in parts:
        for start in range(0, len(pairs), PLANNED_BLOCK):
            block = pairs[start : start + PLANNED_BLOCK]
            shown, visible, plans = (
                data.pool.shown(data.latents, block),
                data.visible(block),
                data.plans(block, table),
            )
            for name in read:
                out[name][torch.from_numpy(block)] = fitted.predict(of_latents, name, shown, visible, plans)
    return replace(data, gaussian=out)


def _out_of_fold(
    model: PlannedConditional, data: PairData, table: Tensor, folds: IntArray
) -> Iterator[tuple[PlannedConditional, GaussianConditional, IntArray]]:
    """For each fold what was fitted on the others, and its pairs."""
    every = data.pool.everything
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
    pairs = data.pool.spaced(pairs, PLANNED_PAIRS)
    blocks = [pairs[start : start + PLANNED_BLOCK] for start in range(0, len(pairs), PLANNED_BLOCK)]
    coordinates = torch.cat([model.coordinates(data.plans(block, table)) for block in blocks])
    rows = data.rows(pairs)
    model.fit(
        gaussian,
        coordinates,
        {name: value[rows] for name, value in data.latents.items()},
        data.known[rows],
        data.visible(pairs),
        data.pool.observed_sets(),
    )
