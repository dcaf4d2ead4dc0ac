"""The query: what is observed, turned towards what is planned (Eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from omg_graph.seeding import generator

SCALE_SPEED = 10.0
"""A view has one scale, the correction thousands of weights: at the same rate it would hardly move."""


class QueryProjection(nn.Module):
    """A learned correction to the raw query: q = s raw + tanh(W_q [u_X + c_S side by side] + b_q) (Eq. 7).

    s scales each view, since not all of them tell alike who is alike. It starts at one and the rest at zero,
    where the query is the raw one exactly; tanh has slope 1 there, so that training can leave it in either
    direction. The correction of each view is scaled to a length below one, that of the raw view it
    corrects, and reaches the views that the sample misses too: there the plan speaks alone.
    """

    scale: Tensor

    def __init__(self, observation_width: int, plan_width: int, view_widths: Sequence[int]) -> None:
        super().__init__()
        self.projection = _linear(observation_width + plan_width, sum(view_widths))
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)
        self.view_scales = nn.Parameter(torch.zeros(len(view_widths)))
        lengths = [torch.full((width,), width**-0.5) for width in view_widths]
        owners = torch.arange(len(view_widths)).repeat_interleave(torch.tensor(list(view_widths)))
        self.register_buffer("owners", owners, persistent=False)
        self.owners: Tensor
        self.register_buffer("scale", torch.cat(lengths), persistent=False)

    def set_scales(self, scales: Float[Tensor, " view"]) -> None:
        """Scale the views of the raw query by these, all above zero."""
        with torch.no_grad():
            self.view_scales.copy_(scales.log() / SCALE_SPEED)

    def correction(
        self,
        observation_embedding: Float[Tensor, "batch observation"],
        plan_embedding: Float[Tensor, "batch plan"],
    ) -> Float[Tensor, "batch width"]:
        """What is added to the raw query."""
        fused = torch.cat([observation_embedding, plan_embedding], dim=-1)
        return self.scale * torch.tanh(self.projection(fused))

    def forward(
        self,
        raw_query: Float[Tensor, "batch width"],
        observation_embedding: Float[Tensor, "batch observation"],
        plan_embedding: Float[Tensor, "batch plan"],
    ) -> Float[Tensor, "batch width"]:
        """The corrected query, to be compared with keys of the same views."""
        scales = torch.exp(SCALE_SPEED * self.view_scales)[self.owners]
        return scales * raw_query + self.correction(observation_embedding, plan_embedding)


class LiteralQueryProjection(nn.Module):
    """Eq. 7 to the letter: q = tanh(W_q [u_X + c_S side by side] + b_q), for keys in psi's space.

    The knowledge base then has a single view, ``psi``, that every sample and every entry has. The query is
    brought to unit length, since section 3.4 calls its inner product with the keys a cosine.
    """

    def __init__(self, observation_width: int, plan_width: int, key_width: int, seed: int = 0) -> None:
        super().__init__()
        self.projection = _linear(observation_width + plan_width, key_width)
        nn.init.xavier_uniform_(self.projection.weight, generator=generator(seed, "query projection"))
        nn.init.zeros_(self.projection.bias)

    def forward(
        self,
        raw_query: Float[Tensor, "batch width"],
        observation_embedding: Float[Tensor, "batch observation"],
        plan_embedding: Float[Tensor, "batch plan"],
    ) -> Float[Tensor, "batch width"]:
        """The query; ``raw_query`` only gives the shape, so that either projection can be called alike."""
        fused = torch.cat([observation_embedding, plan_embedding], dim=-1)
        return functional.normalize(torch.tanh(self.projection(fused)), dim=-1).view_as(raw_query)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer still to be filled: its usual start would draw from the global generator."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
