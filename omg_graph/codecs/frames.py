"""Lost frames of a sequence, filled from its other frames and from other modalities.

A lost frame is neither zero nor the mean of its neighbours: a linear-Gaussian factor model of the whole
sequence is conditioned on the frames that are there, and what it leaves on them is interpolated.
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
"""Distances to the nearest frame that is there, which have weights of their own; one more is beyond them."""


@dataclass(frozen=True)
class FramePrior:
    """What other modalities say of a sequence's factors."""

    mean: Matrix
    """(samples, factors)."""
    covariance: Matrix
    """(samples, factors, factors)."""


@dataclass(frozen=True)
class FrameFiller:
    """A factor model of one sequence modality in flattened standard units.

    x = V f + e with f ~ N(0, diag(variances)) and e ~ N(0, diag(noise)); frames past a sequence's length are
    no data, like lost ones. A lost frame is a V E[f | frames that are there] + b times what the model leaves
    on the nearest frames to both sides, linearly interpolated. a and b lie between 0 and 1, fitted on
    held-out frames by the distance to the nearest. With no factors and b = 1 that is plain interpolation,
    with both zero the training mean.
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
    """Of the coupling to the other modalities; 0 where there is none."""
    spread: float = 1.0
    """How many times as uncertain as the coupling says it is it was on held-out rows, as a variance."""
    names: tuple[str, ...] = ()
    """The other modalities of the coupling, in order."""
    widths: tuple[int, ...] = ()
    mean: Matrix = field(default_factory=lambda: np.zeros(0))
    """Of factors and the other modalities' latents side by side, as for their covariance."""
    covariance: Matrix = field(default_factory=lambda: np.zeros((0, 0)))
    error: float = math.nan
    """On held-out frames, over their squared deviation from the training mean: 1 for filling with that."""
    interpolation_error: float = math.nan
    """The same of plain interpolation."""

    @classmethod
    def interpolating(cls, spec: ModalitySpec) -> FrameFiller:
        """One that knows nothing of the modality: linear interpolation, and the nearest frame at the ends."""
        weights = np.tile([0.0, 1.0], (len(NEAR) + 1, 1))
        return cls(spec, np.zeros((spec.size, 0)), np.zeros(0), np.ones(spec.size), weights)

    def prior(self, latents: Mapping[str, FloatArray], observed: BoolArray) -> FramePrior | None:
        """What other modalities say of the factors; None where the filler is not coupled.

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
        """What ``tensors`` took apart; ``others`` are the model's other modalities, in order."""
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
        """(samples, frames * features) with lost frames filled and all others as they were.

        Args:
            standard: Flattened standard units, zeros in lost and padded frames.
            lost: (samples, frames); a row has some frame that isn't.
            lengths: (samples,), for padded sequences.
            prior: What other modalities say.
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
        """Conditional mean, interpolated remainder and distance of every frame."""
        conditional = self.factors(rows, prior) @ self.components.T
        left, right, share, distance = _neighbours(rows.there)
        remainder = as_frames(rows.values - conditional, self.spec)
        index = np.arange(len(remainder))[:, None]
        between = (1 - share)[..., None] * remainder[index, left] + share[..., None] * remainder[index, right]
        return conditional, between.reshape(conditional.shape), distance

    def factors(self, rows: SequenceRows, prior: FramePrior | None) -> Matrix:
        """E[f | the frames that are there], (samples, factors)."""
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
    """Sequences in flattened standard units, with what of them is there."""

    spec: ModalitySpec
    values: Matrix
    """(samples, frames * features), zeros where nothing is there."""
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
        """With nothing lost, or as long as the modality, where that isn't given."""
        count, frames = len(standard), spec.shape[0]
        gone = np.zeros((count, frames), bool) if lost is None else lost
        there = np.full(count, frames, np.int64) if lengths is None else lengths
        return cls(spec, standard.astype(np.float64), gone, there)

    def take(self, rows: IntArray) -> SequenceRows:
        """The given rows, in the given order."""
        return SequenceRows(self.spec, self.values[rows], self.lost[rows], self.lengths[rows])

    def with_gaps(self, rng: np.random.Generator) -> SequenceRows:
        """About a third of the frames lost besides, in runs; one frame of each row stays."""
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
    """For every frame the nearest ones that are there to both sides, the right one's share, the distance.

    At the ends both are the only one there is.
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
