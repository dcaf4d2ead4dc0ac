"""Small networks from what is observed straight to the label, averaged into the task head's prediction."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

VALENCE_COLUMNS = 3
"""The last columns of an encoded transcript: its valence by word lists."""
VALENCE_WEIGHT = 6.0
"""Weight of the valence, so that its three columns count beside a hundred others."""


class DirectHeadConfig(BaseModel):
    """Sizes of the networks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: int = Field(default=4, ge=1)
    hidden: int = Field(default=512, ge=1)
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    terms: int = Field(default=0, ge=0)
    """Terms (words and word pairs) of the transcript; 0 if it isn't used."""
    components: int = Field(default=0, ge=0)
    """Principal directions that the terms are reduced to."""


class DirectHead(nn.Module):
    """An ensemble of perceptrons over observed latents, the mask, and the words of the transcript.

    They use the observation alone, without estimates of missing modalities. So their errors differ from those
    of the task head, and the average of both is better than either.
    """

    directions: Tensor
    word_scale: Tensor

    def __init__(
        self, config: DirectHeadConfig, widths: Mapping[str, int], scales: Mapping[str, float], outputs: int
    ) -> None:
        """Build networks with random weights.

        Args:
            config: Sizes.
            widths: Latent width of each modality, in the order of the mask's columns.
            scales: Typical size of a modality's latents.
            outputs: Logits, or one number.
        """
        super().__init__()
        self.config = config
        self.widths, self.scales = dict(widths), dict(scales)
        inputs = sum(widths.values()) + len(widths)
        if config.terms:
            inputs += config.components + VALENCE_COLUMNS
        self.register_buffer("directions", torch.zeros(config.terms, config.components))
        self.register_buffer("word_scale", torch.ones(()))
        self.members = nn.ModuleList(_perceptron(inputs, config, outputs) for _ in range(config.members))

    def forward(
        self,
        latents: Mapping[str, Float[Tensor, "batch _"]],
        observed: Bool[Tensor, "batch modality"],
        words: Float[Tensor, "batch term"] | None,
        members: slice = slice(None),
    ) -> Float[Tensor, "member batch output"]:
        """Logits, or standardised numbers, of each network.

        Args:
            latents: Every modality's latents; unobserved ones are treated as zero.
            observed: What is observed.
            words: Encoded transcripts, zeros without one; None if they aren't used.
            members: Which of the networks.
        """
        shown = observed.to(dtype=next(iter(latents.values())).dtype)
        parts = [
            latents[name] * shown[:, column : column + 1] / self.scales[name]
            for column, name in enumerate(self.widths)
        ]
        parts.append(shown)
        if words is not None and self.config.terms:
            terms, valence = words[:, :-VALENCE_COLUMNS], words[:, -VALENCE_COLUMNS:]
            parts += [terms @ self.directions * self.word_scale, valence * VALENCE_WEIGHT]
        inputs = torch.cat(parts, dim=1)
        return torch.stack([member(inputs) for member in self.members[members]])

    def fit_directions(self, words: Float[Tensor, "text term"]) -> None:
        """Principal directions of training transcripts' terms, uncentred: an empty transcript stays zero.

        Args:
            words: Encoded transcripts, one per row; rows without one may be left out.
        """
        terms = words[:, :-VALENCE_COLUMNS].double()
        _, vectors = torch.linalg.eigh(terms.T @ terms)
        directions = vectors.flip(1)[:, : self.config.components]
        # the sign of a direction depends on the solver: fix it
        signs = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True)).sign()
        self.directions.copy_(directions * signs)
        size = (terms @ directions).square().mean().sqrt()
        self.word_scale.copy_(1 / size.clamp(min=1e-6))


def _perceptron(inputs: int, config: DirectHeadConfig, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, config.hidden),
        nn.GELU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, config.hidden),
        nn.GELU(),
        nn.Dropout(config.dropout),
        nn.Linear(config.hidden, outputs),
    )
