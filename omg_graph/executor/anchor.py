"""The anchor: what evidence and the Gaussian conditional already know, subtracted before diffusion."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

AnchorKind = Literal["none", "evidence", "gaussian", "mixture"]


class Anchor(nn.Module):
    """A weighted sum of evidence and Gaussian conditional for each modality and number of observed ones.

    The weights are fitted by non-negative least squares on cross-fitted predictions, down to zero: where
    nothing can be known of a modality, the anchor is its training mean (zero in latent units).
    """

    def __init__(self, names: tuple[str, ...], kind: AnchorKind = "mixture") -> None:
        super().__init__()
        self.names = names
        self.kind = kind
        self.register_buffer("weights", torch.zeros(len(names), len(names), 2))
        self.weights: Tensor

    def forward(
        self,
        name: str,
        evidence: Float[Tensor, "batch latent"],
        gaussian: Float[Tensor, "batch latent"],
        observed: Bool[Tensor, "batch modality"],
    ) -> Float[Tensor, "batch latent"]:
        """The anchor of one modality, in latent units."""
        if self.kind == "none":
            return torch.zeros_like(evidence)
        weights = self.weights[self.names.index(name)][_count(observed, len(self.names))]
        return weights[:, :1] * evidence + weights[:, 1:] * gaussian

    def fit(
        self,
        name: str,
        target: Float[Tensor, "batch latent"],
        evidence: Float[Tensor, "batch latent"],
        gaussian: Float[Tensor, "batch latent"],
        observed: Bool[Tensor, "batch modality"],
    ) -> None:
        """Fit one modality's weights on predictions that did not see their targets.

        Counts of observed modalities that never occur take the weights fitted over all rows.
        """
        if self.kind == "none":
            return
        use = torch.tensor([self.kind != "gaussian", self.kind != "evidence"])
        parts = torch.stack([evidence, gaussian], dim=-1) * use
        counts = _count(observed, len(self.names))
        overall = nonnegative_least_squares(parts.reshape(-1, 2), target.reshape(-1))
        row = self.names.index(name)
        for count in range(len(self.names)):
            rows = counts == count
            if int(rows.sum()) >= 20:
                fitted = nonnegative_least_squares(parts[rows].reshape(-1, 2), target[rows].reshape(-1))
            else:
                fitted = overall
            self.weights[row, count] = fitted


def _count(observed: Tensor, names: int) -> Tensor:
    return (observed.sum(dim=1) - 1).clamp(min=0, max=names - 1)


def nonnegative_least_squares(
    parts: Float[Tensor, "row two"], target: Float[Tensor, " row"]
) -> Float[Tensor, " two"]:
    """The two non-negative weights that minimise |parts w - target|^2.

    Exact: the best feasible solution among all subsets of weights that may differ from zero.
    """
    a, b = parts.double(), target.double()
    gram, moment = a.T @ a, a.T @ b
    best, best_loss = torch.zeros(2, dtype=torch.float64), 0.0
    for active in ([0], [1], [0, 1]):
        block = gram[active][:, active]
        if float(torch.linalg.matrix_norm(block)) < 1e-12:
            continue
        solved = torch.linalg.lstsq(block, moment[active].unsqueeze(1), driver="gelsd").solution.squeeze(1)
        if (solved < 0).any():
            continue
        candidate = torch.zeros(2, dtype=torch.float64)
        candidate[active] = solved
        loss = float(candidate @ gram @ candidate - 2 * candidate @ moment)
        if loss < best_loss:
            best, best_loss = candidate, loss
    return best.float()
