"""The Gaussian conditional given the plan too: every constraint adds a share of its own to the estimate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.mixture import ENOUGH, load_sizes, most_similar

MOST_DIRECTIONS = 48
"""Directions in which plans are told apart, at most."""
LEAST_VARIANCE = 1e-3
"""Of the largest direction's: what varies less tells no plans apart."""


class PlannedConditional(nn.Module):
    """E[z_target | observed latents, c_S] under a joint Gaussian of latents and plan.

    The constraints of a plan, side by side, are more columns to regress on. What an estimate takes from a
    constraint doesn't depend on the others, so that a combination that was never met is put together from
    its parts. How far plans can be relied on depends on what they were made from: their moments are those
    of each observed set by itself.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.widths = dict(widths)
        modalities, total = len(self.widths), sum(self.widths.values())
        self.register_buffer("origin", torch.zeros(0))
        self.register_buffer("basis", torch.zeros(0, 0))
        self.register_buffer("patterns", torch.zeros(0, modalities, dtype=torch.bool))
        self.register_buffer("means", torch.zeros(0, 0))
        self.register_buffer("covariances", torch.zeros(0, 0, 0))
        self.register_buffer("crosses", torch.zeros(0, 0, total))
        self.register_buffer("ridges", torch.ones(modalities))
        self.register_buffer("scales", torch.zeros(modalities))
        self.origin: Tensor
        """(features,): where coordinates are zero; features are all constraints' embeddings side by side."""
        self.basis: Tensor
        """(features, directions): to coordinates of unit variance."""
        self.patterns: Tensor
        """Observed sets with moments of their own, (patterns, modalities)."""
        self.means: Tensor
        """Mean coordinates, (patterns, directions)."""
        self.covariances: Tensor
        """(patterns, directions, directions)."""
        self.crosses: Tensor
        """Covariances of coordinates and latents, (patterns, directions, latents)."""
        self.ridges: Tensor
        """(modalities,)."""
        self.scales: Tensor
        """(modalities,): what a coordinate counts beside a latent; 0 where the plan is left out."""
        self._solved: dict[tuple[tuple[bool, ...], str], tuple[Tensor, Tensor]] = {}

    @classmethod
    def telling_apart(
        cls, widths: Mapping[str, int], plans: Float[Tensor, "plan constraint shared"]
    ) -> PlannedConditional:
        """One whose coordinates tell these plans apart, with nothing fitted to them yet.

        Args:
            widths: Latent width of each modality.
            plans: c_S, the whole plan's embedding first, as often as they occur.
        """
        model = cls(widths)
        features = _features(plans)
        model.origin = features.mean(dim=0)
        _, sizes, directions = torch.linalg.svd(features - model.origin, full_matrices=False)
        variances = sizes.square() / len(features)
        kept = int((variances > LEAST_VARIANCE * variances[:1].clamp(min=1e-9)).sum())
        kept = min(kept, MOST_DIRECTIONS)
        model.basis = directions[:kept].T / variances[:kept].sqrt()
        return model

    def coordinates(
        self, plans: Float[Tensor, "batch constraint shared"]
    ) -> Float[Tensor, "batch direction"]:
        """Where plans lie in the directions that tell them apart."""
        placed: Tensor = (_features(plans) - self.origin) @ self.basis
        return placed

    def fit(
        self,
        gaussian: GaussianConditional,
        coordinates: Float[Tensor, "pair direction"],
        latents: Mapping[str, Float[Tensor, "pair _"]],
        known: Bool[Tensor, "pair modality"],
        observed: Bool[Tensor, "pair modality"],
        patterns: Bool[Tensor, "pattern modality"],
    ) -> None:
        """Take the moments of plans that were made without seeing what they are to predict.

        Args:
            gaussian: Of the latents.
            coordinates: Of every pair's plan.
            latents: All that is known of each pair's row, hidden or not.
            known: Which of it is.
            observed: What each plan was made from.
            patterns: Observed sets to fit; one with fewer than ``ENOUGH`` pairs takes the moments of all.
        """
        per_column = known.repeat_interleave(torch.tensor(list(self.widths.values())), dim=1).double()
        x = (torch.cat(list(latents.values()), dim=1) - gaussian.mean).double() * per_column
        means, covariances, crosses = [], [], []
        for pattern in patterns:
            rows = (observed == pattern).all(dim=1)
            if int(rows.sum()) < ENOUGH:
                rows = torch.ones_like(rows)
            mean = coordinates[rows].double().mean(dim=0)
            part = coordinates[rows] - mean
            means.append(mean)
            covariances.append(part.T @ part / len(part))
            crosses.append(part.T @ x[rows] / per_column[rows].sum(dim=0).clamp(min=1))
        self.patterns = patterns.clone()
        self.means = torch.stack(means).float()
        self.covariances = torch.stack(covariances).float()
        self.crosses = torch.stack(crosses).float()
        self._solved.clear()

    def use(self, target: str, ridge: float, scale: float) -> None:
        """Set a target's ridge and what a coordinate counts; 0 leaves the plan out."""
        row = list(self.widths).index(target)
        self.ridges[row], self.scales[row] = ridge, scale
        self._solved.clear()

    def reads_plan(self, target: str) -> bool:
        """Whether the plan takes part in a target's estimate."""
        return len(self.patterns) > 0 and float(self.scales[list(self.widths).index(target)]) > 0

    def predict(
        self,
        gaussian: GaussianConditional,
        target: str,
        latents: Mapping[str, Float[Tensor, "batch _"]],
        observed: Bool[Tensor, "batch modality"],
        plans: Float[Tensor, "batch constraint shared"],
    ) -> Float[Tensor, "batch latent"]:
        """The target's latents; by the Gaussian alone where the plan is left out.

        Args:
            gaussian: Of the latents.
            target: The modality; rows that observe it are conditioned on the others.
            latents: Every modality's latents; what isn't observed is not read.
            observed: What is.
            plans: c_S, the whole plan's embedding first.
        """
        if not self.reads_plan(target):
            return gaussian.predict(target, latents, observed)
        given = observed.clone()
        given[:, list(self.widths).index(target)] = False
        x = torch.cat(list(latents.values()), dim=1) - gaussian.mean
        coordinates = self.coordinates(plans)
        mean = gaussian.mean[self._columns(target)]
        out = torch.zeros_like(latents[target])
        patterns, member = torch.unique(given, dim=0, return_inverse=True)
        for index, pattern in enumerate(patterns):
            rows = (member == index).nonzero().squeeze(1)
            features = self._repeated(pattern)
            of_latents, of_plan = self._weights(gaussian, tuple(pattern.tolist()), target)
            shift = coordinates[rows] - self.means[self._nearest(target, pattern)]
            out[rows] = mean + x[rows][:, features] @ of_latents + shift @ of_plan
        return out

    def _weights(
        self, gaussian: GaussianConditional, pattern: tuple[bool, ...], target: str
    ) -> tuple[Tensor, Tensor]:
        """(observed latents, latent) and (directions, latent)."""
        if (pattern, target) not in self._solved:
            row = list(self.widths).index(target)
            features = self._repeated(torch.tensor(pattern, device=self.crosses.device))
            place = self._nearest(target, features.new_tensor(pattern))
            scale, ridge = float(self.scales[row]), float(self.ridges[row])
            covariance = gaussian.covariance.double()
            crosses = self.crosses[place].double() * scale
            beside = crosses[:, features]
            inner = torch.cat(
                [
                    torch.cat([covariance[features][:, features], beside.T], dim=1),
                    torch.cat([beside, self.covariances[place].double() * scale**2], dim=1),
                ]
            )
            inner.diagonal().add_(ridge)
            columns = self._columns(target)
            right = torch.cat([covariance[features][:, columns], crosses[:, columns]])
            solved = torch.linalg.solve(inner, right)
            count = int(features.sum())
            self._solved[pattern, target] = solved[:count].float(), (solved[count:] * scale).float()
        return self._solved[pattern, target]

    def _columns(self, name: str) -> slice:
        names = list(self.widths)
        start = sum(self.widths[other] for other in names[: names.index(name)])
        return slice(start, start + self.widths[name])

    def _repeated(self, pattern: Tensor) -> Tensor:
        return pattern.repeat_interleave(torch.tensor(list(self.widths.values()), device=pattern.device))

    def _nearest(self, target: str, pattern: Tensor) -> int:
        return int(most_similar(self.patterns, pattern.unsqueeze(0), list(self.widths).index(target)))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        names = ("origin", "basis", "patterns", "means", "covariances", "crosses")
        load_sizes(self, names, state_dict, prefix)
        self._solved.clear()
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _apply(self, *arguments: Any, **settings: Any) -> PlannedConditional:
        self._solved.clear()
        super()._apply(*arguments, **settings)  # type: ignore[no-untyped-call]
        return self


def _features(plans: Tensor) -> Tensor:
    """(batch, features): the constraints' embeddings side by side, without that of the whole plan."""
    return plans[:, 1:].flatten(1)
