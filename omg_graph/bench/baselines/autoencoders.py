"""AE and CRA: autoencoders that complete zero-filled samples, without being told what is missing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from omg_graph.bench.baselines.fitted import Fitting
from omg_graph.bench.baselines.networks import (
    NetworkRows,
    NetworkSettings,
    inputs_of,
    restored,
    train,
)
from omg_graph.data.dataset import BoolArray, IntArray
from omg_graph.evaluation.floor_data import Guess, Shown, TrainingRows
from omg_graph.evaluation.floors import SlotRidge
from omg_graph.evaluation.tables import LabelTarget

BLOCKS = 5
"""Residual autoencoders in the cascade."""


class Cascade(nn.Module):
    """Autoencoders one after the other on all slots side by side.

    With ``residual`` each adds its output to what it was given, x_k = x_(k-1) + f_k(x_(k-1)) (Tran et al.,
    "Missing Modalities Imputation via Cascaded Residual Autoencoder", 2017): without any block, and before
    training, it is the identity. Without it there is one block, a plain autoencoder.
    """

    def __init__(self, width: int, hidden: int, dropout: float, blocks: int, *, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        self.blocks = nn.ModuleList(_autoencoder(width, hidden, dropout) for _ in range(blocks))

    def forward(self, slots: Tensor) -> Tensor:
        """(batch, sum of widths): completed slots."""
        for block in self.blocks:
            slots = slots + block(slots) if self.residual else block(slots)
        return slots


def _autoencoder(width: int, hidden: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(hidden, width)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(width, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden // 2),
        nn.GELU(),
        nn.Linear(hidden // 2, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        last,
    )


class CompletingAutoencoder:
    """A cascade trained on zero-filled rows to give back all slots that are known."""

    def __init__(self, name: str, blocks: int, settings: NetworkSettings, fitting: Fitting) -> None:
        self.name, self.blocks, self.settings, self.fitting = name, blocks, settings, fitting

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Train it, or fetch it, and fit the common head for the label."""
        data, settings, residual = NetworkRows.of(rows), self.settings, self.blocks > 1
        self.widths, self.scales = data.widths, data.scales
        width = sum(data.widths.values())

        def make() -> nn.Module:
            return Cascade(width, settings.hidden, settings.dropout, self.blocks, residual=residual)

        def loss(network: nn.Module, which: IntArray, visible: BoolArray) -> Tensor:
            estimates = self._completed(network, data.shown(which, visible)[0])
            # every known slot counts in training, the hidden ones alone where epochs are chosen
            hidden = np.zeros_like(visible) if network.training else visible
            return data.hidden_error(which, hidden, estimates)

        several = rows.observed.sum(axis=1) > 1
        weights = self.fitting.arrays(
            self.name,
            {"blocks": self.blocks, **settings.as_json()},
            rows,
            target,
            lambda: train(make, loss, rows, several, settings, self.fitting, self.name),
        )
        self.network = restored(make(), weights)
        self.head = SlotRidge(rows, target)

    def predict(self, shown: Shown) -> Guess:
        """What is missing, and the label by the common head."""
        with torch.inference_mode():
            made = self._completed(self.network, inputs_of(shown, self.scales)[0])
        estimates = {name: part.double().numpy() * self.scales[name] for name, part in made.items()}
        return self.head.completed(shown, estimates)

    def _completed(self, network: nn.Module, latents: dict[str, Tensor]) -> dict[str, Tensor]:
        made = network(torch.cat(list(latents.values()), dim=1))
        return dict(zip(self.widths, made.split(list(self.widths.values()), dim=1), strict=True))


def plain_autoencoder(settings: NetworkSettings, fitting: Fitting) -> CompletingAutoencoder:
    """AE: one autoencoder."""
    return CompletingAutoencoder("AE", 1, settings, fitting)


def cascaded_residual_autoencoder(settings: NetworkSettings, fitting: Fitting) -> CompletingAutoencoder:
    """CRA: five of them."""
    return CompletingAutoencoder("CRA", BLOCKS, settings, fitting)
