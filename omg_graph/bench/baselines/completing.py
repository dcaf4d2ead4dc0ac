"""Networks that serve every pattern: an MLP with the mask, autoencoders, and modality dropout."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from omg_graph.bench.baselines.fitted import Fitting
from omg_graph.bench.baselines.networks import (
    NetworkRows,
    NetworkSettings,
    inputs_of,
    label_head,
    restored,
    train,
)
from omg_graph.data.dataset import BoolArray, IntArray
from omg_graph.evaluation.floor_data import Blocks, Guess, Shown, TrainingRows
from omg_graph.evaluation.floors import SlotRidge
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.predictor.task import TaskHead

BLOCKS = 5
"""Residual autoencoders in the cascade."""


class Completing(nn.Module):
    """Visible latents, zeros for the rest, and the mask, to estimates of all latents."""

    def __init__(self, widths: dict[str, int], hidden: int, dropout: float) -> None:
        super().__init__()
        self.widths = widths
        inputs, outputs = sum(widths.values()) + len(widths), sum(widths.values())
        self.linear = nn.Linear(inputs, outputs)
        self.layers = _layers(inputs, hidden, dropout)
        self.last = nn.Linear(hidden, outputs)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.last.weight)

    def forward(self, latents: dict[str, Tensor], visible: Tensor) -> dict[str, Tensor]:
        """Modality to (batch, latent)."""
        x = torch.cat([*latents.values(), visible], dim=1)
        made = self.linear(x) + self.last(self.layers(x))
        return dict(zip(self.widths, made.split(list(self.widths.values()), dim=1), strict=True))


class Predicting(nn.Module):
    """Visible latents, zeros for the rest, and the mask, to the label."""

    def __init__(self, widths: dict[str, int], hidden: int, dropout: float, head: TaskHead) -> None:
        super().__init__()
        self.layers = _layers(sum(widths.values()) + len(widths), hidden, dropout)
        self.head = head

    def forward(self, latents: dict[str, Tensor], visible: Tensor) -> Tensor:
        """(batch, outputs): logits, or the standardised number."""
        outputs: Tensor = self.head(self.layers(torch.cat([*latents.values(), visible], dim=1)), {})
        return outputs


class Branches(nn.Module):
    """A branch for each modality, switched off as a whole where it is hidden, then one fused layer."""

    def __init__(self, widths: dict[str, int], hidden: int, dropout: float, head: TaskHead) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Dropout(dropout), nn.Linear(width, hidden), nn.GELU())
            for width in widths.values()
        )
        self.fused = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(hidden * len(widths), hidden), nn.GELU(), nn.Dropout(dropout)
        )
        self.head = head

    def forward(self, latents: dict[str, Tensor], visible: Tensor) -> Tensor:
        """(batch, outputs): logits, or the standardised number.

        What is left is scaled up, as dropout does it.
        """
        share = visible.mean(dim=1, keepdim=True).clamp(min=1e-6)
        made = [
            branch(part) * visible[:, column : column + 1] / share
            for column, (branch, part) in enumerate(zip(self.branches, latents.values(), strict=True))
        ]
        outputs: Tensor = self.head(self.fused(torch.cat(made, dim=1)), {})
        return outputs


class Cascade(nn.Module):
    """Autoencoders one after the other on all slots side by side.

    Each adds its output to what it was given, x_k = x_(k-1) + f_k(x_(k-1)) (Tran et al., "Missing Modalities
    Imputation via Cascaded Residual Autoencoder", 2017): without any block, and before training, it is the
    identity. A single block is a plain autoencoder, which adds nothing.
    """

    def __init__(self, widths: dict[str, int], hidden: int, dropout: float, blocks: int) -> None:
        super().__init__()
        self.widths, self.residual = widths, blocks != 1
        width = sum(widths.values())
        self.blocks = nn.ModuleList(_autoencoder(width, hidden, dropout) for _ in range(blocks))

    def forward(self, latents: dict[str, Tensor], _visible: Tensor) -> dict[str, Tensor]:
        """Modality to (batch, latent)."""
        slots = torch.cat(list(latents.values()), dim=1)
        for block in self.blocks:
            slots = slots + block(slots) if self.residual else block(slots)
        return dict(zip(self.widths, torch.split(slots, list(self.widths.values()), dim=1), strict=True))


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


class LabelNetwork:
    """A network that predicts the label under any pattern, with probabilities where there are classes."""

    def __init__(
        self,
        name: str,
        kind: type[Predicting] | type[Branches],
        settings: NetworkSettings,
        fitting: Fitting,
    ) -> None:
        self.name, self.kind, self.settings, self.fitting = name, kind, settings, fitting

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Train it, or fetch it; without labels there is nothing to learn."""
        self.network: nn.Module | None = None
        known = ~np.isnan(rows.labels)
        if target.family == "none" or not known.any():
            return
        data, settings = NetworkRows.of(rows), self.settings

        def make() -> nn.Module:
            head = label_head(target, rows, settings.hidden, settings.dropout)
            return self.kind(data.widths, settings.hidden, settings.dropout, head)

        def loss(network: nn.Module, which: IntArray, visible: BoolArray) -> Tensor:
            outputs = network(*data.shown(which, visible))
            head = network.head
            assert isinstance(head, TaskHead)  # for the type checker
            return head.loss(outputs, data.labels[torch.from_numpy(which)]).mean()

        what = f"{self.name} (label)"
        weights = self.fitting.arrays(
            what,
            settings.as_json(),
            rows,
            target,
            lambda: train(make, loss, rows, known, settings, self.fitting, what),
        )
        self.network, self.scales = restored(make(), weights), data.scales

    def predict(self, shown: Shown) -> Guess:
        """The label alone."""
        return self.completed(shown, {})

    def completed(self, shown: Shown, estimates: Blocks) -> Guess:
        """The estimates, with the label that the network predicts from what is visible."""
        guess = Guess(dict(estimates))
        if self.network is None:
            return guess
        head = self.network.head
        assert isinstance(head, TaskHead)  # for the type checker
        with torch.inference_mode():
            outputs = self.network(*inputs_of(shown, self.scales))
            if head.config.kind != "number":
                guess.probabilities = head.probabilities(outputs.double()).numpy()
            if head.config.kind == "classes":
                guess.label = outputs.argmax(dim=1).numpy()
            else:
                guess.value = head.value(outputs).double().numpy()
        return guess


class CompletingNetwork:
    """A network that estimates whatever is missing; a head of its own predicts the label.

    Args:
        name: of the method.
        make: a new network, of modalities of these widths.
        settings: steps of the fit.
        fitting: seed and cache.
        head: predicts the label; a ridge on all slots by default.
        denoising: whether every known slot counts in training, and not the hidden ones alone.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[dict[str, int]], nn.Module],
        settings: NetworkSettings,
        fitting: Fitting,
        *,
        head: LabelNetwork | None = None,
        denoising: bool = False,
    ) -> None:
        self.name, self.make, self.settings, self.fitting = name, make, settings, fitting
        self.label, self.denoising = head, denoising

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Train it, or fetch it, and its head."""
        data = NetworkRows.of(rows)

        def loss(network: nn.Module, which: IntArray, visible: BoolArray) -> Tensor:
            estimates = network(*data.shown(which, visible))
            # where epochs are chosen, hidden slots alone count
            counted = np.zeros_like(visible) if self.denoising and network.training else visible
            return data.hidden_error(which, counted, estimates)

        can_hide = rows.observed.sum(axis=1) > 1
        what = f"{self.name} (features)" if self.label else self.name
        weights = self.fitting.arrays(
            what,
            self.settings.as_json(),
            rows,
            target,
            lambda: train(
                lambda: self.make(data.widths), loss, rows, can_hide, self.settings, self.fitting, what
            ),
        )
        self.network, self.scales = restored(self.make(data.widths), weights), data.scales
        self.head = self.label or SlotRidge(rows, target)
        if self.label is not None:
            self.label.fit(rows, target)

    def predict(self, shown: Shown) -> Guess:
        """What is missing, and the label."""
        with torch.inference_mode():
            made = self.network(*inputs_of(shown, self.scales))
        estimates = {name: part.double().numpy() * self.scales[name] for name, part in made.items()}
        return self.head.completed(shown, estimates)


def masked_mlp(settings: NetworkSettings, of_labels: NetworkSettings, fitting: Fitting) -> CompletingNetwork:
    """One MLP for all patterns: zero-filled latents and the mask to what is missing, and to the label.

    Features and label are two networks of one shape, so that each stops at its own best epoch.
    """
    name = "MLP with mask"
    return CompletingNetwork(
        name,
        lambda widths: Completing(widths, settings.hidden, settings.dropout),
        settings,
        fitting,
        head=LabelNetwork(name, Predicting, of_labels, fitting),
    )


def autoencoder(settings: NetworkSettings, fitting: Fitting) -> CompletingNetwork:
    """AE: one autoencoder on zero-filled samples, without the mask."""
    return _cascade("AE", 1, settings, fitting)


def cascaded_residual_autoencoder(settings: NetworkSettings, fitting: Fitting) -> CompletingNetwork:
    """CRA: five of them, each adding to what the one before it gave."""
    return _cascade("CRA", BLOCKS, settings, fitting)


def _cascade(name: str, blocks: int, settings: NetworkSettings, fitting: Fitting) -> CompletingNetwork:
    return CompletingNetwork(
        name,
        lambda widths: Cascade(widths, settings.hidden, settings.dropout, blocks),
        settings,
        fitting,
        denoising=True,
    )


def modality_dropout(settings: NetworkSettings, fitting: Fitting) -> LabelNetwork:
    """A network for the label without any generation, its modalities dropped as wholes in training."""
    return LabelNetwork("modality dropout", Branches, settings, fitting)


def _layers(inputs: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.GELU(),
        nn.Dropout(dropout),
    )
