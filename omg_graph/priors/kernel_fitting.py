"""The kernel prior, and how kernel regressions are fitted: rows to keep, lengths, ridges, relevance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from omg_graph.priors.kernel import (
    KernelConditional,
    Rows,
    blocks_of,
    groups_by_size,
    leave_group_out,
    matern_kernel,
    squared_distances,
)
from omg_graph.priors.prior import CrossFitting, Examples, Shown, SimilarRows, filled
from omg_graph.seeding import derived_seed

LENGTHS = (0.5, 1.0, 2.0, 4.0)
"""Candidate kernel lengths, in units of a modality's standard deviation."""
RIDGES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
RELEVANCE_ROWS = 400
"""Rows used to search for relevance."""
STEP = 4.0
"""Factor of one step of that search."""
LEAST_RELEVANT = 1e-3
"""Smallest relevance of a modality, as a share of the largest."""
TUNING_ROWS = 800
"""Rows used at most to choose lengths and ridges."""
GAIN = 0.03
"""Relative fall of the error that unequal relevance must bring; a smaller one may be chance."""


class KernelPrior(nn.Module):
    """Kernel regression of every modality's latents."""

    cross_fitting: CrossFitting = "exact"
    reads_plans = False

    def __init__(self, widths: Mapping[str, int], regression: KernelConditional | None = None) -> None:
        super().__init__()
        self.regression = KernelConditional(widths) if regression is None else regression

    @classmethod
    def fit(cls, rows: Examples, seed: int) -> KernelPrior:
        """Keep rows, and choose lengths and ridges by the leave-group-out error.

        Args:
            rows: Training rows.
            seed: Decides which are kept.
        """
        return cls(
            rows.widths,
            kept_and_tuned(
                rows.latents,
                rows.known,
                rows.ids,
                rows.groups,
                rows.pool.observed_sets(),
                most_rows=rows.most_rows,
                seed=seed,
                purpose="kernel",
            ),
        )

    def refit(self, rows: Examples) -> KernelPrior:
        """Not needed: predictions of kept rows are leave-group-out already."""
        raise NotImplementedError

    def predict(self, target: str, shown: Shown) -> Float[Tensor, "batch latent"]:
        """The regression's prediction; rows of a sample's own id or group are not used."""
        return self.regression.predict(target, shown)

    @property
    def keeps_rows(self) -> bool:
        """Whether any row is kept."""
        return len(self.regression.known) > 0

    def similar_rows(self, target: str, shown: Shown) -> SimilarRows:
        """The nearest kept rows of each sample, without those of its own id or group."""
        return self.regression.similar_rows(target, shown)

    def with_rows(
        self,
        latents: Mapping[str, Float[Tensor, "row _"]],
        known: Bool[Tensor, "row modality"],
        ids: Sequence[str],
        groups: Sequence[str],
    ) -> KernelPrior:
        """The same regression with more rows kept; it estimates their missing latents itself."""
        shown = Shown(ids=tuple(ids), groups=tuple(groups), latents=dict(latents), observed=known)
        extended = self.regression.extended(filled(self, shown), known, ids, groups)
        return self if extended is self.regression else KernelPrior(extended.widths, extended)


def kept_and_tuned(
    inputs: Mapping[str, Tensor],
    known: Tensor,
    ids: Sequence[str],
    groups: Sequence[str],
    patterns: Tensor,
    *,
    most_rows: int,
    seed: int,
    purpose: str,
    targets: Sequence[str] | None = None,
) -> KernelConditional:
    """A kernel regression that keeps rows, tuned on at most ``TUNING_ROWS`` of them.

    Args:
        inputs: Of the rows, by name, (rows, width) each.
        known: Which of it is known, (rows, inputs).
        ids: The rows' ids.
        groups: The rows' groups.
        patterns: Observed sets to tune for, (patterns, inputs).
        most_rows: Rows to keep at most.
        seed: Decides which, with ``purpose``.
        purpose: What the regression is for.
        targets: Inputs to tune for as targets; all of them if None.
    """
    kept, tuned = (
        KernelConditional.keep(
            {name: value[drawn] for name, value in inputs.items()},
            known[drawn],
            [ids[row] for row in drawn.tolist()],
            [groups[row] for row in drawn.tolist()],
        )
        for drawn in (
            rows_drawn(ids, count, seed, purpose) for count in (most_rows, min(most_rows, TUNING_ROWS))
        )
    )
    tune_kernel(tuned, patterns, targets)
    kept.patterns, kept.lengths, kept.ridges = tuned.patterns, tuned.lengths, tuned.ridges
    kept.relevance = tuned.relevance
    return kept


def rows_drawn(ids: Sequence[str], count: int, seed: int, purpose: str) -> Tensor:
    """Up to ``count`` rows in their order, drawn by the seed; a smaller draw is a subset of a larger one."""
    drawn = np.argsort(np.array([derived_seed(seed, purpose, sample_id) for sample_id in ids]), kind="stable")
    return torch.from_numpy(np.sort(drawn[:count]))


def tune_kernel(
    model: KernelConditional,
    patterns: Bool[Tensor, "pattern modality"],
    targets: Sequence[str] | None = None,
) -> None:
    """Choose lengths, ridges and relevance by the leave-group-out error of kept rows.

    Args:
        model: The regression; its settings are replaced.
        patterns: Observed sets to choose for; any other set uses the settings of the most similar one.
        targets: Modalities to choose for; all of them if None.
    """
    wanted = [list(model.widths).index(name) for name in targets or model.widths]
    model.patterns = patterns.clone()
    model.lengths = torch.ones(patterns.shape)
    model.ridges = torch.ones(patterns.shape)
    model.relevance = torch.ones(*patterns.shape, len(model.widths))
    for row, pattern in enumerate(patterns):
        for columns in _targets_alike(model, pattern, wanted):
            errors = _own_group_errors(model, pattern, columns)
            best = errors.flatten(1).argmin(dim=1)
            model.lengths[row, columns] = torch.tensor(LENGTHS)[best // len(RIDGES)]
            model.ridges[row, columns] = torch.tensor(RIDGES)[best % len(RIDGES)]
            for column in columns if int(pattern.sum()) > 1 else ():
                _tune_relevance(model, row, column)
    for column in wanted:
        _spread_relevance(model, column)
    model.forget()


def _tune_relevance(model: KernelConditional, row: int, column: int) -> None:
    """Give modalities unequal relevance if that lowers a target's error by ``GAIN``.

    Searches one modality after the other on at most ``RELEVANCE_ROWS`` rows, then tunes the rest again.
    """
    pattern, target = model.patterns[row], list(model.widths)[column]
    known = model.known[:, column].nonzero().squeeze(1)
    known = known[torch.linspace(0, len(known) - 1, min(len(known), RELEVANCE_ROWS)).round().long()]
    rows = Rows(model.latents[known].double(), model.widths)
    distances, truth = squared_distances(rows, rows, pattern, model.spreads), rows.parts[target]
    groups = groups_by_size(model.groups[known])

    def error(relevance: Tensor, length: float, ridge: float) -> float:
        kernel = matern_kernel(distances, length, relevance)
        kernel.diagonal().add_(ridge)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(kernel))
        left = leave_group_out(inverse @ truth, groups, inverse.diagonal(), partial(blocks_of, inverse))
        return float(left.square().sum())

    settings = float(model.lengths[row, column]), float(model.ridges[row, column])
    alike = torch.ones(len(distances), dtype=torch.float64)
    first = error(alike, *settings)
    found, least = search_factors(
        alike,
        lambda relevance: error(relevance, *settings),
        step=STEP,
        gain=GAIN / 10,
        adjust=_most_relevant_at_one,
    )
    if least > first * (1 - GAIN):
        return
    model.relevance[row, column, pattern] = found.float()
    best = min(
        ((length, ridge) for length in LENGTHS for ridge in RIDGES),
        key=lambda pair: error(found, *pair),
    )
    model.lengths[row, column], model.ridges[row, column] = best


def _most_relevant_at_one(relevance: Tensor) -> Tensor | None:
    """Relevance relative to the largest; None if one falls below ``LEAST_RELEVANT``."""
    scaled = relevance / relevance.max()
    return None if float(scaled.min()) < LEAST_RELEVANT else scaled


def _spread_relevance(model: KernelConditional, column: int) -> None:
    """Give modalities outside an observed set their geometric mean relevance over the sets that hold them."""
    logs = model.relevance[:, column].log()
    held = model.patterns & ~model.patterns[:, column : column + 1]
    average = (logs * held).sum(dim=0) / held.sum(dim=0).clamp(min=1)
    model.relevance[:, column] = torch.where(held, logs, average).exp()


def _targets_alike(model: KernelConditional, pattern: Tensor, wanted: Sequence[int]) -> list[list[int]]:
    """Groups of missing targets that the same rows know: each group shares its kernels."""
    alike: dict[bytes, list[int]] = {}
    for column in wanted:
        if not pattern[column] and pattern.any() and model.known[:, column].any():
            alike.setdefault(model.known[:, column].numpy().tobytes(), []).append(column)
    return list(alike.values())


def _own_group_errors(model: KernelConditional, pattern: Tensor, columns: list[int]) -> Tensor:
    """Leave-group-out squared errors, (targets, lengths, ridges)."""
    known = model.known[:, columns[0]]
    rows, names = model.references(known), list(model.widths)
    truths = [rows.parts[names[column]] for column in columns]
    groups = groups_by_size(model.groups[known])
    distances = squared_distances(rows, rows, pattern, model.spreads)
    errors = torch.zeros(len(columns), len(LENGTHS), len(RIDGES), dtype=torch.float64)
    for place, length in enumerate(LENGTHS):
        values, vectors = torch.linalg.eigh(matern_kernel(distances, length))
        turned = [vectors.T @ truth for truth in truths]
        for index, ridge in enumerate(RIDGES):
            inverse = 1 / (values.clamp(min=0) + ridge)
            duals = [vectors @ (inverse.unsqueeze(1) * part) for part in turned]
            blocks = partial(_blocks_of_inverse, vectors, inverse)
            left = leave_group_out(torch.cat(duals, dim=1), groups, vectors.square() @ inverse, blocks)
            parts = torch.split(left, [dual.shape[1] for dual in duals], dim=1)
            errors[:, place, index] = torch.stack([part.square().sum() for part in parts])
    return errors


def _blocks_of_inverse(vectors: Tensor, values: Tensor, rows: Tensor) -> Tensor:
    """The inverse from eigenvectors and eigenvalues, restricted to the rows of each group."""
    of_rows = vectors[rows]
    return (of_rows * values) @ of_rows.mT


def search_factors(
    start: Tensor,
    error: Callable[[Tensor], float],
    *,
    step: float,
    gain: float,
    adjust: Callable[[Tensor], Tensor | None] = lambda factors: factors,
) -> tuple[Tensor, float]:
    """Coordinate search: multiply or divide one factor at a time until no step lowers the error.

    Args:
        start: The factors to start from, above zero.
        error: The error to minimise.
        step: What a factor is multiplied or divided by.
        gain: Relative fall of the error that a step must bring.
        adjust: Normalises changed factors; returns None if they aren't allowed.

    Returns:
        The factors and their error.
    """
    found, least, moved = start, error(start), True
    while moved:
        moved = False
        for place in range(len(found)):
            for factor in (1 / step, step):
                changed = found.clone()
                changed[place] *= factor
                tried = adjust(changed)
                if tried is not None and (lower := error(tried)) < least * (1 - gain):
                    found, least, moved = tried, lower, True
    return found, least
