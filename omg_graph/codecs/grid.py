"""What the codecs of images and of sounds share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from omg_graph.codecs.autoencoder import Autoencoder, AutoencoderSettings
from omg_graph.codecs.codec import Estimate, VectorCodec, part_of
from omg_graph.codecs.convolution import ConvolutionalAutoencoder, Shape
from omg_graph.data.dataset import ModalitySpec


@dataclass(frozen=True)
class GridCodec(VectorCodec):
    """A kind whose standard rows hold a grid: a convolutional autoencoder where there are rows enough."""

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
