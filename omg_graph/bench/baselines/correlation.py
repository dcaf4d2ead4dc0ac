"""CCA, DCCA and DCCAE: what is missing by way of what modalities have in common."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn

from omg_graph.bench.baselines.fitted import Arrays, Fitting
from omg_graph.bench.baselines.networks import NetworkRows, NetworkSettings, held_out, restored, scaled
from omg_graph.data.dataset import BoolArray, IntArray
from omg_graph.evaluation.floor_data import (
    Guess,
    Shown,
    TrainingRows,
    validation_folds,
)
from omg_graph.evaluation.floors import PatternMaps, SlotRidge, ridge_maps
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.metrics.labels import Numbers
from omg_graph.seeding import derived_seed, seeded
from omg_graph.training.fitting import FitSettings, fit

MOST_COMPONENTS = 32
"""Canonical variates that are tried at most."""
CODE = 20
"""Width of the codes of DCCA."""
STABILISER = 1e-2
"""Added to the covariances of codes, whose variance is about 1."""
RECONSTRUCTION = 1.0
"""Weight of the autoencoders' error in DCCAE beside the mean correlation."""
LARGE_BATCH = 512
"""Correlations are estimated within a batch."""


@dataclass(frozen=True)
class CanonicalRegression:
    """A hidden modality from the canonical variates of what is visible: a regression of reduced rank."""

    rotation: Numbers
    """(inputs, components)."""
    mean: Numbers
    weights: Numbers
    """(components, outputs)."""
    intercept: Numbers

    @classmethod
    def fit(cls, x: Numbers, y: Numbers, folds: IntArray) -> CanonicalRegression:
        """With the number of variates, none included, that predicts held-out folds best.

        Args:
            x: (rows, inputs).
            y: (rows, outputs).
            folds: (rows,), two at least.
        """
        smallest = min(int((folds != fold).sum()) for fold in np.unique(folds))
        most = min(MOST_COMPONENTS, x.shape[1], y.shape[1], smallest - 1)
        errors = np.zeros(most + 1)
        for fold in np.unique(folds):
            out = folds == fold
            found = cls._all(x[~out], y[~out], most)
            made = np.tile(found.intercept, (int(out.sum()), 1))
            variates = (x[out] - found.mean) @ found.rotation
            errors[0] += np.square(made - y[out]).sum()
            for number in range(most):
                if number < variates.shape[1]:  # a fold may lack a direction
                    made = made + variates[:, number : number + 1] * found.weights[number]
                errors[number + 1] += np.square(made - y[out]).sum()
        best = int(errors.argmin())
        found = cls._all(x, y, most)
        return cls(found.rotation[:, :best], found.mean, found.weights[:best], found.intercept)

    @classmethod
    def _all(cls, x: Numbers, y: Numbers, components: int) -> CanonicalRegression:
        mean, intercept = x.mean(axis=0), y.mean(axis=0)
        centred, outputs = x - mean, y - intercept
        rotation = canonical_weights(centred, outputs, components)
        variates = centred @ rotation
        # variates of the training rows are uncorrelated, so each has a coefficient of its own
        weights = variates.T @ outputs / np.square(variates).sum(axis=0).clip(min=1e-12)[:, None]
        return cls(rotation, mean, weights, intercept)

    def predict(self, x: Numbers) -> Numbers:
        """(samples, outputs)."""
        return np.asarray((x - self.mean) @ self.rotation @ self.weights + self.intercept, np.float64)


def canonical_weights(x: Numbers, y: Numbers, components: int) -> Numbers:
    """(inputs, components): directions of ``x`` of maximal correlation with ``y``, the strongest first.

    In closed form, by three singular value decompositions: scikit-learn's iterations lead to the same
    directions, but take minutes where there are hundreds of inputs.

    Args:
        x: (rows, inputs), centred.
        y: (rows, outputs), centred.
        components: at most; there may be fewer where a rank is smaller.
    """
    left, values, right = _decomposed(x)
    found, _, _ = np.linalg.svd(left.T @ _decomposed(y)[0])
    return np.asarray(right.T @ (found[:, :components] / values[:, None]), np.float64)


def _decomposed(x: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The singular value decomposition without what is zero but for rounding."""
    left, values, right = np.linalg.svd(x, full_matrices=False)
    kept = values > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)
    return left[:, kept], values[kept], right[kept]


class CCAFill:
    """Canonical correlation analysis between what a pattern shows and each hidden modality."""

    name = "CCA"

    def __init__(self, fitting: Fitting) -> None:
        self.fitting = fitting

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Keep the rows: maps are fitted when their pattern is met. Fit the common head for the label."""
        self.rows, self.target, self.head = rows, target, SlotRidge(rows, target)
        self.maps = PatternMaps(rows, rows.latents, self._fitted, None)

    def predict(self, shown: Shown) -> Guess:
        """Regressions on canonical variates, and the label by the common head."""
        return self.head.completed(shown, self.maps.predict(shown, shown.latents)[0])

    def _fitted(
        self, pattern: BoolArray, x: Numbers, wanted: dict[str, Numbers], chosen: IntArray
    ) -> dict[str, CanonicalRegression]:
        folds = validation_folds([self.rows.groups[row] for row in chosen])
        found = {}
        for name, y in wanted.items():
            arrays = self.fitting.arrays(
                self.name,
                {"pattern": pattern.tolist(), "target": name},
                self.rows,
                self.target,
                lambda y=y: vars(CanonicalRegression.fit(x, y, folds)),  # type: ignore[misc]
            )
            found[name] = CanonicalRegression(**arrays)
        return found


class Codes(nn.Module):
    """An encoder for each modality, and a decoder for each."""

    def __init__(self, widths: dict[str, int], settings: NetworkSettings) -> None:
        super().__init__()
        hidden, dropout = settings.hidden, settings.dropout
        self.encoders = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(dropout), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, min(CODE, width))
            )
            for width in widths.values()
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(nn.Linear(min(CODE, width), hidden), nn.GELU(), nn.Linear(hidden, width))
            for width in widths.values()
        )

    def forward(self, latents: dict[str, Tensor]) -> list[Tensor]:
        """A code for each modality, (batch, code)."""
        return [encoder(part) for encoder, part in zip(self.encoders, latents.values(), strict=True)]


def total_correlation(first: Tensor, second: Tensor) -> Tensor:
    """The sum of the canonical correlations of two codes of the same rows, (rows, code) each.

    The trace norm of S11^-1/2 S12 S22^-1/2 (Andrew et al., "Deep Canonical Correlation Analysis", 2013); by
    Cholesky factors, which have the same singular values and steadier gradients.
    """
    first, second = first - first.mean(dim=0), second - second.mean(dim=0)
    count = max(len(first) - 1, 1)
    lower = [
        torch.linalg.cholesky(code.T @ code / count + STABILISER * torch.eye(code.shape[1], dtype=code.dtype))
        for code in (first, second)
    ]
    across = first.T @ second / count
    half = torch.linalg.solve_triangular(lower[0], across, upper=False)
    whole = torch.linalg.solve_triangular(lower[1], half.T, upper=False)
    total: Tensor = torch.linalg.svdvals(whole).sum()
    return total


class DeepCCA:
    """Codes of maximal correlation, and what is missing by a ridge on the codes of what is visible.

    The correlation is summed over pairs of modalities. With ``reconstruction`` it is DCCAE (Wang et al., "On
    Deep Multi-View Representation Learning", 2015), whose codes must also give back their modality.
    """

    def __init__(self, name: str, reconstruction: float, settings: NetworkSettings, fitting: Fitting) -> None:
        self.name, self.reconstruction = name, reconstruction
        self.settings, self.fitting = settings, fitting

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Train the codes, or fetch them, and fit the common head for the label."""
        data = NetworkRows.of(rows)
        self.rows, self.scales, self.head = rows, data.scales, SlotRidge(rows, target)
        weights = self.fitting.arrays(
            self.name,
            {"reconstruction": self.reconstruction, **self.settings.as_json()},
            rows,
            target,
            lambda: self._trained(data),
        )
        self.network = restored(Codes(data.widths, self.settings), weights)
        folds = validation_folds(rows.groups)
        self.maps = PatternMaps(
            rows,
            self._codes(data.latents),
            lambda _pattern, x, wanted, chosen: ridge_maps(x, wanted, folds[chosen]),
            None,
        )

    def predict(self, shown: Shown) -> Guess:
        """Ridges on codes, and the label by the common head."""
        codes = self._codes(scaled(shown.latents, self.scales))
        return self.head.completed(shown, self.maps.predict(shown, codes)[0])

    def _codes(self, latents: dict[str, Tensor]) -> dict[str, Numbers]:
        with torch.inference_mode():
            made = self.network(latents)
        return {name: part.double().numpy() for name, part in zip(latents, made, strict=True)}

    def _trained(self, data: NetworkRows) -> Arrays:
        """The weights of the epoch with the best correlation on a fifth of the groups."""
        seed, settings = self.fitting.seed, self.settings
        held = held_out(self.rows.groups)
        inner, outer = np.flatnonzero(~held), np.flatnonzero(held)
        with seeded(seed, self.name, "first weights"):
            network = Codes(data.widths, settings)

        def loss(which: IntArray, _epoch: int) -> Tensor:
            return self._loss(network, data, which)

        def order(epoch: int) -> IntArray:
            random = np.random.default_rng(derived_seed(seed, self.name, "order", epoch))
            return np.asarray(random.permutation(inner), np.int64)

        fit(
            network,
            loss,
            order,
            FitSettings(
                settings.epochs, LARGE_BATCH, settings.learning_rate, settings.weight_decay, settings.patience
            ),
            seed=seed,
            purpose=self.name,
            validate=lambda: float(loss(outer, 0)),
            on_epoch=lambda epoch, of, _: self.fitting.on_progress(f"{self.name}: epochs", epoch, of),
        )
        return {name: part.detach().numpy() for name, part in network.state_dict().items()}

    def _loss(self, network: Codes, data: NetworkRows, which: IntArray) -> Tensor:
        """Less correlation, averaged over pairs, and the error of reconstruction."""
        chosen = torch.from_numpy(which)
        observed = torch.from_numpy(data.observed[which])
        latents = {name: part[chosen] for name, part in data.latents.items()}
        codes = network(latents)
        correlations = []
        for first, second in combinations(range(len(codes)), 2):
            both = observed[:, first] & observed[:, second]
            if both.sum() > CODE:
                size = min(codes[first].shape[1], codes[second].shape[1])
                correlations.append(total_correlation(codes[first][both], codes[second][both]) / size)
        total = -torch.stack(correlations).mean() if correlations else codes[0].sum() * 0.0
        if self.reconstruction:
            errors = []
            for column, (decoder, code, part) in enumerate(
                zip(network.decoders, codes, latents.values(), strict=True)
            ):
                there = observed[:, column]
                if there.any():
                    errors.append((decoder(code[there]) - part[there]).square().mean())
            total = total + self.reconstruction * torch.stack(errors).mean()
        return total


def deep_cca(settings: NetworkSettings, fitting: Fitting) -> DeepCCA:
    """DCCA."""
    return DeepCCA("DCCA", 0.0, settings, fitting)


def deep_cca_autoencoders(settings: NetworkSettings, fitting: Fitting) -> DeepCCA:
    """DCCAE."""
    return DeepCCA("DCCAE", RECONSTRUCTION, settings, fitting)
