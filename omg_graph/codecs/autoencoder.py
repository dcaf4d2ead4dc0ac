"""Autoencoders between features and latents, one for each modality (section 3.5, "Latent Space")."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from omg_graph.codecs.convolution import ConvolutionalAutoencoder
from omg_graph.seeding import generator, seeded

AutoencoderKind = Literal["auto", "pca", "vae"]
BATCH = 64
DIVERGENCE_WEIGHT = 0.01
"""VAE: weight of the divergence from the standard normal."""


class GridSettings(BaseModel):
    """How images and sounds become latents, where a convolutional autoencoder learns them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_width: int = Field(default=64, ge=1)
    """Latent numbers of an image, at most."""
    sound_width: int = Field(default=96, ge=1)
    """Of a sound."""
    tokens: int = Field(default=4, ge=1)
    """Tokens that they are taken for."""
    epochs: int = Field(default=16, ge=1)
    rows: int = Field(default=500, ge=2)
    """With fewer training rows nothing is learned: principal components take its place, with a note."""

    @model_validator(mode="after")
    def _whole_tokens(self) -> GridSettings:
        for width in (self.image_width, self.sound_width):
            if width % self.tokens:
                raise ValueError(f"widths must be multiples of tokens; {width} and {self.tokens} came")
        return self


class AutoencoderSettings(BaseModel):
    """How features become latents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: AutoencoderKind = "auto"
    """``pca`` or ``vae`` for all modalities; ``auto``: PCA for vectors and sequences, a convolutional VAE for
    images and sounds. ``vae`` is that one for images and sounds too."""
    variance: float = Field(default=0.999, gt=0, le=1)
    """PCA: the share of variance to keep."""
    max_width: int = Field(default=256, ge=1)
    """PCA: components at most; VAE: the latent width, unless the modality is smaller."""
    epochs: int = Field(default=60, ge=1)
    """VAE of vectors and sequences."""
    grid: GridSettings = GridSettings()
    """VAE of images and sounds."""

    def learns_grid(self, rows: int) -> bool:
        """Whether images or sounds of so many training rows get a convolutional autoencoder."""
        return self.kind != "pca" and rows >= self.grid.rows


class PrincipalComponents(nn.Module):
    """A linear autoencoder in closed form; decoding what was encoded loses only the variance left out."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.register_buffer("components", torch.zeros(features, width))
        self.components: Tensor

    @property
    def width(self) -> int:
        """Latent width."""
        return int(self.components.shape[1])

    @classmethod
    def fit(
        cls, features: Float[Tensor, "batch features"], variance: float = 0.999, max_width: int = 256
    ) -> PrincipalComponents:
        """The fewest components that hold ``variance`` of the features' sum of squares.

        By a full eigenvalue decomposition of the smaller Gram matrix: exact, so the same on every run.

        Args:
            features: Standardised, so that their mean is zero.
            variance: The share to keep.
            max_width: Components at most.
        """
        x = features.double()
        rows, columns = x.shape
        if columns <= rows:
            values, vectors = torch.linalg.eigh(x.T @ x)
        else:
            values, left = torch.linalg.eigh(x @ x.T)
            vectors = x.T @ left / values.clamp(min=1e-12).sqrt()
        values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
        share = values.cumsum(0) / values.sum().clamp(min=1e-12)
        usable = int((values > 1e-9 * values[0].clamp(min=1e-12)).sum())
        width = max(1, min(int((share < variance).sum()) + 1, max_width, usable))
        kept = vectors[:, :width]
        # eigenvectors are free in sign: make the largest entry positive
        signs = kept.gather(0, kept.abs().argmax(0, keepdim=True)).sign()
        model = cls(columns, width)
        model.components.copy_((kept * torch.where(signs == 0, 1.0, signs)).float())
        return model

    def encode(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch latent"]:
        """Latents of standardised features."""
        return features @ self.components

    def decode(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch features"]:
        """Standardised features of latents."""
        return latents @ self.components.T


class VariationalAutoencoder(nn.Module):
    """A small VAE; its latents are the posterior means."""

    def __init__(self, features: int, width: int, hidden: int = 256) -> None:
        super().__init__()
        self.width = width
        self.encoder = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, 2 * width))
        self.decoder = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, features))

    @classmethod
    def fit(
        cls, features: Float[Tensor, "batch features"], settings: AutoencoderSettings, seed: int, name: str
    ) -> VariationalAutoencoder:
        """Train by AdamW on standardised features; seed and name decide everything random."""
        width = min(settings.max_width, features.shape[1])
        with seeded(seed, "vae", name):
            model = cls(features.shape[1], width)
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
        for epoch in range(settings.epochs):
            order = torch.randperm(len(features), generator=generator(seed, "vae", name, epoch))
            for batch in torch.split(order, BATCH):
                draw = generator(seed, "vae", name, epoch, int(batch[0]))
                noise = torch.randn(len(batch), width, generator=draw)
                optimiser.zero_grad(set_to_none=True)
                loss = model.loss(features[batch], noise, DIVERGENCE_WEIGHT)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
        return model

    def encode(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch latent"]:
        """Posterior means."""
        mean: Tensor = self.encoder(features)[:, : self.width]
        return mean

    def decode(self, latents: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch features"]:
        """Standardised features of latents."""
        features: Tensor = self.decoder(latents)
        return features

    def loss(
        self, features: Float[Tensor, "batch features"], noise: Float[Tensor, "batch latent"], weight: float
    ) -> Float[Tensor, ""]:
        """Squared error and ``weight`` times the divergence from the standard normal, per feature."""
        mean, log_variance = self.encoder(features).chunk(2, dim=-1)
        log_variance = log_variance.clamp(-10, 5)
        sample = mean + noise * (0.5 * log_variance).exp()
        error = (self.decode(sample) - features).square().sum(1)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        loss: Tensor = (error + weight * divergence).mean() / features.shape[1]
        return loss


Autoencoder = PrincipalComponents | VariationalAutoencoder | ConvolutionalAutoencoder


def fit_autoencoder(
    features: Float[Tensor, "batch features"], settings: AutoencoderSettings, seed: int, name: str
) -> Autoencoder:
    """The autoencoder of rows of features that the settings ask for, frozen."""
    model: Autoencoder
    if settings.kind == "vae":
        model = VariationalAutoencoder.fit(features, settings, seed, name)
    else:
        model = PrincipalComponents.fit(features, settings.variance, settings.max_width)
    return model.eval().requires_grad_(False)


def load_autoencoder(features: int, width: int, state: Mapping[str, Tensor]) -> Autoencoder:
    """The autoencoder with these weights, frozen; its class follows from their names."""
    kind = PrincipalComponents if "components" in state else VariationalAutoencoder
    model: Autoencoder = kind(features, width)
    model.load_state_dict(dict(state))
    return model.eval().requires_grad_(False)
