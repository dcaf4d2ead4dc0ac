"""The Gaussian conditional: missing latents given observed ones, in closed form, for any pattern."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from omg_graph.priors.prior import CrossFitting, Examples, Shown

RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Candidate ridges, in units of squared latents."""
CHECKED = 600
"""Held-out pairs used to choose a ridge and a plan's scale."""


class GaussianConditional(nn.Module):
    """A joint Gaussian over all modalities' latents.

    Conditioning uses a ridge for each target modality: with few rows the plain covariance overfits. Rows with
    missing modalities are included by expectation-maximisation.
    """

    cross_fitting: CrossFitting = "folds"
    reads_plans = False

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.widths = dict(widths)
        total = sum(widths.values())
        self.register_buffer("mean", torch.zeros(total))
        self.register_buffer("covariance", torch.eye(total))
        self.register_buffer("ridges", torch.ones(len(widths)))
        self.mean: Tensor
        self.covariance: Tensor
        self.ridges: Tensor
        self._solved: dict[tuple[tuple[bool, ...], str, float], Tensor] = {}
        self.register_load_state_dict_post_hook(_forget_solved)  # type: ignore[no-untyped-call]

    @classmethod
    def fit(cls, rows: Examples, seed: int = 0) -> GaussianConditional:  # noqa: ARG003
        """The Gaussian of all rows, with the ridge of each target that predicts a held-out fold best.

        Args:
            rows: Training rows; fold 0 is held out.
            seed: Nothing is drawn.
        """
        inner = _of(rows.take(rows.folds != 0))
        model = _of(rows)
        for column, name in enumerate(rows.names):
            checked = held_out(rows, column)
            if checked is None:
                continue
            shown, truth = checked
            errors = [
                float((inner.conditional(name, shown.latents, shown.observed, ridge) - truth).square().sum())
                for ridge in RIDGES
            ]
            model.ridges[column] = RIDGES[int(np.argmin(errors))]
        return model

    def refit(self, rows: Examples) -> GaussianConditional:
        """The Gaussian of other rows, with the same ridges."""
        model = _of(rows)
        model.ridges.copy_(self.ridges)
        return model

    @classmethod
    def of(
        cls,
        latents: Mapping[str, Float[Tensor, "batch _"]],
        observed: Bool[Tensor, "batch modality"],
        *,
        iterations: int = 8,
        ridge: float = 0.05,
    ) -> GaussianConditional:
        """Maximum likelihood by EM over missing modalities; complete rows need a single pass."""
        model = cls({name: value.shape[1] for name, value in latents.items()})
        x = torch.cat(list(latents.values()), dim=1).double()
        per_feature = observed.repeat_interleave(model._repeats(), dim=1)
        counts = per_feature.sum(0).clamp(min=1)
        mean = (x * per_feature).sum(0) / counts
        centred = (x - mean) * per_feature
        complete = bool(observed.all())
        if complete:
            covariance = centred.T @ centred / len(x)
        else:
            covariance = torch.diag((centred.square().sum(0) / counts).clamp(min=1e-8))
            patterns, group = torch.unique(observed, dim=0, return_inverse=True)
            for _ in range(iterations):
                mean, covariance = _expectation_step(
                    x, patterns, group, model._repeats(), mean, covariance, ridge
                )
        model.mean.copy_(mean.float())
        model.covariance.copy_(covariance.float())
        return model

    def _repeats(self) -> Tensor:
        return torch.tensor(list(self.widths.values()))

    def _columns(self, name: str) -> slice:
        start = 0
        for other, width in self.widths.items():
            if other == name:
                return slice(start, start + width)
            start += width
        raise KeyError(name)

    def predict(self, target: str, shown: Shown) -> Float[Tensor, "batch latent"]:
        """E[z_target | observed latents]."""
        return self.conditional(target, shown.latents, shown.observed)

    def conditional(
        self,
        target: str,
        latents: Mapping[str, Float[Tensor, "batch _"]],
        observed: Bool[Tensor, "batch modality"],
        ridge: float | None = None,
    ) -> Float[Tensor, "batch latent"]:
        """E[z_target | observed latents]; rows that observe the target are conditioned on the others."""
        names = list(self.widths)
        column = names.index(target)
        given = observed.clone().cpu()
        given[:, column] = False
        out = torch.zeros_like(latents[target])
        x = torch.cat(list(latents.values()), dim=1) - self.mean
        patterns, group = torch.unique(given, dim=0, return_inverse=True)
        for index, pattern in enumerate(patterns):
            rows = (group == index).nonzero().squeeze(1).to(out.device)
            prediction = self.mean[self._columns(target)].expand(len(rows), -1)
            if pattern.any():
                features = pattern.repeat_interleave(self._repeats()).to(out.device)
                weights = self._weights(tuple(pattern.tolist()), target, ridge)
                prediction = prediction + x[rows][:, features] @ weights
            out[rows] = prediction
        return out

    def _weights(self, pattern: tuple[bool, ...], target: str, ridge: float | None) -> Tensor:
        strength = float(self.ridges[list(self.widths).index(target)]) if ridge is None else ridge
        key = (pattern, target, strength)
        if key in self._solved:
            return self._solved[key].to(self.covariance.device)
        features = torch.tensor(pattern).repeat_interleave(self._repeats()).to(self.covariance.device)
        covariance = self.covariance.double()
        inner = covariance[features][:, features]
        cross = covariance[features][:, self._columns(target)]
        inner = inner + strength * torch.eye(len(inner), dtype=inner.dtype, device=inner.device)
        weights: Tensor = torch.linalg.solve(inner, cross).float()
        if ridge is None:
            self._solved[key] = weights
        return weights


def held_out(rows: Examples, column: int) -> tuple[Shown, Tensor] | None:
    """Pairs of fold 0 that hide a modality with a known value, and that value; None if there are none.

    Args:
        rows: Training rows.
        column: The modality's.
    """
    pairs = rows.pool.spaced(np.flatnonzero(rows.folds[rows.pool.rows] == 0), CHECKED)
    pairs = pairs[rows.wanted(pairs)[:, column].numpy()]
    if not len(pairs):
        return None
    return rows.shown(pairs), rows.latents[rows.names[column]][rows.rows(pairs)]


def _of(rows: Examples) -> GaussianConditional:
    return GaussianConditional.of(rows.latents, rows.known)


def _forget_solved(model: nn.Module, _incompatible: object) -> None:
    """Drop cached weights: they belong to the covariance before loading."""
    if isinstance(model, GaussianConditional):
        model._solved.clear()


def _expectation_step(
    x: Tensor,
    patterns: Tensor,
    group: Tensor,
    repeats: Tensor,
    mean: Tensor,
    covariance: Tensor,
    ridge: float,
) -> tuple[Tensor, Tensor]:
    """One EM iteration for a Gaussian with missing blocks."""
    filled = torch.zeros_like(x)
    extra = torch.zeros_like(covariance)
    for index, pattern in enumerate(patterns):
        rows = group == index
        seen = pattern.repeat_interleave(repeats)
        centred = x[rows] - mean
        inner = covariance[seen][:, seen]
        inner = inner + ridge * torch.eye(len(inner), dtype=x.dtype)
        cross = covariance[~seen][:, seen]
        gain = torch.linalg.solve(inner, cross.T).T
        part = centred.clone()
        part[:, ~seen] = centred[:, seen] @ gain.T
        filled[rows] = part + mean
        residual = covariance[~seen][:, ~seen] - gain @ cross.T
        block = torch.zeros_like(covariance)
        block[(~seen).nonzero(), (~seen).nonzero().T] = residual
        extra += rows.sum() * block
    new_mean = filled.mean(0)
    centred = filled - new_mean
    return new_mean, (centred.T @ centred + extra) / len(x)
