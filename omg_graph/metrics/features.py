"""Metrics of reconstructed features: squared error, the fair energy score and the coverage of draws.

All of them work on standardised, flattened features of one modality, with a mask of those that count:
features constant in training, padded frames and slots whose truth isn't known are left out of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omg_graph.data.dataset import BoolArray
from omg_graph.errors import ConfigError, DataError
from omg_graph.metrics.labels import Numbers

DRAWS_FOR_90 = 19
"""Their smallest and largest enclose an exchangeable truth with probability 18/20."""


@dataclass(frozen=True)
class PooledRatio:
    """A sum over a sum, kept per sample so that it can be resampled or pooled."""

    numerator: Numbers
    """(samples,)."""
    denominator: Numbers
    """(samples,)."""

    @property
    def value(self) -> float | None:
        """The ratio over all samples; None where nothing was scored."""
        below = float(self.denominator.sum())
        return float(self.numerator.sum()) / below if below > 0 else None

    def take(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> PooledRatio:
        """The given samples, repeated ones counted as often as they come."""
        index = np.asarray(rows, np.int64)
        return PooledRatio(self.numerator[index], self.denominator[index])


def normalised_squared_error(
    estimate: npt.ArrayLike,
    truth: npt.ArrayLike,
    scored: BoolArray | None = None,
    training_mean: npt.ArrayLike = 0.0,
) -> PooledRatio:
    """Sum of squared errors over sum of squared deviations from the training mean: 1 for mean filling.

    Args:
        estimate: (samples, features), standardised; anything where not scored, NaN included.
        truth: (samples, features), standardised likewise.
        scored: (samples, features), which of them count; all of them by default.
        training_mean: broadcastable to (samples, features); 0 where standardising took it off.

    Returns:
        Squared errors and squared deviations, summed over each sample's scored features.

    Raises:
        DataError: if shapes differ, or a scored feature isn't finite.
    """
    truths, mask = _truth_and_mask(truth, scored)
    estimates = _like(estimate, truths.shape, mask, "the estimate")
    mean = np.broadcast_to(np.asarray(training_mean, np.float64), truths.shape)
    error = np.where(mask, estimates - truths, 0.0)
    deviation = np.where(mask, truths - mean, 0.0)
    return PooledRatio(np.square(error).sum(axis=1), np.square(deviation).sum(axis=1))


def energy_scores(draws: npt.ArrayLike, truth: npt.ArrayLike, scored: BoolArray | None = None) -> Numbers:
    """The fair energy score of each sample: lower is better, and fair whatever the number of draws.

    mean_i |x_i - y| - sum over i != j of |x_i - x_j| / (2 m (m - 1)), with Euclidean distances.

    Args:
        draws: (samples, draws, features), standardised, at least two draws.
        truth: (samples, features).
        scored: (samples, features), which of them count; all of them by default.

    Returns:
        (samples,), NaN where no feature of a sample is scored: average with ``mean_of_known``.

    Raises:
        DataError: if shapes differ, or a scored feature isn't finite.
        ConfigError: if there are fewer than two draws.
    """
    truths, mask = _truth_and_mask(truth, scored)
    drawn = _draws_like(draws, truths, mask)
    count = drawn.shape[1]
    if count < 2:
        raise ConfigError(f"expected two or more draws for an energy score, got {count}: draw more")
    to_truth = np.zeros(len(truths))
    between = np.zeros(len(truths))
    for draw in range(count):
        to_truth += np.linalg.norm(drawn[:, draw] - truths, axis=1)
        between += np.linalg.norm(drawn[:, draw + 1 :] - drawn[:, draw, None], axis=2).sum(axis=1)
    # Each pair was met once of its two times.
    score = to_truth / count - between / (count * (count - 1))
    return np.where(mask.any(axis=1), score, np.nan)


def frechet_distance(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """The Fréchet distance of the Gaussians fitted to two sets of vectors, (rows, width) each.

    |m - n|^2 + tr(C + D - 2 (C D)^(1/2)) with means m, n and covariances C, D (Dowson and Landau 1982). It is
    zero for equal sets, and grows with a difference in spread as in place, unlike an error.
    """
    one, other = np.asarray(left, np.float64), np.asarray(right, np.float64)
    first, second = (np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (one, other))
    root = np.sqrt(np.linalg.eigvals(first @ second).real.clip(min=0)).sum()
    apart = float(np.square(one.mean(axis=0) - other.mean(axis=0)).sum())
    return float(apart + np.trace(first) + np.trace(second) - 2 * root)


def mean_of_known(numbers: Numbers) -> float | None:
    """The mean of the numbers that aren't NaN; None if there are none."""
    known = numbers[~np.isnan(numbers)]
    return float(known.mean()) if len(known) else None


def coverage90(draws: npt.ArrayLike, truth: npt.ArrayLike, scored: BoolArray | None = None) -> PooledRatio:
    """The share of features between the smallest and largest of 19 draws: 0.9 when they are calibrated.

    Args:
        draws: (samples, 19, features), in any units that draws and truth share.
        truth: (samples, features).
        scored: (samples, features), which of them count; all of them by default.

    Returns:
        Features covered and features scored, for each sample.

    Raises:
        DataError: if shapes differ, or a scored feature isn't finite.
        ConfigError: if there aren't 19 draws: with another number the same range means another coverage.
    """
    truths, mask = _truth_and_mask(truth, scored)
    drawn = _draws_like(draws, truths, mask)
    if drawn.shape[1] != DRAWS_FOR_90:
        raise ConfigError(
            f"expected {DRAWS_FOR_90} draws for a 90 % interval, got {drawn.shape[1]}: draw {DRAWS_FOR_90}"
        )
    covered = mask & (drawn.min(axis=1) <= truths) & (truths <= drawn.max(axis=1))
    return PooledRatio(covered.sum(axis=1).astype(np.float64), mask.sum(axis=1).astype(np.float64))


def _truth_and_mask(truth: npt.ArrayLike, scored: BoolArray | None) -> tuple[Numbers, BoolArray]:
    """Truth with zeros where it isn't scored, so that all that is computed there cancels."""
    truths = np.asarray(truth, np.float64)
    if truths.ndim != 2:
        raise DataError(f"expected a truth of shape (samples, features), got {truths.shape}: flatten it")
    mask = np.ones(truths.shape, np.bool_) if scored is None else np.asarray(scored, np.bool_)
    if mask.shape != truths.shape:
        raise DataError(f"expected a mask of shape {truths.shape}, got {mask.shape}: one entry a feature")
    return _like(truths, truths.shape, mask, "the truth"), mask


def _like(values: npt.ArrayLike, shape: tuple[int, ...], mask: BoolArray, what: str) -> Numbers:
    numbers = np.asarray(values, np.float64)
    if numbers.shape != shape:
        raise DataError(f"{what}: expected shape {shape}, got {numbers.shape}: flatten it like the truth")
    kept = np.where(mask, numbers, 0.0)
    if not np.isfinite(kept).all():
        raise DataError(
            f"{what}: expected finite numbers where features are scored, got NaN or infinity: "
            "leave these out of the mask"
        )
    return np.asarray(kept, np.float64)


def _draws_like(draws: npt.ArrayLike, truths: Numbers, mask: BoolArray) -> Numbers:
    drawn = np.asarray(draws, np.float64)
    if drawn.ndim != 3:
        raise DataError(f"expected draws of shape (samples, draws, features), got {drawn.shape}")
    samples, features = truths.shape
    wide = np.broadcast_to(mask[:, None], (samples, drawn.shape[1], features))
    return _like(drawn, (samples, drawn.shape[1], features), wide, "the draws")
