"""psi: any subset of modalities to one unit vector in the text encoder's space (Eqs. 6, 7, 10)."""

from __future__ import annotations

from collections.abc import Mapping

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


class ObservationEncoder(nn.Module):
    """A branch for each modality, a mean over what is observed, and a head into the shared space.

    Applied to the reconstruction alone it is the paper's ``g(Y^)`` of Eq. 14: a text encoder can't read
    features, a branch aligned with it can.
    """

    def __init__(self, config: ObservationEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.branches = PerModality(
            {
                name: nn.Sequential(
                    nn.Dropout(config.dropout),
                    nn.Linear(width, config.hidden),
                    nn.GELU(),
                    nn.LayerNorm(config.hidden),
                )
                for name, width in config.widths.items()
            }
        )
        # which modalities are there is itself information, and the mean over branches would lose it
        self.presence = nn.Linear(len(config.widths), config.hidden)
        self.head = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
            nn.GELU(),
            nn.Linear(config.hidden, config.shared_width),
        )

    def forward(
        self, latents: Mapping[str, Float[Tensor, "batch _"]], observed: Bool[Tensor, "batch modality"]
    ) -> Float[Tensor, "batch shared"]:
        """u_X, unit length; a modality that isn't observed has no effect, whatever its latents hold."""
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
        mean = total / present.sum(dim=1, keepdim=True).clamp(min=1.0)
        return F.normalize(self.head(mean + self.presence(present)), dim=-1)

    def embed_one(self, name: str, latent: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch shared"]:
        """The embedding of a single modality, as for a reconstruction (Eq. 14)."""
        present = torch.zeros(len(latent), len(self.config.widths), dtype=latent.dtype, device=latent.device)
        present[:, self.branches.index[name]] = 1.0
        branch = self.branches[name](latent / self.config.scales[name])
        return F.normalize(self.head(branch + self.presence(present)), dim=-1)


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
