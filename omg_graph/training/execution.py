"""Stage: the executor under the whole objective, resumable after any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from omg_graph.codecs.latents import LatentSpace
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.errors import OmgError
from omg_graph.executor.denoiser import Conditions
from omg_graph.executor.diffusion import make_scheduler
from omg_graph.executor.executor import Executor, ExecutorInput
from omg_graph.executor.objective import Losses, Noising, ObjectiveWeights, draw_noising, objective
from omg_graph.seeding import generator, seeded
from omg_graph.training.config import OptimiserSettings
from omg_graph.training.evidence import EvidenceSource
from omg_graph.training.fitting import EpochCallback
from omg_graph.training.pairs import IntArray, PairData
from omg_graph.training.workspace import Workspace

CHECK_BLOCK = 256
CHECKPOINT_SECONDS = 10.0
"""A short epoch would cost more to save than to repeat; what is repeated gives the same weights."""


@dataclass
class ExecutorTrainer:
    """Everything that one training of the executor needs."""

    executor: Executor
    source: EvidenceSource
    encoder: ObservationEncoder
    latent_space: LatentSpace
    training: PairData
    validation: PairData
    checked: IntArray
    """Validation pairs that choose the epoch."""
    plan_table: Tensor
    """(plans, constraints + 1, shared)."""
    weights: ObjectiveWeights
    settings: OptimiserSettings
    seed: int
    train_projection: bool
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        scheduler = make_scheduler(
            self.executor.config.sampler, self.executor.config.train_steps, self.executor.config.prediction
        )
        self.signals: Tensor = scheduler.alphas_cumprod.float().to(self.device)
        self.executor.to(self.device)
        # copies: the latent space and psi themselves go on encoding on the CPU
        self.encoder = deepcopy(self.encoder).to(self.device).requires_grad_(False)
        self.decoders = {
            name: deepcopy(codec.network).to(self.device) for name, codec in self.latent_space.codecs.items()
        }
        self.checked_noising = [
            self._noising(len(block), self.weights.mean_share, "check", number)
            for number, block in enumerate(self._blocks())
        ]

    def _blocks(self) -> list[IntArray]:
        return [
            self.checked[start : start + CHECK_BLOCK] for start in range(0, len(self.checked), CHECK_BLOCK)
        ]

    def _noising(self, rows: int, mean_share: float, *parts: str | int) -> Noising:
        drawn = generator(self.seed, "noising", *parts)
        return draw_noising(self.executor, rows, self.signals, mean_share, drawn)

    def decode(self, name: str, latents: Tensor) -> Tensor:
        """Standardised features of latents, differentiable."""
        return self.decoders[name].decode(latents)

    def inputs(self, data: PairData, pairs: IntArray) -> tuple[ExecutorInput, Conditions]:
        """The executor's input for some pairs, and what steers it."""
        evidence, _ = self.source.evidence(data, pairs, self.plan_table)
        batch = data.executor_input(pairs, self.plan_table, evidence, self.device)
        return batch, self.executor.conditions(batch, self._anchors(data, pairs, batch.evidence))

    def losses(self, data: PairData, pairs: IntArray, noising: Noising) -> Losses:
        """Every term of the objective for some pairs."""
        batch, conditions = self.inputs(data, pairs)
        return objective(
            self.executor,
            batch,
            conditions,
            data.targets(pairs, self.device),
            noising,
            self.decode,
            self.encoder.embed_one,
            self.weights.task_state,
        )

    def _anchors(self, data: PairData, pairs: IntArray, evidence: dict[str, Tensor]) -> dict[str, Tensor]:
        visible = data.visible(pairs).to(self.device)
        return {
            name: self.executor.anchor(name, data.anchor_parts(name, pairs, evidence[name].detach()), visible)
            * ~visible[:, column : column + 1]
            for column, name in enumerate(data.names)
        }

    def check(self) -> dict[str, float]:
        """The terms on validation pairs, with noise that is the same at every call."""
        totals: dict[str, float] = {}
        self.executor.eval()
        with torch.no_grad():
            for block, noising in zip(self._blocks(), self.checked_noising, strict=True):
                losses = self.losses(self.validation, block, noising)
                parts = {
                    "denoising": losses.denoising,
                    "mean": losses.mean,
                    "plan": losses.plan,
                    "evidence": losses.evidence,
                    "task": losses.task,
                    "total": losses.total(self.weights),
                }
                for name, value in parts.items():
                    totals[name] = totals.get(name, 0.0) + float(value) * len(block)
        return {name: value / len(self.checked) for name, value in totals.items()}

    def train(
        self,
        epochs: int,
        workspace: Workspace | None,
        on_epoch: EpochCallback | None = None,
    ) -> list[dict[str, float]]:
        """Train in place; the best epoch's averaged weights stay.

        Args:
            epochs: Epochs at most.
            workspace: Where to keep a checkpoint, and to go on from one; None to keep nothing.
            on_epoch: Told of every epoch.
        """
        trained: nn.Module = nn.ModuleDict({"executor": self.executor})
        if self.train_projection:
            trained = nn.ModuleDict({"executor": self.executor, "query": self.source.projection})
        optimiser = torch.optim.Adam(
            [p for p in trained.parameters() if p.requires_grad],
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            foreach=True,
        )
        progress = _Progress(trained, optimiser, self.settings)
        if workspace is not None and workspace.has("executor-progress"):
            progress.restore(*workspace.load("executor-progress"))
        saved = -math.inf
        with _accelerator(self.device, self.settings.precision) as accelerator:
            while progress.epoch < epochs and not progress.exhausted:
                self._epoch(trained, optimiser, progress, accelerator)
                with progress.averaged():
                    checked = self.check()
                progress.finish_epoch(checked)
                if workspace is not None and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                    workspace.save("executor-progress", *progress.snapshot())
                    saved = time.monotonic()
                if on_epoch is not None:
                    on_epoch(progress.epoch, epochs, checked["total"])
        if not math.isfinite(progress.best_total):
            raise OmgError(
                "a finite loss on validation rows was expected, in no epoch was there one: look at the data "
                "with omg data check, or lower optimiser.learning_rate"
            )
        progress.load_best()
        self.executor.eval()
        return progress.history

    def _epoch(
        self, trained: nn.Module, optimiser: torch.optim.Optimizer, progress: _Progress, accelerator: Any
    ) -> None:
        trained.train()
        pairs = self.training.pool.draw(self.seed, progress.epoch)
        size = self.settings.batch_size
        with seeded(self.seed, "executor", progress.epoch):
            for start in range(0, len(pairs), size):
                batch = pairs[start : start + size]
                noising = self._noising(len(batch), self.weights.mean_share, progress.epoch, start)
                with accelerator.autocast():
                    total = self.losses(self.training, batch, noising).total(self.weights)
                optimiser.zero_grad(set_to_none=True)
                accelerator.backward(total)
                nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
                optimiser.step()
                progress.average()


@contextmanager
def _accelerator(device: torch.device, precision: str) -> Iterator[Any]:
    """Accelerate for one training.

    It keeps device and precision for the whole process and refuses others: a run has them to itself, so that
    one process can train in both precisions, and a host program finds its own as they were.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    shared = (PartialState._shared_state, AcceleratorState._shared_state)
    kept = [dict(state) for state in shared]
    for state in shared:
        state.clear()
    try:
        yield Accelerator(cpu=device.type == "cpu", mixed_precision="bf16" if precision == "bf16" else "no")
    finally:
        for state, values in zip(shared, kept, strict=True):
            state.clear()
            state.update(values)


class _Progress:
    """What must survive between epochs: weights, their average, the optimiser, the schedule, the best."""

    def __init__(
        self, trained: nn.Module, optimiser: torch.optim.Optimizer, settings: OptimiserSettings
    ) -> None:
        self.trained = trained
        self.optimiser = optimiser
        self.settings = settings
        self.epoch = 0
        self.steps = 0
        self.history: list[dict[str, float]] = []
        self.best_total = math.inf
        self.best_epoch = 0
        self.last_cut = 0
        self.mean = {name: p.detach().clone() for name, p in trained.named_parameters()}
        self.best = {name: value.clone() for name, value in self.mean.items()}

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.epoch - self.best_epoch >= self.settings.patience

    def average(self) -> None:
        """Move the average towards the weights; it warms up so that the start is soon forgotten."""
        self.steps += 1
        decay = min(self.settings.average, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), list(self.trained.parameters()), weight=1 - decay)

    def averaged(self) -> _Swapped:
        """A context in which the averaged weights stand in for the trained ones."""
        return _Swapped(self.trained, self.mean)

    def finish_epoch(self, checked: dict[str, float]) -> None:
        """Note an epoch's result; keep the best weights, and halve the learning rate on a plateau."""
        self.epoch += 1
        self.history.append(checked)
        if checked["total"] < self.best_total:
            self.best_total, self.best_epoch = checked["total"], self.epoch
            self.best = {name: value.clone() for name, value in self.mean.items()}
        waited = self.epoch - max(self.best_epoch, self.last_cut)
        if waited >= self.settings.plateau_patience:
            self.last_cut = self.epoch
            for group in self.optimiser.param_groups:
                group["lr"] = group["lr"] / 2

    def load_best(self) -> None:
        """Put the best weights into the modules."""
        with torch.no_grad():
            for name, parameter in self.trained.named_parameters():
                parameter.copy_(self.best[name])

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything, as tensors and facts."""
        tensors = {f"weights.{name}": p.detach() for name, p in self.trained.named_parameters()}
        tensors |= {f"mean.{name}": value for name, value in self.mean.items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": value for key, value in state.items()}
        facts = {
            "epoch": self.epoch,
            "steps": self.steps,
            "history": self.history,
            "best_total": self.best_total,
            "best_epoch": self.best_epoch,
            "last_cut": self.last_cut,
            "learning_rate": self.optimiser.param_groups[0]["lr"],
        }
        return tensors, facts

    def restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Go back to a snapshot."""
        self.epoch, self.steps = facts["epoch"], facts["steps"]
        self.history = facts["history"]
        self.best_total, self.best_epoch = facts["best_total"], facts["best_epoch"]
        self.last_cut = facts["last_cut"]
        with torch.no_grad():
            for name, parameter in self.trained.named_parameters():
                parameter.copy_(tensors[f"weights.{name}"])
                self.mean[name].copy_(tensors[f"mean.{name}"])
                self.best[name].copy_(tensors[f"best.{name}"])
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("adam."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        groups[0]["lr"] = facts["learning_rate"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})


class _Swapped:
    """Swaps weights in on entry and back on exit."""

    def __init__(self, module: nn.Module, weights: dict[str, Tensor]) -> None:
        self.module = module
        self.weights = weights

    def __enter__(self) -> None:
        self.kept = {name: p.detach().clone() for name, p in self.module.named_parameters()}
        self._copy(self.weights)

    def __exit__(self, *_: object) -> None:
        self._copy(self.kept)

    def _copy(self, weights: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                parameter.copy_(weights[name])


def fit_trust(trainer: ExecutorTrainer) -> dict[str, list[float]]:
    """How much of the network's mean estimate to add, from 0 to 1, on validation pairs.

    Least squares through the origin for each modality and number of observed ones: zero where the network
    knows nothing that the anchor doesn't, or was not met on those pairs.
    """
    executor, data = trainer.executor, trainer.validation
    executor.eval()
    modalities = len(executor.names)
    products = torch.zeros(2, modalities, modalities, dtype=torch.float64, device=trainer.device)
    with torch.no_grad():
        for start in range(0, len(trainer.checked), CHECK_BLOCK):
            pairs = trainer.checked[start : start + CHECK_BLOCK]
            batch, conditions = trainer.inputs(data, pairs)
            residuals = executor.mean_residuals(batch, conditions)
            targets = data.targets(pairs, trainer.device)
            count = (batch.observed.sum(dim=1) - 1).clamp(min=0)
            for column, name in enumerate(executor.names):
                anchor, rows = conditions.anchor[name], targets.known[:, column]
                truth = targets.latents[name] - anchor
                guess = executor.latent_estimate(name, residuals[name], torch.zeros_like(anchor))
                for place, terms in enumerate((truth * guess, guess.square())):
                    products[place, column].index_add_(0, count[rows], terms.sum(dim=1)[rows].double())
    trust = (products[0] / products[1].clamp(min=1e-12)).clamp(0.0, 1.0)
    executor.trust.copy_(trust)
    return dict(zip(executor.names, trust.tolist(), strict=True))
