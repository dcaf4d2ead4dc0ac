"""Images: the codec of a grid of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from omg_graph.codecs.autoencoder import AutoencoderSettings, PrincipalComponents
from omg_graph.codecs.codec import ON_THE_CPU, Rows, Training
from omg_graph.codecs.convolution import Shape, low_level_features
from omg_graph.codecs.grid import GridCodec
from omg_graph.codecs.rendering import Pixels, Rendering
from omg_graph.data.dataset import FloatArray, ModalitySpec
from omg_graph.data.media import image_bytes

LOW_LEVEL_GRID, SUMMARY_GRID = 16, 4
SPREAD_SHOWN = 2.0
"""Deviations around the mean that are shown where the range in training isn't known."""


@dataclass(frozen=True)
class ImageCodec(GridCodec):
    """(height, width) or (channels, height, width).

    With a convolutional autoencoder all pixels of a channel share one deviation; with PCA each has its own.
    """

    low: float = float("nan")
    high: float = float("nan")
    """The range of pixels in training, which pictures show."""

    @staticmethod
    def grid(spec: ModalitySpec) -> tuple[Shape, int]:
        """The image itself."""
        height, width = spec.shape[-2:]
        return (spec.shape[0] if len(spec.shape) == 3 else 1, height, width), 0

    @classmethod
    def fit(
        cls,
        spec: ModalitySpec,
        rows: Rows,
        groups: Sequence[str],
        settings: AutoencoderSettings,
        seed: int,
        training: Training = ON_THE_CPU,
    ) -> Self:
        """See ``Codec.fit``."""
        low, high = float(rows.array.min()), float(rows.array.max())
        if not settings.learns_grid(len(rows)) or not high > low:
            codec = super().fit(spec, rows, groups, settings, seed, training)
            return replace(codec, low=low, high=high)
        shape, _ = cls.grid(spec)
        pixels = rows.array.reshape(len(rows), *shape).astype(np.float64)
        mean, variance = pixels.mean(axis=0), pixels.var(axis=0)
        spread = np.sqrt(variance.mean(axis=(1, 2), keepdims=True))
        deviation = np.broadcast_to(np.where(spread > 1e-6 * (high - low), spread, 1.0), mean.shape)
        varies = np.sqrt(variance) > 1e-6 * (high - low)
        codec = cls(
            spec,
            mean.reshape(spec.shape).astype(np.float32),
            deviation.reshape(spec.shape).astype(np.float32),
            varies.reshape(spec.shape),
            PrincipalComponents(spec.size, 0),
            1.0,
            low,
            high,
        )
        base, gain = (mean - low) / (high - low), deviation / (high - low)
        width = settings.grid.image_width
        return codec.learned(rows, base, gain, settings, seed, training, width=width, pictures=True)

    def pictures(self, standard: FloatArray) -> Pixels | None:
        """See ``Codec.pictures``; grey with one channel, in colour with three, else the channels' mean."""
        return self._pixels(self.restore(standard))

    def _pixels(self, samples: FloatArray) -> Pixels:
        low, high = self.low, self.high
        if not high > low:
            low = float((self.mean - SPREAD_SHOWN * self.deviation).min())
            high = float((self.mean + SPREAD_SHOWN * self.deviation).max())
        levels = np.clip((samples - low) / (high - low), 0.0, 1.0)
        if levels.ndim == 4:
            levels = levels.transpose(0, 2, 3, 1) if levels.shape[1] == 3 else levels.mean(axis=1)
        return np.asarray(np.round(255 * levels), dtype=np.uint8)

    def render(self, sample: FloatArray, length: int | None) -> Rendering | None:  # noqa: ARG002
        """See ``Codec.render``: a PNG file, pixels in training's range."""
        picture = self._pixels(sample[None])[0]
        return Rendering(".png", image_bytes(picture), picture)

    @staticmethod
    def low_level(
        spec: ModalitySpec, standard: Float[Tensor, "batch size"]
    ) -> Float[Tensor, "batch feature"]:
        """Features of fixed shallow convolutions."""
        shape, _ = ImageCodec.grid(spec)
        sides = (min(LOW_LEVEL_GRID, shape[1]), min(LOW_LEVEL_GRID, shape[2]))
        return low_level_features(standard.reshape(-1, *shape), sides)

    @staticmethod
    def summary(rows: Rows) -> FloatArray:
        """The mean of each cell of a coarse grid, channel by channel."""
        channels = rows.array.reshape(len(rows), -1, *rows.array.shape[-2:])
        cells = [
            cell.mean(axis=(-2, -1))
            for band in np.array_split(channels, min(SUMMARY_GRID, channels.shape[-2]), axis=-2)
            for cell in np.array_split(band, min(SUMMARY_GRID, channels.shape[-1]), axis=-1)
        ]
        return np.concatenate(cells, axis=1).astype(np.float32)

    def state(self) -> dict[str, Tensor]:
        """See ``Codec.state``."""
        return super().state() | {"low": torch.tensor(self.low), "high": torch.tensor(self.high)}

    @classmethod
    def parts(cls, spec: ModalitySpec, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """The codec's fields; version 0.1.0 kept no range."""
        own = {name: float(state[name]) for name in ("low", "high") if name in state}
        return super().parts(spec, state) | own
