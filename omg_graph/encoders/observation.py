"""psi: any subset of modalities to one unit vector in the text encoder's space (Eqs. 6, 7, 10)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from omg_graph.encoders.per_modality import PerModality


class ObservationEncoderConfig(BaseModel):
    """Sizes of psi."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    widths: dict[str, int]
    """Latent width of each modality, in the model's order."""
    scales: dict[str, float]
    """Root mean square of each modality's latents on the training rows: inputs are divided by it."""
    shared_width: int = 384
    hidden: int = Field(default=256, ge=8)
    dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    raw_width: int = Field(default=0, ge=0)
    """Width of a language model's hidden states over transcript and recordings; 0 where none is read."""
    raw_dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Share of training rows whose hidden states are left out, so that features stand on their own too: a
    reconstruction has no recording (Eq. 14)."""


@dataclass(frozen=True)
class RawStates:
    """A language model's hidden states over the raw parts of a batch's observations."""

    vectors: Float[Tensor, "batch raw"]
    """Zeros where a row has no raw part."""
    there: Bool[Tensor, " batch"]
    """Rows of which a transcript or a recording was read."""

    def to(self, device: torch.device) -> RawStates:
        """The same on a device."""
        return RawStates(self.vectors.to(device), self.there.to(device))


class ObservationEncoder(nn.Module):
    """A branch for each modality, a mean over what is observed, and a head into the shared space.

    With ``raw_width`` one more branch takes what a large language model made of the raw parts, in units of
    the training rows: its states lie in a narrow cone, far from the origin, as they come.

    Applied to the reconstruction alone it is the paper's ``g(Y^)`` of Eq. 14: a text encoder can't read
    features, a branch aligned with it can.
    """

    def __init__(self, config: ObservationEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.branches = PerModality({name: _branch(width, config) for name, width in config.widths.items()})
        if config.raw_width:
            self.raw = _branch(config.raw_width, config)
            self.raw_mean: Tensor
            self.raw_deviation: Tensor
            self.register_buffer("raw_mean", torch.zeros(config.raw_width))
            self.register_buffer("raw_deviation", torch.ones(config.raw_width))
        # which modalities are there is itself information, and the mean over branches would lose it
        self.slots = len(config.widths) + bool(config.raw_width)
        self.presence = nn.Linear(self.slots, config.hidden)
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.shared_width),
        )

    def standardise_raw(self, vectors: Float[Tensor, "row raw"]) -> None:
        """Take the mean and deviation of training rows' hidden states for their units, if there are any."""
        if len(vectors):
            deviation = vectors.std(dim=0, correction=0)
            self.raw_mean.copy_(vectors.mean(dim=0))
            self.raw_deviation.copy_(torch.where(deviation > 1e-6, deviation, 1.0))

    def forward(
        self,
        latents: Mapping[str, Float[Tensor, "batch _"]],
        observed: Bool[Tensor, "batch modality"],
        raw: RawStates | None = None,
    ) -> Float[Tensor, "batch shared"]:
        """u_X, unit length; a modality that isn't observed has no effect, whatever its latents hold.

        Args:
            latents: Of each modality.
            observed: Which of them a row has.
            raw: Hidden states of the rows' raw parts, for a psi that reads them.

        Raises:
            ValueError: if they are left out where psi reads them, or given where it doesn't.
        """
        if (raw is None) == bool(self.config.raw_width):
            raise ValueError("hidden states of raw parts go with a psi that reads them, and with no other")
        total: Tensor | None = None
        for column, name in enumerate(self.config.widths):
            seen = observed[:, column : column + 1]
            # chosen rather than multiplied by zero, which would let a NaN through
            latent = torch.where(seen, latents[name], torch.zeros_like(latents[name]))
            branch = self.branches[name](latent / self.config.scales[name]) * seen
            total = branch if total is None else total + branch
        if total is None:
            raise ValueError("an observation encoder needs at least one modality")
        present = observed.to(total.dtype)
        if raw is not None:
            there = self._shown(raw.there).unsqueeze(1)
            total = total + self.raw((raw.vectors - self.raw_mean) / self.raw_deviation) * there
            present = torch.cat([present, there.to(present.dtype)], dim=1)
        mean = total / present.sum(dim=1, keepdim=True).clamp(min=1.0)
        return F.normalize(self.head(mean + self.presence(present)), dim=-1)

    def embed_one(self, name: str, latent: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch shared"]:
        """The embedding of a single modality, as for a reconstruction (Eq. 14)."""
        present = torch.zeros(len(latent), self.slots, dtype=latent.dtype, device=latent.device)
        present[:, self.branches.index[name]] = 1.0
        branch = self.branches[name](latent / self.config.scales[name])
        return F.normalize(self.head(branch + self.presence(present)), dim=-1)

    def _shown(self, there: Bool[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
        if not self.training:
            return there
        return there & (torch.rand(len(there), device=there.device) >= self.config.raw_dropout)


def _branch(width: int, config: ObservationEncoderConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(config.dropout),
        nn.Linear(width, config.hidden),
        nn.GELU(),
        nn.LayerNorm(config.hidden),
    )


def contrastive_loss(
    observations: Float[Tensor, "batch shared"],
    plans: Float[Tensor, "batch shared"],
    plan_ids: Int[Tensor, " batch"],
    temperature: float = 0.07,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE between observations and plan embeddings; equal plans are all positives.

    Args:
        observations: Unit vectors of psi.
        plans: Unit vectors of g for the same rows.
        plan_ids: Equal numbers mark equal plans, whose pairs must not be pushed apart.
        temperature: Divides the cosines.
    """
    logits = observations @ plans.T / temperature
    positive = (plan_ids[:, None] == plan_ids[None, :]).to(logits.dtype)
    targets = positive / positive.sum(dim=1, keepdim=True)
    rows = -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
    columns = -(targets.T * F.log_softmax(logits.T, dim=1)).sum(dim=1).mean()
    return (rows + columns) / 2
