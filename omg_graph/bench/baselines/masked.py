"""Networks told what is missing: an MLP for features and label, and modality dropout for the label."""

from __future__ import annotations

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
from omg_graph.evaluation.floor_data import Guess, Shown, TrainingRows
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.predictor.task import TaskHead


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
        guess = Guess({})
        self.add_label(guess, shown)
        return guess

    def add_label(self, guess: Guess, shown: Shown) -> None:
        """Put what the network predicts into a guess."""
        if self.network is None:
            return
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


class MaskedMLP:
    """One MLP for all patterns: zero-filled latents and the mask to what is missing, and to the label.

    Features and label are two networks of one shape, so that each stops at its own best epoch.
    """

    name = "MLP with mask"

    def __init__(self, settings: NetworkSettings, of_labels: NetworkSettings, fitting: Fitting) -> None:
        self.settings, self.fitting = settings, fitting
        self.label = LabelNetwork(self.name, Predicting, of_labels, fitting)

    def fit(self, rows: TrainingRows, target: LabelTarget) -> None:
        """Train both networks, or fetch them."""
        data, settings = NetworkRows.of(rows), self.settings

        def make() -> nn.Module:
            return Completing(data.widths, settings.hidden, settings.dropout)

        def loss(network: nn.Module, which: IntArray, visible: BoolArray) -> Tensor:
            estimates = network(*data.shown(which, visible))
            return data.hidden_error(which, visible, estimates)

        several = rows.observed.sum(axis=1) > 1
        what = f"{self.name} (features)"
        weights = self.fitting.arrays(
            what,
            settings.as_json(),
            rows,
            target,
            lambda: train(make, loss, rows, several, settings, self.fitting, what),
        )
        self.network, self.scales = restored(make(), weights), data.scales
        self.label.fit(rows, target)

    def predict(self, shown: Shown) -> Guess:
        """What is missing, and the label."""
        with torch.inference_mode():
            made = self.network(*inputs_of(shown, self.scales))
        guess = Guess({name: part.double().numpy() * self.scales[name] for name, part in made.items()})
        self.label.add_label(guess, shown)
        return guess


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
