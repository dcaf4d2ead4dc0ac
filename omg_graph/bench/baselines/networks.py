"""Training of network baselines: new patterns per epoch, epochs chosen on held-out rows, then all rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from omg_graph.bench.baselines.fitted import Arrays, Fitting
from omg_graph.data.dataset import BoolArray, IntArray
from omg_graph.evaluation.floor_data import Blocks, Shown, TrainingRows, validation_folds
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.predictor.task import TaskHead, TaskHeadConfig
from omg_graph.seeding import derived_seed, seeded
from omg_graph.training.fitting import FitSettings, fit

AVERAGING = 0.995
"""Decay of the running mean of a network's weights, a step; early on it is shorter."""
HELD_DRAWS = 4
"""Patterns of each held-out row that epochs are chosen on."""


@dataclass(frozen=True)
class NetworkSettings:
    """Sizes and steps of a floor's network."""

    hidden: int = 512
    dropout: float = 0.1
    epochs: int = 200
    batch_size: int = 64
    learning_rate: float = 7e-4
    weight_decay: float = 1e-2
    patience: int = 20

    @property
    def steps(self) -> FitSettings:
        """As the training loop takes them."""
        return FitSettings(self.epochs, self.batch_size, self.learning_rate, self.weight_decay, self.patience)

    def as_json(self) -> dict[str, Any]:
        """For a cache's key."""
        return asdict(self)


@dataclass(frozen=True)
class NetworkRows:
    """Training rows as tensors, each modality divided by its root mean square."""

    latents: dict[str, Tensor]
    """Modality to (samples, latent); zeros where it is missing."""
    observed: BoolArray
    labels: Tensor
    """(samples,): NaN where there is none."""
    scales: dict[str, float]

    @classmethod
    def of(cls, rows: TrainingRows) -> NetworkRows:
        """Scales are those of the training rows; a modality that is constant there keeps its units."""
        scales = {}
        for column, (name, part) in enumerate(rows.latents.items()):
            there = part[rows.observed[:, column]]
            scale = float(np.sqrt(np.square(there).mean())) if there.size else 1.0
            scales[name] = scale if scale > 0 else 1.0
        latents = scaled(rows.latents, scales)
        return cls(latents, rows.observed, torch.from_numpy(rows.labels).float(), scales)

    @property
    def widths(self) -> dict[str, int]:
        """Latent width of each modality."""
        return {name: part.shape[1] for name, part in self.latents.items()}

    def shown(self, which: IntArray, visible: BoolArray) -> tuple[dict[str, Tensor], Tensor]:
        """Latents of some rows, zeros where a modality isn't visible, and (samples, modalities) flags."""
        flags = torch.from_numpy(visible).float()
        chosen = torch.from_numpy(which)
        return {
            name: part[chosen] * flags[:, column : column + 1]
            for column, (name, part) in enumerate(self.latents.items())
        }, flags

    def hidden_error(self, which: IntArray, visible: BoolArray, estimates: dict[str, Tensor]) -> Tensor:
        """Squared error of what is hidden and known, by its mean square: averaged over modalities."""
        # a batch in which nothing is hidden teaches nothing, but still takes its step
        errors = [next(iter(estimates.values())).sum() * 0.0]
        for column, (name, part) in enumerate(self.latents.items()):
            wanted = torch.from_numpy(self.observed[which, column] & ~visible[:, column])
            if wanted.any():
                truth = part[torch.from_numpy(which)][wanted]
                errors.append((estimates[name][wanted] - truth).square().mean())
        return torch.stack(errors).sum() / max(len(errors) - 1, 1)


def scaled(latents: Blocks, scales: dict[str, float]) -> dict[str, Tensor]:
    """Latents as a network takes them."""
    return {name: torch.from_numpy(part / scales[name]).float() for name, part in latents.items()}


def inputs_of(shown: Shown, scales: dict[str, float]) -> tuple[dict[str, Tensor], Tensor]:
    """What a network takes of some pairs: scaled latents, zeros where hidden, and flags."""
    return scaled(shown.latents, scales), torch.from_numpy(shown.visible).float()


def draw_visible(observed: BoolArray, random: np.random.Generator) -> BoolArray:
    """(samples, modalities): a subset of what each row has, its size drawn first, at least one modality."""
    has = observed.sum(axis=1)
    size = 1 + np.floor(random.random(len(observed)) * has).astype(np.int64).clip(max=np.maximum(has - 1, 0))
    order = np.where(observed, random.random(observed.shape), np.inf).argsort(axis=1).argsort(axis=1)
    return np.asarray(observed & (order < size[:, None]), np.bool_)


def held_out(groups: tuple[str, ...]) -> BoolArray:
    """(samples,): a fifth of the groups, on which epochs are chosen; of samples where there is one group."""
    return np.asarray(validation_folds(groups) == 0, np.bool_)


Loss = Callable[[nn.Module, IntArray, BoolArray], Tensor]
"""(network, rows, what is visible of them) to a mean loss."""


def train(
    make: Callable[[], nn.Module],
    loss: Loss,
    rows: TrainingRows,
    usable: BoolArray,
    settings: NetworkSettings,
    fitting: Fitting,
    purpose: str,
) -> Arrays:
    """Train a network that meets every pattern, and give back its weights.

    A fifth of the training groups chooses the number of epochs; then a network of the same first weights is
    trained on all rows for so many. What serves is the running mean of its weights.

    Args:
        make: a new network.
        loss: of some rows under some patterns.
        rows: what is learned from.
        usable: (samples,), the rows that take part.
        settings: steps of the fit.
        fitting: seed, and the callback for progress.
        purpose: what is fitted, for people and for the seed.
    """
    held = held_out(rows.groups)
    inner, outer = np.flatnonzero(usable & ~held), np.flatnonzero(usable & held)
    epochs = settings.epochs
    if len(inner) and len(outer):
        places = np.repeat(outer, HELD_DRAWS)
        visible = draw_visible(rows.observed[places], _random(fitting, purpose, "held"))
        training = _Training(make, loss, rows, fitting, purpose)
        epochs = training.run(inner, settings.steps, lambda network: float(loss(network, places, visible)))
    training = _Training(make, loss, rows, fitting, purpose)
    training.run(np.flatnonzero(usable), replace(settings.steps, epochs=epochs, patience=None), None)
    return {name: part.detach().cpu().numpy() for name, part in training.average.state_dict().items()}


def restored(network: nn.Module, weights: Arrays) -> nn.Module:
    """A network with these weights, ready to predict."""
    network.load_state_dict({name: torch.from_numpy(part.copy()) for name, part in weights.items()})
    return network.eval()


def label_head(target: LabelTarget, rows: TrainingRows, inputs: int, dropout: float) -> TaskHead:
    """The model's kind of task head on top of a floor's own last layer.

    Degrees or classes by cross-entropy, with a regression term for degrees, or a number alone (Eq. 17).
    """
    known = rows.labels[~np.isnan(rows.labels)]
    names = target.names if target.is_classes else target.degree_names
    degrees = () if target.is_classes else target.degrees or ()
    return TaskHead(
        TaskHeadConfig(
            kind="classes" if target.is_classes else "degrees" if degrees else "number",
            names=names or tuple(f"{degree:g}" for degree in degrees),
            degrees=degrees,
            target_mean=0.0 if target.is_classes else float(known.mean()),
            target_deviation=1.0 if target.is_classes else max(float(known.std()), 1e-6),
            widths={},
            scales={},
            shared_width=inputs,
            hidden=1,
            dropout=dropout,
        )
    )


class _Training:
    """A network on its way, and the running mean of its weights, which is what serves."""

    def __init__(
        self, make: Callable[[], nn.Module], loss: Loss, rows: TrainingRows, fitting: Fitting, purpose: str
    ) -> None:
        with seeded(fitting.seed, purpose, "first weights"):
            self.network = make()
        self._averaged = AveragedModel(self.network, avg_fn=_moved)
        self.average: nn.Module = self._averaged.module.eval()
        self.loss, self.rows, self.fitting, self.purpose = loss, rows, fitting, purpose

    def run(self, which: IntArray, steps: FitSettings, validate: Callable[[nn.Module], float] | None) -> int:
        """Train on some rows; the epoch at which the mean of the weights did best, or the last one."""
        what = f"{self.purpose}: {'epochs' if validate else 'all rows'}"
        return fit(
            self.network,
            self._batch,
            lambda epoch: np.asarray(self._random("order", epoch).permutation(which), np.int64),
            steps,
            seed=self.fitting.seed,
            purpose=self.purpose,
            validate=None if validate is None else lambda: validate(self.average),
            on_epoch=lambda epoch, of, _: self.fitting.on_progress(what, epoch, of),
        ).epochs

    def _batch(self, batch: IntArray, epoch: int) -> Tensor:
        self._averaged.update_parameters(self.network)  # what the step before this one has left
        visible = draw_visible(self.rows.observed[batch], self._random("patterns", epoch, int(batch[0])))
        return self.loss(self.network, batch, visible)

    def _random(self, *what: str | int) -> np.random.Generator:
        return _random(self.fitting, self.purpose, *what)


def _moved(average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
    """A running mean that doesn't lag behind while it has seen few steps."""
    decay = min(AVERAGING, (1 + int(count)) / (10 + int(count)))
    return average + (1.0 - decay) * (current - average)


def _random(fitting: Fitting, *what: str | int) -> np.random.Generator:
    return np.random.default_rng(derived_seed(fitting.seed, *what))
