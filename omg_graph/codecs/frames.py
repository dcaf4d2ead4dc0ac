"""Lost frames of a sequence, filled from its other frames and from other modalities.

A linear-Gaussian factor model of the whole sequence is conditioned on the observed frames, and its residuals
on them are interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, ModalitySpec

Matrix = npt.NDArray[np.float64]

NEAR = (1, 2, 4)
"""Distances to the nearest observed frame that have their own weights; larger ones share one more."""


@dataclass(frozen=True)
class FramePrior:
    """The distribution of a sequence's factors given other modalities."""

    mean: Matrix
    """(samples, factors)."""
    covariance: Matrix
    """(samples, factors, factors)."""


@dataclass(frozen=True)
class FrameFiller:
    """A factor model of one sequence modality in flattened standard units.

    x = V f + e with f ~ N(0, diag(variances)) and e ~ N(0, diag(noise)); frames past a sequence's length are
    treated like lost ones. The estimate of a lost frame is a V E[f | observed frames] + b r, where r is the
    residual of the nearest observed frames on both sides, linearly interpolated. a and b lie between 0 and 1
    and are fitted on held-out frames for each distance to the nearest observed one. No factors and b = 1 give
    plain interpolation; a = b = 0 gives the training mean.
    """

    spec: ModalitySpec
    components: Matrix
    """V, (frames * features, factors)."""
    variances: Matrix
    """(factors,)."""
    noise: Matrix
    """(frames * features,)."""
    weights: Matrix
    """(distances, 2): a and b."""
    ridge: float = 0.0
    """Ridge of the coupling to the other modalities; 0 without a coupling."""
    spread: float = 1.0
    """Ratio of held-out to predicted variance of the coupling."""
    names: tuple[str, ...] = ()
    """The other modalities of the coupling, in order."""
    widths: tuple[int, ...] = ()
    mean: Matrix = field(default_factory=lambda: np.zeros(0))
    """Joint mean of factors and the other modalities' latents, in the order of the covariance."""
    covariance: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    error: float = math.nan
    """Squared error on held-out frames, relative to filling with the training mean."""
    interpolation_error: float = math.nan
    """The same for plain interpolation."""

    @classmethod
    def interpolating(cls, spec: ModalitySpec) -> FrameFiller:
        """A filler that isn't fitted: linear interpolation, and the nearest frame at the ends."""
        weights = np.tile([0.0, 1.0], (len(NEAR) + 1, 1))
        return cls(spec, np.zeros((spec.size, 0)), np.zeros(0), np.ones(spec.size), weights)

    def prior(self, latents: Mapping[str, FloatArray], observed: BoolArray) -> FramePrior | None:
        """The factors' distribution given other modalities; None if the filler is not coupled.

        Args:
            latents: The other modalities' latents, by name, (samples, latent).
            observed: (samples, other modalities), in the order of ``names``.
        """
        if not self.ridge:
            return None
        factors = self.components.shape[1]
        x = np.concatenate([latents[name].astype(np.float64) for name in self.names], axis=1)
        mean = np.tile(self.mean[:factors], (len(x), 1))
        covariance = np.tile(self.covariance[:factors, :factors], (len(x), 1, 1))
        patterns, group = np.unique(observed, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            if not pattern.any():
                continue
            rows = np.flatnonzero(group.ravel() == number)
            given = np.flatnonzero(np.repeat(pattern, self.widths))
            inner = self.covariance[np.ix_(factors + given, factors + given)]
            cross = self.covariance[factors + given, :factors]
            gain = np.linalg.solve(inner + self.ridge * np.eye(len(given)), cross)
            mean[rows] += (x[np.ix_(rows, given)] - self.mean[factors + given]) @ gain
            covariance[rows] -= cross.T @ gain
        return FramePrior(mean, covariance * self.spread)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Everything but the modality's shape and the other modalities' names, for a model's folder."""
        numbers = {
            "components": self.components,
            "variances": self.variances,
            "noise": self.noise,
            "weights": self.weights,
            "mean": self.mean,
            "covariance": self.covariance,
        }
        return {name: torch.from_numpy(value.astype(np.float32)) for name, value in numbers.items()} | {
            "coupling": torch.tensor([self.ridge, self.spread], dtype=torch.float64),
            "errors": torch.tensor([self.error, self.interpolation_error], dtype=torch.float64),
            "widths": torch.tensor(self.widths, dtype=torch.int64),
        }

    @classmethod
    def of_tensors(
        cls, spec: ModalitySpec, tensors: Mapping[str, torch.Tensor], others: Sequence[str]
    ) -> FrameFiller:
        """The filler from ``tensors``; ``others`` are the model's other modalities, in order."""
        widths = tuple(int(width) for width in tensors["widths"])
        numbers = {
            name: tensors[name].double().numpy()
            for name in ("components", "variances", "noise", "weights", "mean", "covariance")
        }
        ridge, spread = tensors["coupling"].tolist()
        error, interpolation_error = tensors["errors"].tolist()
        return cls(
            spec,
            **numbers,
            ridge=ridge,
            spread=spread,
            names=tuple(others) if widths else (),
            widths=widths,
            error=error,
            interpolation_error=interpolation_error,
        )

    def fill(
        self,
        standard: FloatArray,
        lost: BoolArray,
        lengths: IntArray | None,
        prior: FramePrior | None = None,
    ) -> FloatArray:
        """(samples, frames * features) with lost frames filled and all others unchanged.

        Args:
            standard: Flattened standard units, zeros in lost and padded frames.
            lost: (samples, frames); each row has at least one frame that isn't lost.
            lengths: (samples,), for padded sequences.
            prior: The factors' distribution given other modalities.
        """
        rows = np.flatnonzero(lost.any(axis=1))
        out = standard.copy()
        if len(rows):
            some = SequenceRows.of(self.spec, standard, lost, lengths).take(rows)
            few = None if prior is None else FramePrior(prior.mean[rows], prior.covariance[rows])
            filled = self._filled(some, few)
            gone = np.repeat(some.lost, self.spec.shape[1], axis=1)
            out[rows] = np.where(gone, filled, standard[rows]).astype(np.float32)
        return out

    def _filled(self, rows: SequenceRows, prior: FramePrior | None = None) -> Matrix:
        conditional, remainder, distance = self.parts(rows, prior)
        weight = np.repeat(self.weights[np.searchsorted(NEAR, distance)], self.spec.shape[1], axis=1)
        gone = np.repeat(rows.lost, self.spec.shape[1], axis=1)
        return np.where(gone, weight[..., 0] * conditional + weight[..., 1] * remainder, rows.values)

    def parts(self, rows: SequenceRows, prior: FramePrior | None = None) -> tuple[Matrix, Matrix, IntArray]:
        """Conditional mean, interpolated residual and distance of every frame."""
        conditional = self.factors(rows, prior) @ self.components.T
        left, right, share, distance = _neighbours(rows.there)
        remainder = as_frames(rows.values - conditional, self.spec)
        index = np.arange(len(remainder))[:, None]
        between = (1 - share)[..., None] * remainder[index, left] + share[..., None] * remainder[index, right]
        return conditional, between.reshape(conditional.shape), distance

    def factors(self, rows: SequenceRows, prior: FramePrior | None) -> Matrix:
        """E[f | observed frames], (samples, factors)."""
        weighed = self.components / self.noise[:, None]
        whole, moment = self.components.T @ weighed, rows.values @ weighed
        out = np.zeros((len(rows.values), len(self.variances)))
        plain = np.diag(1.0 / self.variances)
        patterns, group = np.unique(~rows.there, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            gone = np.repeat(pattern, self.spec.shape[1])
            gram = whole - self.components[gone].T @ weighed[gone]
            alike = np.flatnonzero(group.ravel() == number)
            if prior is None:
                out[alike] = np.linalg.solve(gram + plain, moment[alike].T).T
                continue
            for row in alike:
                tight = np.linalg.inv(prior.covariance[row] + 1e-6 * np.diag(self.variances))
                out[row] = np.linalg.solve(gram + tight, moment[row] + tight @ prior.mean[row])
        return out


@dataclass(frozen=True)
class SequenceRows:
    """Sequences in flattened standard units, with masks of their observed frames."""

    spec: ModalitySpec
    values: Matrix
    """(samples, frames * features), zeros in lost and padded frames."""
    lost: BoolArray
    """(samples, frames)."""
    lengths: IntArray

    @property
    def there(self) -> BoolArray:
        """(samples, frames): neither lost nor past the length."""
        return ~self.lost & (np.arange(self.spec.shape[0])[None] < self.lengths[:, None])

    @classmethod
    def of(
        cls, spec: ModalitySpec, standard: FloatArray, lost: BoolArray | None, lengths: IntArray | None
    ) -> SequenceRows:
        """Rows from arrays; by default no frame is lost, and all sequences have full length."""
        count, frames = len(standard), spec.shape[0]
        gone = np.zeros((count, frames), bool) if lost is None else lost
        there = np.full(count, frames, np.int64) if lengths is None else lengths
        return cls(spec, standard.astype(np.float64), gone, there)

    def take(self, rows: IntArray) -> SequenceRows:
        """The given rows, in the given order."""
        return SequenceRows(self.spec, self.values[rows], self.lost[rows], self.lengths[rows])

    def with_gaps(self, rng: np.random.Generator) -> SequenceRows:
        """The rows with about a third more of the frames lost, in runs; each row keeps at least one frame."""
        frames = self.spec.shape[0]
        starts = rng.random(self.lost.shape) < 0.15
        runs = rng.geometric(0.4, self.lost.shape)
        lost = self.lost.copy()
        for row, start in np.argwhere(starts):
            lost[row, start : start + runs[row, start]] = True
        inside = np.arange(frames)[None] < self.lengths[:, None]
        for row in np.flatnonzero(~(inside & ~lost).any(axis=1)):
            there = np.flatnonzero(inside[row] & ~self.lost[row])
            lost[row, rng.choice(there)] = False
        lost &= inside
        values = self.values * ~np.repeat(lost, self.spec.shape[1], axis=1)
        return replace(self, values=values, lost=lost)


def _neighbours(there: BoolArray) -> tuple[IntArray, IntArray, Matrix, IntArray]:
    """For every frame: the nearest observed frames on both sides, the right one's weight, and the distance.

    At the ends, both are the same frame.
    """
    frames = there.shape[1]
    place = np.broadcast_to(np.arange(frames), there.shape)
    left = np.maximum.accumulate(np.where(there, place, -1), axis=1)
    right = np.minimum.accumulate(np.where(there, place, frames)[:, ::-1], axis=1)[:, ::-1]
    only_right, only_left = left < 0, right >= frames
    left, right = np.where(only_right, right, left), np.where(only_left, left, right)
    left, right = np.clip(left, 0, frames - 1), np.clip(right, 0, frames - 1)
    span = np.maximum(right - left, 1)
    share = np.clip((place - left) / span, 0.0, 1.0)
    distance = np.minimum(np.abs(place - left), np.abs(right - place))
    return left, right, share, distance


def as_frames(flat: Matrix, spec: ModalitySpec) -> Matrix:
    """(samples, frames, features)."""
    return flat.reshape(len(flat), *spec.shape)
