"""The kernel conditional of the training rows, and what it says of every pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.executor.gaussian import GaussianConditional
from omg_graph.executor.kernel import KernelConditional
from omg_graph.samples.dataset import BoolArray, Split
from omg_graph.seeding import derived_seed
from omg_graph.training.patterns import PatternPool

IntArray = npt.NDArray[np.int64]
TUNING_ROWS = 800
"""Lengths and ridges are chosen on no more rows than this."""
BLOCK = 2048


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
    filled = filled_inputs(latents, known, gaussian)
    kept = _keep(filled, known, split, rows_drawn(split.ids, rows, seed, "kernel"))
    tuned = _keep(filled, known, split, rows_drawn(split.ids, min(rows, TUNING_ROWS), seed, "kernel"))
    tuned.tune(observed_sets(pool))
    kept.patterns, kept.lengths, kept.ridges = tuned.patterns, tuned.lengths, tuned.ridges
    return kept


def filled_inputs(
    latents: Mapping[str, Tensor], known: Tensor, gaussian: GaussianConditional
) -> dict[str, Tensor]:
    """The latents, and the Gaussian conditional of what rows miss."""
    return {
        name: torch.where(known[:, column : column + 1], value, gaussian.predict(name, latents, known))
        for column, (name, value) in enumerate(latents.items())
    }


def rows_drawn(ids: Sequence[str], count: int, seed: int, purpose: str) -> Tensor:
    """Up to ``count`` rows in their order, drawn by the seed; fewer of them are among more of them."""
    drawn = np.argsort(np.array([derived_seed(seed, purpose, sample_id) for sample_id in ids]), kind="stable")
    return torch.from_numpy(np.sort(drawn[:count]))


def _keep(filled: Mapping[str, Tensor], known: Tensor, split: Split, rows: Tensor) -> KernelConditional:
    return KernelConditional.keep(
        {name: value[rows] for name, value in filled.items()},
        known[rows],
        [split.ids[row] for row in rows.tolist()],
        [split.groups[row] for row in rows.tolist()],
    )


def observed_sets(pool: PatternPool) -> Tensor:
    """Observed sets of every size, as many of each as there are modalities."""
    patterns = np.unique(pool.visible, axis=0)
    sizes = patterns.sum(axis=1)
    modalities = patterns.shape[1]
    chosen: list[BoolArray] = []
    for size in range(1, modalities):
        of_size = patterns[sizes == size]
        chosen.append(of_size[:: max(1, len(of_size) // modalities)][:modalities])
    return (
        torch.from_numpy(np.concatenate(chosen)) if chosen else torch.zeros(0, modalities, dtype=torch.bool)
    )


def kernel_pairs(
    model: KernelConditional, latents: Mapping[str, Tensor], split: Split, pool: PatternPool
) -> dict[str, Tensor]:
    """E[z | visible] of every pair and modality, never from a row's own group."""
    out = {name: torch.zeros(len(pool), value.shape[1]) for name, value in latents.items()}
    patterns, member = np.unique(pool.visible, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        of_pattern = np.flatnonzero(member == index)
        for start in range(0, len(of_pattern), BLOCK):
            pairs = of_pattern[start : start + BLOCK]
            rows = pool.rows[pairs]
            visible = torch.from_numpy(pattern).expand(len(pairs), -1)
            inputs = {
                name: value[rows] * visible[:, column : column + 1]
                for column, (name, value) in enumerate(latents.items())
            }
            ids = [split.ids[row] for row in rows]
            groups = [split.groups[row] for row in rows]
            for name in np.array(list(latents))[~pattern].tolist():
                out[name][torch.from_numpy(pairs)] = model.predict(name, inputs, visible, ids, groups)
    return out
