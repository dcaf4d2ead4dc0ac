"""Kernels between rows with several modalities, and regression that leaves a row's own group out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Rows:
    """Latents by modality; the squares that distances take of them are summed once."""

    def __init__(self, latents: Float[Tensor, "row latent"], widths: Mapping[str, int]) -> None:
        self.latents, self.widths = latents, widths
        self.parts = dict(zip(widths, torch.split(latents, list(widths.values()), dim=1), strict=True))
        self._squares: dict[str, Tensor] = {}

    def blocks(self, size: int) -> Iterator[Rows]:
        """Consecutive rows, at most ``size`` at a time."""
        return (Rows(part, self.widths) for part in torch.split(self.latents, size))

    def squares(self, name: str) -> Float[Tensor, " row"]:
        """The squared length of every row."""
        if name not in self._squares:
            self._squares[name] = self.parts[name].square().sum(1)
        return self._squares[name]


def squared_distances(
    left: Rows, right: Rows, pattern: Bool[Tensor, " modality"], spreads: Float[Tensor, " modality"]
) -> Float[Tensor, "observed left right"]:
    """Squared distances in each observed modality, over its total variance.

    Args:
        left: Rows.
        right: Other rows.
        pattern: What is observed.
        spreads: Total variance of each modality's latents.
    """
    parts = []
    for column, name in enumerate(left.widths):
        if bool(pattern[column]):
            a, b = left.parts[name], right.parts[name]
            squares = left.squares(name).unsqueeze(1) + right.squares(name)
            squares -= (2 * a) @ b.T
            parts.append(squares.clamp_(min=0).div_(spreads[column]))
    return torch.stack(parts)


def matern_kernel(
    distances: Float[Tensor, "modality left right"],
    length: float,
    relevance: Float[Tensor, " modality"] | None = None,
) -> Float[Tensor, "left right"]:
    """Matérn, smoothness 3/2: of all modalities together, and of each alone; all alike without relevance."""
    if len(distances) == 1:
        return _matern(distances[0], length)
    if relevance is None or bool((relevance == relevance[0]).all()):
        return _matern(distances.mean(0), length).add_(_matern(distances, length).mean(0)).div_(2)
    shares = (relevance / relevance.sum())[:, None, None]
    alone = _matern(distances, length).mul_(shares).sum(0)
    together: Tensor = _matern((distances * shares).sum(0), length)
    return together.add_(alone).div_(2)


def _matern(squared: Tensor, length: float) -> Tensor:
    scaled = (3 * squared).sqrt_().div_(length)
    decay: Tensor = torch.exp(-scaled)
    return decay.mul_(scaled.add_(1))


def members(groups: Int[Tensor, " row"]) -> list[Int[Tensor, " member"]]:
    """The rows of each group."""
    order = groups.argsort(stable=True)
    _, counts = torch.unique_consecutive(groups[order], return_counts=True)
    return list(torch.split(order, counts.tolist()))


def left_out(
    vectors: Float[Tensor, "row row"],
    inverse: Float[Tensor, " row"],
    dual: Float[Tensor, "row target"],
    groups: Sequence[Int[Tensor, " _"]],
) -> Float[Tensor, "row target"]:
    """What is left of every row when its group is predicted from the others: (K^-1_GG)^-1 (K^-1 y)_G."""
    if len(groups) == len(dual):
        return dual / (vectors.square() @ inverse).unsqueeze(1)
    left = torch.zeros_like(dual)
    for rows in groups:
        block = (vectors[rows] * inverse) @ vectors[rows].T
        left[rows] = torch.linalg.solve(block, dual[rows])
    return left


def without_groups(
    inverse: Float[Tensor, "row row"], dual: Float[Tensor, "row target"], groups: Sequence[Int[Tensor, " _"]]
) -> Float[Tensor, "row target"]:
    """What is left of every row when its group is predicted from the others, from K^-1 itself."""
    left = torch.zeros_like(dual)
    if alone := [rows for rows in groups if len(rows) == 1]:  # at once: they may be all there are
        single = torch.cat(alone)
        left[single] = dual[single] / inverse.diagonal()[single, None]
    for rows in groups:
        if len(rows) > 1:
            left[rows] = torch.linalg.solve(inverse[rows][:, rows], dual[rows])
    return left


def own_share(
    weights: Float[Tensor, "batch row"],
    inverse: Float[Tensor, "row row"],
    dual: Float[Tensor, "row latent"],
    own: Bool[Tensor, "batch row"],
) -> Float[Tensor, "batch latent"]:
    """What a sample's own rows add to its prediction: w_G (K^-1_GG)^-1 (K^-1 y)_G.

    K^-1 restricted to rows G is the inverse of their covariance given all others, so what is left after
    subtracting this is the regression without them.
    """
    share = torch.zeros(len(weights), dual.shape[1], dtype=dual.dtype, device=dual.device)
    counts = own.sum(dim=1)
    batch, row = own[counts == 1].nonzero().unbind(1)
    batch = (counts == 1).nonzero().squeeze(1)[batch]
    share[batch] = (weights[batch, row] / inverse[row, row]).unsqueeze(1) * dual[row]
    several = (counts > 1).nonzero().squeeze(1)
    sets, member = torch.unique(own[several], dim=0, return_inverse=True)
    for index, of_set in enumerate(sets):
        rows = of_set.nonzero().squeeze(1)
        batch = several[member == index]
        left = torch.linalg.solve(inverse[rows][:, rows], dual[rows])
        share[batch] = weights[batch][:, rows] @ left
    return share
