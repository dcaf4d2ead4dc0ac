"""The executor's multi-task objective (Eqs. 14-18), on one-step estimates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional as F

from omg_graph.executor.denoiser import Conditions
from omg_graph.executor.diffusion import add_noise, clean_estimate, regression_target
from omg_graph.executor.executor import Executor, ExecutorInput

Decode = Callable[[str, Tensor], Tensor]
"""(modality, latents) to standardised features, differentiable: the autoencoder's decoder."""
EmbedReconstruction = Callable[[str, Tensor], Tensor]
"""(modality, latents) to the shared space: psi's branch for that modality."""


class ObjectiveWeights(BaseModel):
    """Weights of the objective's terms; 0.1 each is the paper's Appendix A."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    plan: float = Field(default=0.1, ge=0)
    """lambda_p of Eq. 15."""
    evidence: float = Field(default=0.1, ge=0)
    """lambda_e of Eq. 15."""
    task: float = Field(default=0.1, ge=0)
    """lambda_task of Eq. 18."""
    mean_share: float = Field(default=0.5, ge=0, lt=1)
    """Share of the batch that trains the mean estimate instead of the denoising of a noisy state."""
    condition_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of rows without their plan, and of rows without their evidence: guidance needs some of each."""
    teacher_share: float = Field(default=0.0, ge=0, le=1)
    """Share of batches under the teacher's plans, as plans to trust; the rest is under the planner's own."""
    counterfactual_share: float = Field(default=0.0, ge=0, le=1)
    """Share of batches that show other rows' observations, so that plan and evidence decide alone."""


@dataclass(frozen=True)
class Noising:
    """The random inputs of one evaluation of the objective, passed in so that it can be repeated."""

    time: Float[Tensor, " batch"]
    signal: Float[Tensor, "batch 1"]
    """abar at ``time``."""
    noise: dict[str, Float[Tensor, "batch _"]]
    mean: Bool[Tensor, " batch"]
    """Rows that train the mean estimate."""
    plan_given: Bool[Tensor, " batch"]
    evidence_given: Bool[Tensor, " batch"]
    """Rows that keep their plan, and rows that keep their evidence."""


@dataclass(frozen=True)
class Losses:
    """The terms of Eqs. 14-18, each a mean over the batch."""

    denoising: Tensor
    mean: Tensor
    plan: Tensor
    evidence: Tensor
    task: Tensor

    def total(self, weights: ObjectiveWeights) -> Float[Tensor, ""]:
        """L_total = L_rec + lambda_task L_task (Eq. 18), with L_rec by Eq. 15."""
        reconstruction = (
            self.denoising + self.mean + weights.plan * self.plan + weights.evidence * self.evidence
        )
        return reconstruction + weights.task * self.task


@dataclass(frozen=True)
class Targets:
    """The ground truth of a batch."""

    latents: dict[str, Float[Tensor, "batch _"]]
    """True latents; zeros where unknown."""
    known: Bool[Tensor, "batch modality"]
    """Slots that are missing from the input but known: the loss is over these alone."""
    label: Float[Tensor, " batch"] | None
    """The number or class index, NaN where there is none."""


def draw_noising(
    executor: Executor,
    rows: int,
    signals: Float[Tensor, " time"],
    weights: ObjectiveWeights,
    generator: torch.Generator,
) -> Noising:
    """What is random in a batch; all of it on the CPU, then moved to the signals' device."""
    time = torch.randint(0, len(signals), (rows,), generator=generator)
    noise = {name: torch.randn(rows, width, generator=generator) for name, width in executor.widths.items()}
    mean = torch.rand(rows, generator=generator) < weights.mean_share
    given = torch.rand(2, rows, generator=generator) >= weights.condition_dropout
    device = signals.device
    return Noising(
        time.float().to(device),
        signals[time.to(device)].unsqueeze(1),
        {name: value.to(device) for name, value in noise.items()},
        mean.to(device),
        *given.to(device),
    )


def objective(
    executor: Executor,
    batch: ExecutorInput,
    conditions: Conditions,
    targets: Targets,
    noising: Noising,
    decode: Decode,
    embed: EmbedReconstruction,
) -> Losses:
    """Every term of the objective for one batch.

    One-step estimates of noisy rows (Eq. 16) are weighted by their signal level abar in L_plan, L_evi and
    L_task: near T they carry no information on the clean latent.
    """
    prediction = executor.config.prediction
    conditions = conditions.given(noising.plan_given, noising.evidence_given)
    clean, noisy = noised(executor, conditions, targets, noising)
    outputs = executor.denoiser(noisy, batch.latents, noising.time, conditions, noising.mean)
    mean_rows = noising.mean.unsqueeze(1)
    weight = signal_level(batch, noising)
    denoising, mean, plan, evidence = [], [], [], []
    estimates: dict[str, Tensor] = {}
    for column, name in enumerate(executor.names):
        known = targets.known[:, column]
        target = regression_target(clean[name], noising.noise[name], noising.signal, prediction)
        denoising.append(_mean((outputs[name] - target).square().mean(1), known & ~noising.mean))
        mean.append(_mean((outputs[name] - clean[name]).square().mean(1), known & noising.mean))
        one_step = clean_estimate(noisy[name], outputs[name], noising.signal, prediction)
        residual = torch.where(mean_rows, outputs[name], one_step)
        estimates[name] = executor.latent_estimate(name, residual, conditions.anchor[name])
        plan.append(
            _mean(
                weight * plan_consistency(embed(name, estimates[name]), conditions.plan[:, 0]),
                known & conditions.plan_given,
            )
        )
        features = executor.low_level(name, decode(name, estimates[name]))
        aligned = executor.alignment[name](conditions.evidence[name])
        evidence.append(
            _mean(weight * evidence_consistency(features, aligned), known & conditions.evidence_given)
        )
    return Losses(
        _average(denoising),
        _average(mean),
        _average(plan),
        _average(evidence),
        task_loss(executor, batch, estimates, targets, weight),
    )


Objective = Callable[..., Losses]
"""Takes what ``objective`` takes."""


def noised(
    executor: Executor, conditions: Conditions, targets: Targets, noising: Noising
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Residuals from the anchor at unit scale, and their noisy states z_t."""
    clean, noisy = {}, {}
    for column, name in enumerate(executor.names):
        residual = (targets.latents[name] - conditions.anchor[name]) / executor.residual_scale[column]
        # a slot with unknown truth is noised around its anchor, and left out of the loss
        clean[name] = residual * targets.known[:, column : column + 1]
        noisy[name] = add_noise(clean[name], noising.noise[name], noising.signal)
    return clean, noisy


def signal_level(batch: ExecutorInput, noising: Noising) -> Float[Tensor, " batch"]:
    """Abar of each row; 1 where nothing is noised."""
    certain = noising.mean | batch.observed.all(dim=1)
    return torch.where(certain, torch.ones_like(noising.time), noising.signal.squeeze(1))


def plan_consistency(
    reconstruction: Float[Tensor, "batch shared"], plan: Float[Tensor, "batch shared"]
) -> Float[Tensor, " batch"]:
    """L_plan = 1 - cos(g(Y^), c_S) of each row (Eq. 14)."""
    return 1 - F.cosine_similarity(reconstruction, plan, dim=-1)


def evidence_consistency(
    features: Float[Tensor, "batch feature"], aligned: Float[Tensor, "batch feature"]
) -> Float[Tensor, " batch"]:
    """L_evi = |phi(Y^) - A(E)|_1 of each row, per feature (Eq. 14)."""
    return (features - aligned).abs().mean(dim=-1)


def task_loss(
    executor: Executor,
    batch: ExecutorInput,
    estimates: Mapping[str, Float[Tensor, "batch _"]],
    targets: Targets,
    weight: Float[Tensor, " batch"],
) -> Float[Tensor, ""]:
    """L_task on u_X and the estimates of Eq. 16 (Eq. 17), weighted by signal level."""
    if executor.task is None or targets.label is None:
        return batch.observation.new_zeros(())
    outputs = executor.task(batch.observation, executor.fill(batch, estimates))
    known = ~targets.label.isnan()
    return _mean(weight * executor.task.loss(outputs, targets.label), known)


def _mean(values: Tensor, rows: Tensor) -> Tensor:
    """The mean over the marked rows; zero with zero gradient if there are none."""
    marked = rows.to(values.dtype)
    return (values * marked).sum() / marked.sum().clamp(min=1.0)


def _average(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).mean()
