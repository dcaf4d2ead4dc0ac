"""The mixture of priors: what evidence and closed-form conditionals know, subtracted before diffusion."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

PriorKind = Literal["none", "evidence", "gaussian", "kernel", "mixture"]
PARTS = ("evidence", "gaussian", "kernel")
"""What an anchor is put together from, in the order of its weights."""
ENOUGH = 20
"""Rows of an observed set that its own weights need."""


class Mixture(nn.Module):
    """A weighted sum of evidence, Gaussian and kernel conditional, for each modality and observed set.

    The weights are fitted by non-negative least squares on cross-fitted predictions, down to zero: where
    nothing can be known of a modality, the anchor is its training mean (zero in latent units). An observed
    set that was not fitted takes the weights of the one most like it.
    """

    def __init__(self, names: tuple[str, ...], kind: PriorKind = "mixture", patterns: int = 0) -> None:
        super().__init__()
        self.names = names
        self.kind = kind
        self.register_buffer("patterns", torch.zeros(patterns, len(names), dtype=torch.bool))
        self.register_buffer("weights", torch.zeros(len(names), patterns, len(PARTS)))
        self.register_buffer("spreads", torch.ones(len(names), patterns))
        self.patterns: Tensor
        """Observed sets, (patterns, modalities)."""
        self.weights: Tensor
        """(modalities, patterns, parts)."""
        self.spreads: Tensor
        """Deviation of what the anchor leaves, (modalities, patterns), in latent units."""

    def uses(self, part: str) -> bool:
        """Whether a part may have any weight."""
        return self.kind in (part, "mixture")

    def forward(
        self,
        name: str,
        parts: Float[Tensor, "batch latent part"],
        observed: Bool[Tensor, "batch modality"],
    ) -> Float[Tensor, "batch latent"]:
        """The anchor of one modality, in latent units.

        Args:
            name: The modality.
            parts: What each of ``PARTS`` predicts; parts that aren't used may hold anything finite.
            observed: What is observed.
        """
        if not len(self.patterns):
            return torch.zeros_like(parts[..., 0])
        weights = self.weights[self.names.index(name)][self._nearest(name, observed)]
        return (parts * weights.unsqueeze(1)).sum(dim=-1)

    def spread(self, name: str, observed: Bool[Tensor, "batch modality"]) -> Float[Tensor, " batch"]:
        """Deviation of what the anchor leaves of one modality, in latent units."""
        if not len(self.patterns):
            return torch.ones(len(observed), device=observed.device)
        return self.spreads[self.names.index(name)][self._nearest(name, observed)]

    def fit(
        self,
        name: str,
        target: Float[Tensor, "batch latent"],
        parts: Float[Tensor, "batch latent part"],
        observed: Bool[Tensor, "batch modality"],
        patterns: Bool[Tensor, "pattern modality"],
    ) -> None:
        """Fit one modality's weights on predictions that did not see their targets.

        Args:
            name: The modality.
            target: Its latents.
            parts: What each of ``PARTS`` predicts of them.
            observed: What is observed.
            patterns: Observed sets to fit, the same for all modalities; one with fewer than ``ENOUGH`` rows
                takes the weights fitted over all rows.
        """
        if len(self.patterns) != len(patterns):
            self.patterns = patterns.clone()
            self.weights = torch.zeros(len(self.names), len(patterns), len(PARTS))
            self.spreads = torch.ones(len(self.names), len(patterns))
        parts = parts * torch.tensor([self.uses(part) for part in PARTS])
        row = self.names.index(name)
        overall = self._fitted(parts, target)
        for column, pattern in enumerate(patterns):
            rows = (observed == pattern).all(dim=1)
            enough = int(rows.sum()) >= ENOUGH
            self.weights[row, column] = self._fitted(parts[rows], target[rows]) if enough else overall
            of_pattern = rows if enough else torch.ones_like(rows)
            left = target[of_pattern] - parts[of_pattern] @ self.weights[row, column]
            self.spreads[row, column] = left.square().mean().sqrt().clamp(min=1e-6)

    def _fitted(self, parts: Tensor, target: Tensor) -> Tensor:
        if self.kind == "none":
            return torch.zeros(len(PARTS))
        return nonnegative_least_squares(parts.flatten(0, 1), target.reshape(-1))

    def _nearest(self, name: str, observed: Tensor) -> Tensor:
        return most_similar(self.patterns, observed, self.names.index(name))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        load_sizes(self, ("patterns", "weights", "spreads"), state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def most_similar(
    patterns: Bool[Tensor, "pattern modality"], observed: Bool[Tensor, "batch modality"], target: int
) -> Int[Tensor, " batch"]:
    """The pattern that is most like what each row observes, and doesn't hold the target itself.

    Args:
        patterns: Observed sets that something was fitted for.
        observed: What each row observes.
        target: The target's column.
    """
    holds = patterns[:, target].long() * patterns.shape[1]
    return ((observed.unsqueeze(1) == patterns).sum(dim=2) - holds).argmax(dim=1)


def load_sizes(module: nn.Module, names: Sequence[str], state_dict: dict[str, Any], prefix: str) -> None:
    """Give buffers whose sizes were found in training the sizes that are about to be loaded."""
    for name in names:
        loaded, current = state_dict.get(prefix + name), getattr(module, name)
        if isinstance(loaded, Tensor) and loaded.ndim == current.ndim:
            setattr(module, name, torch.empty_like(loaded, device=current.device))


def nonnegative_least_squares(
    parts: Float[Tensor, "row part"], target: Float[Tensor, " row"]
) -> Float[Tensor, " part"]:
    """The non-negative weights that minimise |parts w - target|^2.

    Exact: the best feasible solution among all subsets of weights that may differ from zero. SciPy has a
    solver, and isn't required by anything else here.
    """
    a, b = parts.double(), target.double()
    gram, moment = a.T @ a, a.T @ b
    count = parts.shape[1]
    best, best_loss = torch.zeros(count, dtype=torch.float64), 0.0
    for size in range(1, count + 1):
        for subset in combinations(range(count), size):
            active = list(subset)
            block = gram[active][:, active]
            if float(torch.linalg.matrix_norm(block)) < 1e-12:
                continue
            right = moment[active].unsqueeze(1)
            solved = torch.linalg.lstsq(block, right, driver="gelsd").solution.squeeze(1)
            if (solved < 0).any():
                continue
            candidate = torch.zeros(count, dtype=torch.float64)
            candidate[active] = solved
            loss = float(candidate @ gram @ candidate - 2 * candidate @ moment)
            if loss < best_loss:
                best, best_loss = candidate, loss
    return best.float()
