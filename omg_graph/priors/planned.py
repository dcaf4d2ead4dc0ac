"""The Gaussian conditional given the plan too: each constraint adds its own term to the estimate."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from omg_graph.priors.gaussian import RIDGES, GaussianConditional, held_out
from omg_graph.priors.prior import ENOUGH, CrossFitting, Examples, Shown, load_sizes, most_similar

MOST_DIRECTIONS = 48
"""Principal directions of plans, at most."""
LEAST_VARIANCE = 1e-3
"""Smallest variance of a direction, relative to the largest."""
SCALES = (1.0, 3.0)
"""Candidate scales of a plan's coordinates relative to latents; 0, without the plan, is tried too."""
TOLERANCE = 0.005
"""Relative fall of the held-out error that is needed to use the plan."""
FEW_PLANS = 2000
"""Pairs whose plans determine the directions."""
MOST_PAIRS = 20_000
"""Pairs used to compute moments, at most."""
BLOCK = 1024


class PlannedConditional(nn.Module):
    """E[z_target | observed latents, c_S] under a joint Gaussian of latents and plan.

    The embeddings of a plan's constraints are further columns to regress on. Each constraint's effect is
    additive, so estimates generalise to combinations of constraints that training never saw. How reliable a
    plan is depends on what it was made from, so moments are computed for each observed set separately.
    """

    cross_fitting: CrossFitting = "folds"
    reads_plans = True

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.widths = dict(widths)
        self.gaussian = GaussianConditional(widths)
        """The joint Gaussian of the latents."""
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
        """(features,): origin of the coordinates; features are the concatenated constraint embeddings."""
        self.basis: Tensor
        """(features, directions): maps features to coordinates of unit variance."""
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
        """(modalities,): scale of plan coordinates relative to latents; 0 where the plan is not used."""
        self._solved: dict[tuple[tuple[bool, ...], str], tuple[Tensor, Tensor]] = {}

    @classmethod
    def fit(cls, rows: Examples, seed: int = 0) -> PlannedConditional:  # noqa: ARG003
        """Moments of all training pairs, with the ridge and scale of each target that predict fold 0 best.

        Args:
            rows: Training rows; their plans must not have seen the modalities to predict.
            seed: Nothing is drawn.
        """
        model = cls.telling_apart(rows.widths, rows.plans(rows.pool.spaced(rows.pool.everything, FEW_PLANS)))
        model.gaussian = GaussianConditional.fit(rows)
        inner = model.refit(rows.take(rows.folds != 0))
        for column, name in enumerate(rows.names):
            checked = held_out(rows, column)
            if checked is None:
                continue
            shown, truth = checked

            def error(guess: Tensor, truth: Tensor = truth) -> float:
                return float((guess - truth).square().sum())

            # compared with the best ridge without a plan: a better ridge alone is no reason to use the plan
            least = min(
                error(inner.gaussian.conditional(name, shown.latents, shown.observed, ridge))
                for ridge in RIDGES
            ) * (1 - TOLERANCE)
            for scale in SCALES:
                for ridge in RIDGES:
                    inner.use(name, ridge, scale)
                    if (changed := error(inner.predict(name, shown))) < least:
                        least = changed
                        model.use(name, ridge, scale)
        if bool(model.scales.any()):
            model.take_moments(rows)
        return model

    def refit(self, rows: Examples) -> PlannedConditional:
        """Moments of other rows, with the same directions, ridges and scales."""
        model = deepcopy(self)
        model.gaussian = self.gaussian.refit(rows)
        model.take_moments(rows)
        return model

    @classmethod
    def telling_apart(
        cls, widths: Mapping[str, int], plans: Float[Tensor, "plan constraint shared"]
    ) -> PlannedConditional:
        """A conditional with the principal directions of these plans, and no moments yet.

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
        """Coordinates of plans along the principal directions."""
        placed: Tensor = (_features(plans) - self.origin) @ self.basis
        return placed

    def take_moments(self, rows: Examples) -> None:
        """Compute moments of plans and latents per observed set; sets with few pairs get those of all."""
        pairs = rows.pool.spaced(rows.pool.everything, MOST_PAIRS)
        blocks = [pairs[start : start + BLOCK] for start in range(0, len(pairs), BLOCK)]
        coordinates = torch.cat([self.coordinates(rows.plans(block)) for block in blocks])
        index, observed = rows.rows(pairs), rows.visible(pairs)
        per_column = rows.known[index].repeat_interleave(torch.tensor(list(self.widths.values())), dim=1)
        per_column = per_column.double()
        latents = torch.cat([value[index] for value in rows.latents.values()], dim=1)
        x = (latents - self.gaussian.mean).double() * per_column
        means, covariances, crosses = [], [], []
        patterns = rows.pool.observed_sets()
        for pattern in patterns:
            chosen = (observed == pattern).all(dim=1)
            if int(chosen.sum()) < ENOUGH:
                chosen = torch.ones_like(chosen)
            mean = coordinates[chosen].double().mean(dim=0)
            part = coordinates[chosen] - mean
            means.append(mean)
            covariances.append(part.T @ part / len(part))
            crosses.append(part.T @ x[chosen] / per_column[chosen].sum(dim=0).clamp(min=1))
        self.patterns = patterns
        self.means = torch.stack(means).float()
        self.covariances = torch.stack(covariances).float()
        self.crosses = torch.stack(crosses).float()
        self._solved.clear()

    def use(self, target: str, ridge: float, scale: float) -> None:
        """Set a target's ridge and the scale of plan coordinates; scale 0 leaves the plan out."""
        row = list(self.widths).index(target)
        self.ridges[row], self.scales[row] = ridge, scale
        self._solved.clear()

    def reads_plan(self, target: str) -> bool:
        """Whether a target's estimate uses the plan."""
        return len(self.patterns) > 0 and float(self.scales[list(self.widths).index(target)]) > 0

    def predict(self, target: str, shown: Shown) -> Float[Tensor, "batch latent"]:
        """The target's latents; by the Gaussian alone where the plan is left out.

        Rows that observe the target are conditioned on the others.
        """
        if shown.plan is None or not self.reads_plan(target):
            return self.gaussian.predict(target, shown)
        latents, observed, gaussian = shown.latents, shown.observed, self.gaussian
        given = observed.clone()
        given[:, list(self.widths).index(target)] = False
        x = torch.cat(list(latents.values()), dim=1) - gaussian.mean
        coordinates = self.coordinates(shown.plan)
        mean = gaussian.mean[self._columns(target)]
        out = torch.zeros_like(latents[target])
        patterns, member = torch.unique(given, dim=0, return_inverse=True)
        for index, pattern in enumerate(patterns):
            rows = (member == index).nonzero().squeeze(1)
            features = self._repeated(pattern)
            of_latents, of_plan = self._weights(tuple(pattern.tolist()), target)
            shift = coordinates[rows] - self.means[self._nearest(target, pattern)]
            out[rows] = mean + x[rows][:, features] @ of_latents + shift @ of_plan
        return out

    def _weights(self, pattern: tuple[bool, ...], target: str) -> tuple[Tensor, Tensor]:
        """(observed latents, latent) and (directions, latent)."""
        if (pattern, target) not in self._solved:
            row = list(self.widths).index(target)
            features = self._repeated(torch.tensor(pattern, device=self.crosses.device))
            place = self._nearest(target, features.new_tensor(pattern))
            scale, ridge = float(self.scales[row]), float(self.ridges[row])
            covariance = self.gaussian.covariance.double()
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
