"""A small perceptron for one pattern, its epochs chosen by leaving out whole groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from omg_graph.bench.baselines.fitted import Arrays
from omg_graph.data.dataset import IntArray
from omg_graph.metrics.labels import Numbers
from omg_graph.seeding import derived_seed, seeded
from omg_graph.training.fitting import FitSettings, fit

HIDDEN = 256
STEPS = FitSettings(epochs=40, batch_size=128, learning_rate=2e-3, weight_decay=1e-2)


@dataclass(frozen=True)
class PerceptronSearch:
    """Every epoch on every fold."""

    held: Numbers
    """(rows, outputs): predictions of held-out rows at the best epoch."""
    epochs: int

    @classmethod
    def over(cls, x: Numbers, y: Numbers, folds: IntArray, seed: int) -> PerceptronSearch:
        """Predict each fold from the others, after every epoch.

        Args:
            x: (rows, inputs).
            y: (rows, outputs), each block of about the same size.
            folds: (rows,), two at least.
            seed: of first weights, order and dropout.
        """
        predicted = np.zeros((STEPS.epochs, *y.shape))
        for fold in np.unique(folds):
            inside, out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            scaler = _Scaler.of(x[inside])
            made: list[Numbers] = []
            _train(
                scaler.inputs(x[inside]),
                y[inside],
                STEPS.epochs,
                derived_seed(seed, int(fold)),
                watched=(scaler.inputs(x[out]), made),
            )
            predicted[:, out] = np.stack(made)
        costs = np.square(predicted - y[None]).sum(axis=(1, 2))
        best = int(costs.argmin())
        return cls(predicted[best], best + 1)

    def refitted(self, x: Numbers, y: Numbers, seed: int) -> Arrays:
        """On all rows, for the best number of epochs: ``Perceptron.of`` takes it."""
        scaler = _Scaler.of(x)
        network = _train(scaler.inputs(x), y, self.epochs, seed)
        weights = {name: part.detach().numpy() for name, part in network.state_dict().items()}
        return weights | {"input_mean": scaler.mean, "input_scale": np.array([scaler.scale])}


@dataclass(frozen=True)
class Perceptron:
    """A trained perceptron."""

    network: nn.Module
    scaler: _Scaler

    @classmethod
    def of(cls, arrays: Arrays) -> Perceptron:
        """From what ``refitted`` gives."""
        scaler = _Scaler(arrays["input_mean"], float(arrays["input_scale"][0]))
        weights = {
            name: torch.from_numpy(part.copy())
            for name, part in arrays.items()
            if name not in ("input_mean", "input_scale")
        }
        network = _Network(len(scaler.mean), len(arrays["last.bias"]))
        network.load_state_dict(weights)
        return cls(network.eval(), scaler)

    def predict(self, x: Numbers) -> Numbers:
        """(samples, outputs)."""
        with torch.inference_mode():
            return np.asarray(self.network(self.scaler.inputs(x)).double().numpy(), np.float64)


@dataclass(frozen=True)
class _Scaler:
    mean: Numbers
    scale: float

    @classmethod
    def of(cls, x: Numbers) -> _Scaler:
        mean = x.mean(axis=0)
        return cls(mean, max(float(np.sqrt(np.square(x - mean).mean())), 1e-12))

    def inputs(self, x: Numbers) -> Tensor:
        return torch.from_numpy((x - self.mean) / self.scale).float()


class _Network(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.GELU(), nn.Dropout(0.3))
        self.last = nn.Linear(HIDDEN, outputs)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.last(self.hidden(x))
        return made


def _train(
    x: Tensor,
    y: Numbers,
    epochs: int,
    seed: int,
    watched: tuple[Tensor, list[Numbers]] | None = None,
) -> nn.Module:
    """A new network on all of ``x``; after each epoch its predictions of ``watched`` are kept."""
    with seeded(seed, "first weights"):
        network = _Network(x.shape[1], y.shape[1])
    nn.init.zeros_(network.last.weight)
    with torch.no_grad():
        network.last.bias.copy_(torch.from_numpy(y.mean(axis=0)))
    truth = torch.from_numpy(y).float()

    def order(epoch: int) -> IntArray:
        return np.random.default_rng(derived_seed(seed, "order", epoch)).permutation(len(y)).astype(np.int64)

    def loss(batch: IntArray, _epoch: int) -> Tensor:
        rows = torch.from_numpy(batch)
        made: Tensor = network(x[rows])
        return (made - truth[rows]).square().mean()

    def watch(_epoch: int, _of: int, _loss: float) -> None:
        if watched is not None:
            with torch.inference_mode():
                watched[1].append(network(watched[0]).double().numpy())

    steps = FitSettings(epochs, STEPS.batch_size, STEPS.learning_rate, STEPS.weight_decay)
    fit(network, loss, order, steps, seed=seed, purpose="perceptron", on_epoch=watch)
    return network
