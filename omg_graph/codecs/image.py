"""Images: the codec of a grid of pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from omg_graph.codecs.autoencoder import Autoencoder, AutoencoderSettings, PrincipalComponents
from omg_graph.codecs.codec import ON_THE_CPU, Estimate, Rows, Training, VectorCodec, part_of
from omg_graph.codecs.convolution import ConvolutionalAutoencoder, Shape, low_level_features
from omg_graph.codecs.rendering import Pixels, Rendering
from omg_graph.data.dataset import FloatArray, ModalitySpec
from omg_graph.data.media import image_bytes

LOW_LEVEL_GRID, SUMMARY_GRID = 16, 4
SPREAD_SHOWN = 2.0
"""Deviations around the mean that are shown where the range in training isn't known."""


@dataclass(frozen=True)
class GridCodec(VectorCodec):
    """What codecs of images and of sounds share: a convolutional autoencoder where there are rows enough."""

    @staticmethod
    def grid(spec: ModalitySpec) -> tuple[Shape, int]:
        """Channels, height and width of a standard row's grid, and how many numbers stand behind it."""
        raise NotImplementedError

    @property
    def tokens(self) -> int:
        """Of the convolutional autoencoder; else one."""
        return self.network.tokens if isinstance(self.network, ConvolutionalAutoencoder) else 1

    @property
    def estimate(self) -> Estimate:
        """A draw with the convolutional autoencoder: a mean of its latents would be a blur."""
        return "sample" if isinstance(self.network, ConvolutionalAutoencoder) else "mean"

    @classmethod
    def draws(cls, rows: int, settings: AutoencoderSettings) -> bool:
        """See ``Codec.draws``."""
        return settings.kind == "vae" or settings.learns_grid(rows)

    @classmethod
    def note(cls, spec: ModalitySpec, rows: int, settings: AutoencoderSettings) -> str | None:
        """See ``Codec.note``."""
        if settings.kind == "pca" or settings.learns_grid(rows):
            return None
        return (
            f"{spec.name} is encoded by {'a VAE of its pixels' if settings.kind == 'vae' else 'PCA'}: "
            f"{rows} training rows are fewer than the {settings.grid.rows} that a convolutional autoencoder "
            "is trained on"
        )

    def state(self) -> dict[str, Tensor]:
        """See ``Codec.state``."""
        learned = isinstance(self.network, ConvolutionalAutoencoder)
        return super().state() | ({"tokens": torch.tensor(self.tokens)} if learned else {})

    @classmethod
    def load_network(cls, spec: ModalitySpec, state: Mapping[str, Tensor]) -> Autoencoder:
        """The autoencoder from ``state``: a convolutional one has tokens there."""
        if "tokens" not in state:
            return super().load_network(spec, state)
        network = ConvolutionalAutoencoder(*cls.grid(spec), int(state["width"]), int(state["tokens"]))
        network.load_state_dict(part_of(state, "autoencoder"))
        return network.eval().requires_grad_(False)


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
        network = ConvolutionalAutoencoder.fit(
            torch.from_numpy(codec.inputs(rows)),
            torch.from_numpy((mean - low) / (high - low)).float(),
            torch.from_numpy(deviation / (high - low)).float(),
            width=settings.grid.width,
            tokens=settings.grid.tokens,
            epochs=settings.grid.epochs,
            seed=seed,
            name=spec.name,
            bends=True,
            device=training.device,
            on_epoch=training.on_epoch,
        )
        return replace(codec, network=network.eval().requires_grad_(False))

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
    def load(cls, spec: ModalitySpec, state: Mapping[str, Tensor], others: Sequence[str]) -> Self:
        """See ``Codec.load``."""
        codec = super().load(spec, state, others)
        return replace(codec, low=float(state["low"]), high=float(state["high"])) if "low" in state else codec
