"""What the codecs of images and of sounds share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.codecs.autoencoder import Autoencoder, AutoencoderSettings
from omg_graph.codecs.codec import Estimate, Rows, Training, VectorCodec, part_of
from omg_graph.codecs.convolution import ConvolutionalAutoencoder, Shape
from omg_graph.data.dataset import ModalitySpec


@dataclass(frozen=True)
class GridCodec(VectorCodec):
    """A kind whose standard rows hold a grid: a convolutional autoencoder where there are rows enough."""

    @staticmethod
    def grid(spec: ModalitySpec) -> tuple[Shape, int]:
        """Channels, height and width of a standard row's grid, and how many numbers stand behind it."""
        raise NotImplementedError

    def learned(
        self,
        rows: Rows,
        base: npt.NDArray[np.floating],
        gain: npt.NDArray[np.floating],
        settings: AutoencoderSettings,
        seed: int,
        training: Training,
        *,
        width: int,
        pictures: bool,
    ) -> Self:
        """The codec with a convolutional autoencoder, trained on its own inputs.

        Args:
            rows: Training rows.
            base: Level of a standard 0, of the grid's shape or flat; levels are between 0 and 1.
            gain: Levels in a standard 1.
            settings: Of the autoencoder.
            seed: Decides everything random.
            training: Where, and who hears of it.
            width: Latent width, at most.
            pictures: Whether the grids are of things seen.
        """
        shape, _ = self.grid(self.spec)
        network = ConvolutionalAutoencoder.fit(
            torch.from_numpy(self.inputs(rows)),
            torch.from_numpy(base).float().reshape(shape),
            torch.from_numpy(gain).float().reshape(shape),
            width=width,
            tokens=settings.grid.tokens,
            epochs=settings.grid.epochs,
            seed=seed,
            name=self.spec.name,
            pictures=pictures,
            device=training.device,
            on_epoch=training.on_epoch,
        )
        return replace(self, network=network.eval().requires_grad_(False))

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
            f"{spec.name} is encoded by {'a VAE without convolutions' if settings.kind == 'vae' else 'PCA'}: "
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
