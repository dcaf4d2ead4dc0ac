"""The query: what is observed, turned towards what is planned (Eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from omg_graph.seeding import generator

SCALE_SPEED = 10.0
"""Factor on the log-scales' parameters: with few of them, they would move too slowly without it."""


class QueryProjection(nn.Module):
    """A learned correction to the raw query: q = s raw + tanh(W_q [u_X + c_S side by side] + b_q) (Eq. 7).

    s scales each view, since views differ in relevance. s starts at one and the correction at zero, so the
    query starts as the raw one; tanh has slope 1 there, so training can move it in either direction. The
    correction of each view has a length below one, the length of a raw view. Views that the sample misses are
    corrected too: there the query comes from the correction alone.
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
        """The query; ``raw_query`` only gives the shape, so that both projections have the same signature."""
        fused = torch.cat([observation_embedding, plan_embedding], dim=-1)
        return functional.normalize(torch.tanh(self.projection(fused)), dim=-1).view_as(raw_query)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    """An uninitialised linear layer: the usual initialisation would use the global generator."""
    return nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
