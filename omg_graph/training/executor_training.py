"""The executor trained under the whole objective, resumable after any epoch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from omg_graph.codecs.latents import LatentSpace
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.errors import OmgError
from omg_graph.executor.denoiser import Conditions, Denoiser
from omg_graph.executor.diffusion import make_scheduler
from omg_graph.executor.executor import Executor, ExecutorInput
from omg_graph.executor.objective import (
    Losses,
    Noising,
    Objective,
    ObjectiveWeights,
    draw_noising,
    objective,
)
from omg_graph.model.config import ModelConfig
from omg_graph.seeding import derived_seed, generator, seeded
from omg_graph.training.cache import Checkpoint, Content, weights_of
from omg_graph.training.config import OptimiserSettings
from omg_graph.training.evidence import EvidenceSource
from omg_graph.training.fitting import EpochCallback
from omg_graph.training.rows import IntArray, PairData

CHECK_BLOCK = 256
CHECKPOINT_SECONDS = 10.0
"""Shortest time between checkpoints: repeating a short epoch is cheaper, and gives the same weights."""
ANCHOR_SAMPLE = 20_000
MOST_PATTERNS = 256
"""The most frequent observed sets, which get their own anchor weights."""


@dataclass(frozen=True)
class PlanView:
    """How a batch of training pairs is seen."""

    taught: bool = False
    """Under the teacher's plans, which are to be trusted, or under the planner's own out-of-fold ones."""
    counterfactual: bool = False
    """With the observations of other rows, while plan and evidence are their own."""


@dataclass
class ExecutorTrainer:
    """State and inputs of one training of the executor."""

    executor: Executor
    source: EvidenceSource
    encoder: ObservationEncoder
    latent_space: LatentSpace
    views: Mapping[PlanView, PairData]
    """Training pairs, as a batch may see them."""
    validation: PairData
    checked: IntArray
    """Validation pairs that choose the epoch."""
    weights: ObjectiveWeights
    seed: int
    train_projection: bool
    device: torch.device
    objective: Objective = objective

    def __post_init__(self) -> None:
        scheduler = make_scheduler(
            self.executor.config.sampler, self.executor.config.train_steps, self.executor.config.prediction
        )
        self.signals: Tensor = scheduler.alphas_cumprod.float().to(self.device)
        self.executor.denoiser.guidable.fill_(self.weights.condition_dropout > 0)
        self.executor.to(self.device)
        # copies: the originals continue to encode on the CPU
        self.encoder = deepcopy(self.encoder).to(self.device).requires_grad_(False)
        self.decoders = {
            name: deepcopy(codec.network).to(self.device) for name, codec in self.latent_space.codecs.items()
        }
        self.checked_noising = [
            self.noising(len(block), "check", number) for number, block in enumerate(blocks_of(self.checked))
        ]

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What is trained and kept."""
        return {"executor": self.executor, "query": self.source.projection}

    def noising(self, rows: int, *parts: str | int) -> Noising:
        """What is random in a batch, by the seed and ``parts`` alone."""
        drawn = generator(self.seed, "noising", *parts)
        return draw_noising(self.executor, rows, self.signals, self.weights, drawn)

    def decode(self, name: str, latents: Tensor) -> Tensor:
        """Standardised features of latents, differentiable."""
        return self.decoders[name].decode(latents)

    def inputs(self, data: PairData, pairs: IntArray) -> tuple[ExecutorInput, Conditions]:
        """The executor's input for some pairs, and what steers it."""
        evidence, _ = self.source.evidence(data, pairs)
        batch = data.executor_input(pairs, evidence, self.device)
        return batch, self.executor.conditions(batch, self._anchors(data, pairs, batch))

    def losses(self, data: PairData, pairs: IntArray, noising: Noising) -> Losses:
        """Every term of the objective for some pairs."""
        batch, conditions = self.inputs(data, pairs)
        return self.objective(
            self.executor,
            batch,
            conditions,
            data.targets(pairs, self.device),
            noising,
            self.decode,
            self.encoder.embed_one,
        )

    def _anchors(self, data: PairData, pairs: IntArray, batch: ExecutorInput) -> dict[str, Tensor]:
        """The anchors from cross-fitted estimates, without a gradient to the evidence."""
        mixture = self.executor.anchor
        return {
            name: mixture.combined(
                name, data.prior_parts(name, pairs, mixture, batch).detach(), batch.observed
            )
            * ~batch.observed[:, column : column + 1]
            for column, name in enumerate(data.names)
        }

    def check(self) -> dict[str, float]:
        """The terms on validation pairs, with noise that is the same at every call."""
        totals: dict[str, float] = {}
        self.executor.eval()
        with torch.no_grad():
            for block, noising in zip(blocks_of(self.checked), self.checked_noising, strict=True):
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
        settings: OptimiserSettings,
        checkpoint: Checkpoint | None = None,
        on_epoch: EpochCallback | None = None,
    ) -> list[dict[str, float]]:
        """Train in place; the best epoch's averaged weights stay.

        Args:
            settings: Epochs, steps and patience.
            checkpoint: Where progress is saved and resumed from; None to save nothing.
            on_epoch: Called after every epoch.

        Returns:
            Every epoch's terms on validation pairs.

        Raises:
            OmgError: if no epoch has a finite loss.
        """
        trained = nn.ModuleDict({"executor": self.executor})
        if self.train_projection:
            trained["query"] = self.source.projection
        progress = _Progress(trained, settings)
        if checkpoint is not None and (kept := checkpoint.load()) is not None:
            progress.restore(*kept)
        saved = -math.inf
        while progress.epoch < settings.epochs and not progress.exhausted:
            self._epoch(progress)
            with progress.averaged():
                checked = self.check()
                progress.finish_epoch(checked)
            if checkpoint is not None and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                checkpoint.save(*progress.snapshot())
                saved = time.monotonic()
            if on_epoch is not None:
                on_epoch(progress.epoch, settings.epochs, checked["total"])
        if not math.isfinite(progress.plateau.best):
            raise OmgError(
                "expected a finite loss on validation rows, no epoch had one: look at the data with omg "
                "data check, or lower optimiser.learning_rate"
            )
        trained.load_state_dict(progress.best, strict=False)
        self.executor.eval()
        return progress.history

    def _epoch(self, progress: _Progress) -> None:
        trained, settings = progress.trained.train(), progress.settings
        pairs = self.training.pool.draw(self.seed, progress.epoch)
        random = np.random.default_rng(derived_seed(self.seed, "plans", progress.epoch))
        with seeded(self.seed, "executor", progress.epoch):
            for start in range(0, len(pairs), settings.batch_size):
                batch = pairs[start : start + settings.batch_size]
                noising = self.noising(len(batch), progress.epoch, start)
                # not Accelerate's: it keeps one precision for the whole process, and for its host's training
                with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
                    total = self.losses(self._view(random), batch, noising).total(self.weights)
                progress.optimiser.zero_grad(set_to_none=True)
                total.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
                progress.optimiser.step()
                progress.mean.step(trained.parameters())

    @property
    def training(self) -> PairData:
        """Training pairs under the planner's own plans."""
        return self.views[PlanView()]

    def _view(self, random: np.random.Generator) -> PairData:
        """Whose plans and observations the next batch is trained under."""
        taught, counterfactual = random.random(2) < (
            self.weights.teacher_share,
            self.weights.counterfactual_share,
        )
        taught = bool(taught) and PlanView(taught=True) in self.views
        return self.views[PlanView(taught, bool(counterfactual))]


def blocks_of(pairs: IntArray) -> list[IntArray]:
    """Pairs in blocks that are measured together."""
    return [pairs[start : start + CHECK_BLOCK] for start in range(0, len(pairs), CHECK_BLOCK)]


class _Progress:
    """State that is resumed between epochs: weights, their average, optimiser, schedule and best epoch."""

    def __init__(self, trained: nn.ModuleDict, settings: OptimiserSettings) -> None:
        self.trained, self.settings = trained, settings
        self.optimiser = torch.optim.Adam(
            [parameter for parameter in trained.parameters() if parameter.requires_grad],
            lr=settings.learning_rate,
            foreach=True,
        )
        # its decay warms up, so that the start is soon forgotten
        self.mean = EMAModel(trained.parameters(), decay=settings.average, foreach=True)
        plateau = max(1, settings.patience // 3)
        self.plateau = ReduceLROnPlateau(self.optimiser, factor=0.5, patience=plateau - 1, threshold=0.0)
        self.history: list[dict[str, float]] = []
        self.best_epoch = 0
        self.best: dict[str, Tensor] = {}

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.epoch - self.best_epoch >= self.settings.patience

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """A context in which the averaged weights stand in for the trained ones."""
        parameters = list(self.trained.parameters())
        self.mean.store(parameters)
        self.mean.copy_to(parameters)
        yield
        self.mean.restore(parameters)

    def finish_epoch(self, checked: dict[str, float]) -> None:
        """Note an epoch's result; keep the averaged weights if they are the best, and halve a stale rate."""
        self.history.append(checked)
        if checked["total"] < self.plateau.best:
            self.best_epoch = self.epoch
            self.best = {name: p.detach().clone() for name, p in self.trained.named_parameters()}
        self.plateau.step(checked["total"])

    def snapshot(self) -> Content:
        """Everything, as tensors and facts."""
        tensors = {f"weights.{name}": p.detach() for name, p in self.trained.named_parameters()}
        tensors |= {f"mean.{number}": value for number, value in enumerate(self.mean.shadow_params)}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{key}": value for key, value in state.items()}
        facts = {
            "history": self.history,
            "steps": self.mean.optimization_step,
            "best": [self.plateau.best, self.best_epoch, self.plateau.num_bad_epochs],
            "learning_rate": self.optimiser.param_groups[0]["lr"],
        }
        return tensors, facts

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Go back to a snapshot."""
        self.history = list(facts["history"])
        self.plateau.best, self.best_epoch, self.plateau.num_bad_epochs = facts["best"]
        self.mean.optimization_step = facts["steps"]
        with torch.no_grad():
            for name, parameter in self.trained.named_parameters():
                parameter.copy_(tensors[f"weights.{name}"])
            for number, value in enumerate(self.mean.shadow_params):
                value.copy_(tensors[f"mean.{number}"])
        self.best = weights_of(tensors, "best.")
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in weights_of(tensors, "adam.").items():
            index, name = key.split(".", 1)
            state.setdefault(int(index), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        groups[0]["lr"] = facts["learning_rate"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})


def new_executor(
    config: ModelConfig,
    priors: Mapping[str, nn.Module],
    seed: int,
    denoiser: type[Denoiser] = Denoiser,
    tokens: Mapping[str, int] | None = None,
) -> Executor:
    """The executor with its first weights, and copies of the priors."""
    with seeded(seed, "executor weights"):
        executor = Executor(
            config.executor,
            config.modalities,
            config.latent_widths,
            config.shared_width,
            denoiser,
            tokens,
        )
        if config.task is not None:
            executor.add_task(config.task)
    executor.anchor.priors.update(deepcopy(dict(priors)))
    return executor


def fit_anchor(
    executor: Executor, source: EvidenceSource, data: PairData, sampled: Container[str] = ()
) -> None:
    """The priors' weights and residual scales, on training pairs with cross-fitted estimates.

    Args:
        executor: Whose they are.
        source: Of evidence.
        data: The pairs.
        sampled: Modalities whose estimate is a draw: nothing is subtracted from them, since the spread around
            a mean differs from row to row where one meaning has many appearances.
    """
    pairs = data.pool.spaced(data.pool.everything, ANCHOR_SAMPLE)
    blocks = [pairs[start : start + 512] for start in range(0, len(pairs), 512)]
    with torch.no_grad():
        found = [source.evidence(data, block)[0] for block in blocks]
    evidence = {name: torch.cat([block[name] for block in found]) for name in data.names}
    rows = data.rows(pairs)
    shown = replace(data.shown(pairs), evidence=evidence)
    sets, counts = np.unique(data.pool.visible, axis=0, return_counts=True)
    patterns = torch.from_numpy(sets[np.argsort(-counts, kind="stable")[:MOST_PATTERNS]])
    scales = []
    for column, (name, truth) in enumerate(data.latents.items()):
        wanted = data.wanted(pairs)[:, column]
        if not bool(wanted.any()):
            scales.append(1.0)
            continue
        parts = data.prior_parts(name, pairs, executor.anchor, shown)[wanted]
        if name in sampled:
            parts = torch.zeros_like(parts)
        target, visible = truth[rows][wanted], shown.observed[wanted]
        executor.anchor.fit_weights(name, target, parts, visible, patterns)
        residuals = target - executor.anchor.combined(name, parts, visible)
        scales.append(max(float(residuals.square().mean().sqrt()), 1e-6))
    executor.residual_scale.copy_(torch.tensor(scales))


def kept_weights(trainer: ExecutorTrainer) -> dict[str, Tensor]:
    """The weights of all that is trained."""
    return {
        f"{part}.{key}": value
        for part, module in trainer.modules.items()
        for key, value in module.state_dict().items()
    }


def put_weights(trainer: ExecutorTrainer, tensors: Mapping[str, Tensor]) -> None:
    """Put kept weights back, ready to be asked."""
    for part, module in trainer.modules.items():
        module.load_state_dict(weights_of(tensors, f"{part}."))
        module.eval().requires_grad_(False)


def train_executor(
    trainer: ExecutorTrainer,
    settings: OptimiserSettings,
    *,
    checkpoint: Checkpoint,
    after_epoch: Callable[[ExecutorTrainer, int, int, float], None],
) -> Content:
    """The stage: the executor of the best epoch, with the history of all epochs."""
    history = trainer.train(settings, checkpoint, lambda *epoch: after_epoch(trainer, *epoch))
    best = min(range(len(history)), key=lambda epoch: history[epoch]["total"])
    return kept_weights(trainer), {
        "epochs": len(history),
        "best_epoch": best + 1,
        "loss": history[best]["total"],
        "history": history,
    }
