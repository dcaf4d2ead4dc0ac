"""The latent space of a model: how each modality goes from the input's units to latents and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from omg_graph.codecs.autoencoder import Autoencoder
from omg_graph.codecs.frames import FrameFiller
from omg_graph.codecs.standardise import Standardiser
from omg_graph.data.dataset import FloatArray, ModalitySpec, Split


@dataclass(frozen=True)
class ModalityCodec:
    """One modality's standard units and autoencoder."""

    standardiser: Standardiser
    autoencoder: Autoencoder
    scale: float
    """Root mean square of the latents on the training rows."""
    filler: FrameFiller | None = None
    """What fills lost frames of a sequence; None in a model made without one, whose frames are interpolated.
    """

    @property
    def spec(self) -> ModalitySpec:
        """What the modality looks like."""
        return self.standardiser.spec

    @property
    def width(self) -> int:
        """Latent width."""
        return self.autoencoder.width


@dataclass(frozen=True)
class LatentSpace:
    """The codecs of all modalities, in the model's order."""

    codecs: dict[str, ModalityCodec]

    def __iter__(self) -> Iterator[str]:
        return iter(self.codecs)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names."""
        return tuple(self.codecs)

    @property
    def widths(self) -> dict[str, int]:
        """Latent width of each modality."""
        return {name: codec.width for name, codec in self.codecs.items()}

    @property
    def scales(self) -> dict[str, float]:
        """Root mean square of each modality's training latents."""
        return {name: codec.scale for name, codec in self.codecs.items()}

    @property
    def specs(self) -> tuple[ModalitySpec, ...]:
        """What each modality looks like."""
        return tuple(codec.spec for codec in self.codecs.values())

    @property
    def feature_means(self) -> dict[str, FloatArray]:
        """The training mean of each feature, in the input's units."""
        return {name: codec.standardiser.mean for name, codec in self.codecs.items()}

    def standard(self, split: Split) -> dict[str, FloatArray]:
        """Modality to (samples, size) in standard units, lost frames filled; rows that miss it are zero."""
        out = {}
        for name, codec in self.codecs.items():
            gaps, lengths = split.gaps(name), split.lengths.get(name)
            rows = codec.standardiser.apply(split.arrays[name], lengths, gaps)
            if gaps is not None:
                # of its own frames alone: another modality's may be what is to be told from this one
                rows = (codec.filler or FrameFiller.interpolating(codec.spec)).fill(rows, gaps, lengths)
            out[name] = rows * split.observed[name][:, None]
        return out

    def encode(self, split: Split) -> dict[str, Float[Tensor, "sample latent"]]:
        """Modality to (samples, latent), on the CPU; rows that miss it are zero."""
        latents = {}
        for name, features in self.standard(split).items():
            with torch.inference_mode():
                latent = self.codecs[name].autoencoder.encode(torch.from_numpy(features))
            latents[name] = latent.clone() * torch.from_numpy(split.observed[name])[:, None]
        return latents

    def fill_frames(self, split: Split) -> dict[str, FloatArray]:
        """Sequences with their lost frames filled, from what else of the sample is observed.

        Returns:
            Modality to (samples, frames, features) in the input's units, for modalities with lost frames;
            every number that was there is the same, bit by bit.
        """
        out = {}
        latents: dict[str, Tensor] | None = None
        for name, codec in self.codecs.items():
            gaps, lengths = split.gaps(name), split.lengths.get(name)
            if gaps is None:
                continue
            filler, prior = codec.filler or FrameFiller.interpolating(codec.spec), None
            if filler.names:
                latents = self.encode(split) if latents is None else latents
                others = {other: latents[other].numpy() for other in filler.names}
                seen = np.stack([split.observed[other] for other in filler.names], axis=1)
                prior = filler.prior(others, seen)
            rows = codec.standardiser.apply(split.arrays[name], lengths, gaps)
            filled = codec.standardiser.invert(filler.fill(rows, gaps, lengths, prior))
            out[name] = np.where(gaps[..., None], filled, split.arrays[name])
        return out

    def decode(self, name: str, latents: Float[Tensor, "sample latent"]) -> FloatArray:
        """(samples, *shape) in the input's units."""
        codec = self.codecs[name]
        with torch.inference_mode():
            features = codec.autoencoder.decode(latents.cpu())
        return codec.standardiser.invert(features.numpy().astype(np.float32))
