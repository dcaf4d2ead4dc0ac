"""Features in standard units: zero mean and unit deviation on the training rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, ModalitySpec

CLIP = 10.0
"""Observed features are limited to this many training deviations before any model sees them."""


@dataclass(frozen=True)
class Standardiser:
    """Mean and deviation of each feature; sequences share them over frames."""

    spec: ModalitySpec
    mean: npt.NDArray[np.float32]
    """Broadcastable to one sample's shape: (D,) for vectors and sequences, the image's shape for images."""
    deviation: npt.NDArray[np.float32]
    """1 where a feature is constant in training."""
    varies: npt.NDArray[np.bool_]
    """False where a feature is constant in training: such features are left out of every metric."""

    @classmethod
    def fit(
        cls,
        spec: ModalitySpec,
        array: FloatArray,
        observed: BoolArray,
        lengths: IntArray | None = None,
        lost: BoolArray | None = None,
    ) -> Standardiser:
        """Fit on the rows that are really there.

        Args:
            spec: The modality.
            array: (samples, *shape).
            observed: (samples,).
            lengths: (samples,), frames that count, for padded sequences.
            lost: (samples, frames), frames that don't.
        """
        rows = array[observed].astype(np.float64)
        if spec.kind == "sequence":
            rows = rows[frame_mask(spec, len(array), lengths, lost)[observed]]
        mean = rows.mean(axis=0)
        spread = rows.std(axis=0)
        # relative to the mean, so that features in small units (volts, tesla) aren't taken for constants
        varies = spread > np.maximum(1e-6 * np.abs(mean), 1e-30)
        deviation = np.where(varies, spread, 1.0)
        return cls(spec, mean.astype(np.float32), deviation.astype(np.float32), varies)

    def standard(
        self, array: FloatArray, lengths: IntArray | None = None, lost: BoolArray | None = None
    ) -> FloatArray:
        """(samples, size): flattened standard units, padded and lost frames at zero."""
        standard = (array - self.mean) / self.deviation
        if self.spec.kind == "sequence":
            standard = standard * frame_mask(self.spec, len(array), lengths, lost)[..., None]
        flat: FloatArray = standard.reshape(len(array), -1).astype(np.float32)
        return flat

    def apply(
        self, array: FloatArray, lengths: IntArray | None = None, lost: BoolArray | None = None
    ) -> FloatArray:
        """Like ``standard``, limited to ``CLIP`` deviations: what models see."""
        limited: FloatArray = np.clip(self.standard(array, lengths, lost), -CLIP, CLIP)
        return limited

    def invert(self, standard: FloatArray) -> FloatArray:
        """(samples, *shape) in the input's units, from flattened standard units."""
        shaped = standard.reshape(len(standard), *self.spec.shape)
        return np.asarray(shaped * self.deviation + self.mean, dtype=np.float32)

    def scored(
        self, samples: int, lengths: IntArray | None = None, lost: BoolArray | None = None
    ) -> BoolArray:
        """(samples, size): which flattened features count in a metric; those of lost frames don't."""
        varies = np.broadcast_to(self.varies, self.spec.shape)
        mask = np.broadcast_to(varies, (samples, *self.spec.shape))
        if self.spec.kind == "sequence":
            mask = mask & frame_mask(self.spec, samples, lengths, lost)[..., None]
        return np.ascontiguousarray(mask.reshape(samples, -1))


def frame_mask(
    spec: ModalitySpec, samples: int, lengths: IntArray | None, lost: BoolArray | None = None
) -> BoolArray:
    """(samples, frames): True for frames within the length that aren't lost."""
    frames = spec.shape[0]
    if lengths is None:
        inside = np.ones((samples, frames), dtype=np.bool_)
    else:
        inside = np.asarray(np.arange(frames)[None] < np.asarray(lengths)[:, None])
    return inside if lost is None else inside & ~lost
