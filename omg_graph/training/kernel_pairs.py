"""The kernel conditional of the training rows, and what it says of every pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.data.dataset import BoolArray, Split
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.kernel import KernelConditional
from omg_graph.priors.kernel_tuning import tune_kernel
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
    filled = gaussian.filled(latents, known)
    return kept_and_tuned(filled, known, split, observed_sets(pool), rows=rows, seed=seed, purpose="kernel")


def kept_and_tuned(
    inputs: Mapping[str, Tensor],
    known: Tensor,
    split: Split,
    patterns: Tensor,
    *,
    rows: int,
    seed: int,
    purpose: str,
    targets: Sequence[str] | None = None,
) -> KernelConditional:
    """Keep rows, with lengths and ridges chosen on no more of them than ``TUNING_ROWS``.

    Args:
        inputs: What to regress from and on, a row for each of the split.
        known: Which of it is known.
        split: The rows, with their ids and groups.
        patterns: Observed sets to choose for.
        rows: Rows to keep at most.
        seed: Decides which.
        purpose: Rows for another purpose are drawn otherwise.
        targets: What to choose for; everything if None.
    """
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


def observed_sets(pool: PatternPool) -> Tensor:
    """Observed sets of every size, as many of each as there are modalities."""
    patterns = np.unique(pool.visible, axis=0)
    sizes = patterns.sum(axis=1)
    modalities = patterns.shape[1]
    chosen: list[BoolArray] = []
    for size in range(1, modalities):
        of_size = patterns[sizes == size]
        chosen.append(of_size[:: max(1, len(of_size) // modalities)][:modalities])
    return torch.from_numpy(np.concatenate([patterns[:0], *chosen]))


def kernel_pairs(
    model: KernelConditional, latents: Mapping[str, Tensor], split: Split, pool: PatternPool
) -> dict[str, Tensor]:
    """E[z | visible] of every pair and modality, never from a row's own group."""
    out = {name: torch.zeros(len(pool), value.shape[1]) for name, value in latents.items()}
    for block in alike_pairs(latents, split, pool):
        hidden = ~block.visible[0]
        for name in np.array(list(latents))[hidden.numpy()].tolist():
            guess = model.predict(name, block.latents, block.visible, block.ids, block.groups)
            out[name][torch.from_numpy(block.pairs)] = guess
    return out


@dataclass(frozen=True)
class AlikePairs:
    """Some pairs that show the same modalities."""

    pairs: IntArray
    latents: dict[str, Tensor]
    """Zeros where hidden."""
    visible: Tensor
    """(pairs, modalities), all rows alike."""
    ids: list[str]
    groups: list[str]


def alike_pairs(latents: Mapping[str, Tensor], split: Split, pool: PatternPool) -> Iterator[AlikePairs]:
    """All pairs, those of one pattern together, so many at a time that kernels with them stay small."""
    patterns, member = np.unique(pool.visible, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        of_pattern = np.flatnonzero(member == index)
        for start in range(0, len(of_pattern), BLOCK):
            pairs = of_pattern[start : start + BLOCK]
            rows = pool.rows[pairs]
            visible = torch.from_numpy(pattern).expand(len(pairs), -1)
            yield AlikePairs(
                pairs,
                {
                    name: value[rows] * visible[:, column : column + 1]
                    for column, (name, value) in enumerate(latents.items())
                },
                visible,
                [split.ids[row] for row in rows],
                [split.groups[row] for row in rows],
            )
