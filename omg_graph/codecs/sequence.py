"""Sequences: the codec of frames that share their features, some of them past the end or lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from omg_graph.codecs.codec import CLIP, Rows, VectorCodec, part_of
from omg_graph.codecs.frame_fitting import couple, fit_frame_filler
from omg_graph.codecs.frames import FrameFiller
from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, ModalitySpec

WINDOWS = 4


@dataclass(frozen=True)
class SequenceCodec(VectorCodec):
    """(frames, features): all frames share mean and deviation; lost frames are filled before encoding."""

    filler: FrameFiller | None = None
    """Fills lost frames; if None (a single frame, or a model without), lost frames are interpolated."""

    @staticmethod
    def there(spec: ModalitySpec, rows: Rows) -> BoolArray:
        """(samples, frames): within the length and not lost."""
        frames = spec.shape[0]
        if rows.lengths is None:
            inside = np.ones((len(rows), frames), dtype=np.bool_)
        else:
            inside = np.asarray(np.arange(frames)[None] < np.asarray(rows.lengths)[:, None])
        return inside if rows.lost is None else inside & ~rows.lost

    def with_filler(self, rows: Rows, groups: Sequence[str], seed: int) -> Self:
        """The codec with a frame filler, even if no training frame is lost."""
        if self.spec.shape[0] == 1:
            return self
        filler = fit_frame_filler(self.spec, self._limited(rows), rows.lost, rows.lengths, groups, seed)
        return replace(self, filler=filler)

    def coupled(
        self,
        rows: Rows,
        latents: Mapping[str, FloatArray],
        observed: BoolArray,
        groups: Sequence[str],
        seed: int,
    ) -> Self:
        """See ``Codec.coupled``."""
        if self.filler is None:
            return self
        standard = self._limited(rows)
        filler = couple(self.filler, standard, rows.lost, rows.lengths, latents, observed, groups, seed)
        return replace(self, filler=filler)

    def _limited(self, rows: Rows) -> FloatArray:
        limited: FloatArray = np.clip(self.standard(rows), -CLIP, CLIP)
        return limited

    @property
    def _fills(self) -> FrameFiller:
        return self.filler or FrameFiller.interpolating(self.spec)

    def inputs(self, rows: Rows) -> FloatArray:
        """See ``Codec.inputs``; uses its own frames alone, because another modality may be the target."""
        limited = self._limited(rows)
        return limited if rows.lost is None else self._fills.fill(limited, rows.lost, rows.lengths)

    def cut(self, standard: FloatArray, lengths: IntArray | None) -> FloatArray:
        """See ``Codec.cut``."""
        if lengths is None:
            return standard
        shaped = standard.reshape(len(standard), *self.spec.shape)
        inside = self.there(self.spec, Rows(shaped, lengths))
        return (shaped * inside[..., None]).reshape(standard.shape)

    def filled(
        self, rows: Rows, latents: Mapping[str, FloatArray], observed: Mapping[str, BoolArray]
    ) -> FloatArray:
        """See ``Codec.filled``."""
        if rows.lost is None:
            return rows.array
        filler, prior = self._fills, None
        if filler.names:
            seen = np.stack([observed[other] for other in filler.names], axis=1)
            prior = filler.prior({other: latents[other] for other in filler.names}, seen)
        filled = self.restore(filler.fill(self._limited(rows), rows.lost, rows.lengths, prior))
        return np.where(rows.lost[..., None], filled, rows.array)

    def filling(self) -> dict[str, float] | None:
        """Held-out errors of filling and of interpolation, 1 for the training mean."""
        filler = self.filler
        if filler is None or math.isnan(filler.error):
            return None if filler is None else {}
        return {
            "factors": filler.components.shape[1],
            "error": round(filler.error, 4),
            "interpolation": round(filler.interpolation_error, 4),
        }

    @staticmethod
    def low_level(
        spec: ModalitySpec, standard: Float[Tensor, "batch size"]
    ) -> Float[Tensor, "batch feature"]:
        """Mean, deviation and mean absolute difference of up to four windows; a single frame as it is."""
        if spec.shape[0] == 1:
            return standard
        parts = []
        shaped = standard.reshape(len(standard), *spec.shape)
        for window in shaped.tensor_split(min(WINDOWS, spec.shape[0]), dim=1):
            parts += [window.mean(1), (window.var(1, unbiased=False) + 1e-6).sqrt()]
            steps = window.diff(dim=1).abs()
            parts.append(steps.mean(1) if steps.shape[1] else torch.zeros_like(window[:, 0]))
        return torch.cat(parts, dim=1)

    @staticmethod
    def summary(rows: Rows) -> FloatArray:
        """The mean over observed frames."""
        frames = rows.array.shape[1]
        there = np.full(len(rows), frames) if rows.lengths is None else np.clip(rows.lengths, 1, frames)
        kept = np.arange(frames)[None] < there[:, None]
        if rows.lost is not None:
            kept &= ~rows.lost
        counts = np.maximum(kept.sum(axis=1), 1)
        return np.asarray((rows.array * kept[..., None]).sum(axis=1) / counts[:, None], dtype=np.float32)

    def state(self) -> dict[str, Tensor]:
        """See ``Codec.state``."""
        tensors = {} if self.filler is None else self.filler.tensors()
        return super().state() | {f"frames/{key}": value for key, value in tensors.items()}

    @classmethod
    def load(cls, spec: ModalitySpec, state: Mapping[str, Tensor], others: Sequence[str]) -> Self:
        """See ``Codec.load``."""
        codec, kept = super().load(spec, state, others), part_of(state, "frames")
        return replace(codec, filler=FrameFiller.of_tensors(spec, kept, others)) if kept else codec
