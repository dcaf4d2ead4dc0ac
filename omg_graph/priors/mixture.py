"""The mixture of priors: their weighted estimate of missing latents is subtracted before diffusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from omg_graph.priors.prior import (
    ENOUGH,
    KeepsRows,
    Prior,
    Shown,
    SimilarRows,
    load_sizes,
    most_similar,
    prior_class,
)


class Mixture(nn.Module):
    """A weighted sum of priors, for each modality and observed set; itself a prior.

    The weights are fitted by non-negative least squares on cross-fitted estimates. All may be zero: if no
    prior can predict a modality, the estimate is its training mean (zero in latent units). An observed set
    that was not fitted uses the weights of the most similar one.
    """

    def __init__(self, widths: Mapping[str, int], priors: Sequence[str], patterns: int = 0) -> None:
        super().__init__()
        self.names = tuple(widths)
        self.priors = nn.ModuleDict({name: prior_class(name)(widths) for name in priors})
        self.register_buffer("patterns", torch.zeros(patterns, len(widths), dtype=torch.bool))
        self.register_buffer("weights", torch.zeros(len(widths), patterns, len(priors)))
        self.register_buffer("spreads", torch.ones(len(widths), patterns))
        self.patterns: Tensor
        """Observed sets, (patterns, modalities)."""
        self.weights: Tensor
        """(modalities, patterns, priors)."""
        self.spreads: Tensor
        """Standard deviation of the residuals, (modalities, patterns), in latent units."""

    def predict(self, target: str, shown: Shown) -> Float[Tensor, "batch latent"]:
        """The weighted sum for one modality, in latent units; priors with zero weight are not evaluated."""
        row = self.names.index(target)
        nothing = torch.zeros_like(shown.latents[target])
        parts = [
            self.prior(name).predict(target, shown) if bool(self.weights[row, :, column].any()) else nothing
            for column, name in enumerate(self.priors)
        ]
        return self.combined(target, torch.stack(parts, dim=-1), shown.observed) if parts else nothing

    def prior(self, name: str) -> Prior:
        """One of the priors."""
        prior: Prior = self.priors[name]  # type: ignore[assignment]
        return prior

    def combined(
        self,
        name: str,
        parts: Float[Tensor, "batch latent prior"],
        observed: Bool[Tensor, "batch modality"],
    ) -> Float[Tensor, "batch latent"]:
        """The weighted sum of estimates of one modality.

        Args:
            name: The modality.
            parts: Each prior's prediction, in order; any finite value for a prior with zero weight.
            observed: What is observed.
        """
        if not len(self.patterns):
            return torch.zeros_like(parts[..., 0])
        weights = self.weights[self.names.index(name)][self._nearest(name, observed)]
        return (parts * weights.unsqueeze(1)).sum(dim=-1)

    def spread(self, name: str, observed: Bool[Tensor, "batch modality"]) -> Float[Tensor, " batch"]:
        """Standard deviation of one modality's residuals, in latent units."""
        if not len(self.patterns):
            return torch.ones(len(observed), device=observed.device)
        return self.spreads[self.names.index(name)][self._nearest(name, observed)]

    def fit_weights(
        self,
        name: str,
        target: Float[Tensor, "batch latent"],
        parts: Float[Tensor, "batch latent prior"],
        observed: Bool[Tensor, "batch modality"],
        patterns: Bool[Tensor, "pattern modality"],
    ) -> None:
        """Fit one modality's weights on cross-fitted estimates.

        Args:
            name: The modality.
            target: Its latents.
            parts: Each prior's estimates of them.
            observed: What is observed.
            patterns: Observed sets to fit, the same for all modalities; one with fewer than ``ENOUGH`` rows
                takes the weights fitted over all rows.
        """
        if len(self.patterns) != len(patterns):
            self.patterns = patterns.clone()
            self.weights = torch.zeros(len(self.names), len(patterns), len(self.priors))
            self.spreads = torch.ones(len(self.names), len(patterns))
        row = self.names.index(name)
        overall = nonnegative_least_squares(parts.flatten(0, 1), target.reshape(-1))
        for column, pattern in enumerate(patterns):
            rows = (observed == pattern).all(dim=1)
            enough = int(rows.sum()) >= ENOUGH
            self.weights[row, column] = (
                nonnegative_least_squares(parts[rows].flatten(0, 1), target[rows].reshape(-1))
                if enough
                else overall
            )
            of_pattern = rows if enough else torch.ones_like(rows)
            residuals = target[of_pattern] - parts[of_pattern] @ self.weights[row, column]
            self.spreads[row, column] = residuals.square().mean().sqrt().clamp(min=1e-6)

    def with_rows(
        self,
        latents: Mapping[str, Float[Tensor, "row _"]],
        known: Bool[Tensor, "row modality"],
        ids: Sequence[str],
        groups: Sequence[str],
    ) -> Mixture:
        """The same mixture, with more rows in the priors that keep rows; all else is shared.

        Args:
            latents: Every modality's latents; any value where unknown.
            known: Which of it is known.
            ids: The rows' ids; rows that are kept already are skipped.
            groups: The rows' groups.
        """
        priors = {
            name: prior.with_rows(latents, known, ids, groups) if isinstance(prior, KeepsRows) else prior
            for name, prior in self.priors.items()
        }
        if all(priors[name] is prior for name, prior in self.priors.items()):
            return self
        extended = copy(self)
        extended._modules = {**self._modules, "priors": nn.ModuleDict(priors)}
        return extended

    def similar_rows(self, target: str, shown: Shown) -> SimilarRows | None:
        """Each sample's nearest kept rows, by the first prior that keeps rows; None if none does."""
        keeping = (prior for prior in self.priors.values() if isinstance(prior, KeepsRows))
        return next((prior.similar_rows(target, shown) for prior in keeping if prior.keeps_rows), None)

    @property
    def keeps_rows(self) -> bool:
        """Whether any prior keeps rows."""
        return any(isinstance(prior, KeepsRows) and prior.keeps_rows for prior in self.priors.values())

    def _nearest(self, name: str, observed: Tensor) -> Tensor:
        return most_similar(self.patterns, observed, self.names.index(name))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        load_sizes(self, ("patterns", "weights", "spreads"), state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def nonnegative_least_squares(
    parts: Float[Tensor, "row part"], target: Float[Tensor, " row"]
) -> Float[Tensor, " part"]:
    """The non-negative weights that minimise |parts w - target|^2.

    Exact: solves least squares for every subset of non-zero weights, and takes the best feasible solution.
    Our own, because nothing else here requires SciPy, which has a solver.
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
