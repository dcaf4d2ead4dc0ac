"""The executor: from observation, plan and evidence to the missing modality and the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from omg_graph.encoders.per_modality import PerModality
from omg_graph.executor.anchor import Anchor, AnchorKind
from omg_graph.executor.denoiser import Conditions, Denoiser
from omg_graph.executor.diffusion import Prediction, SamplerName
from omg_graph.executor.gaussian import GaussianConditional
from omg_graph.executor.sampling import DenoisingPath, StepCallback, denoise
from omg_graph.executor.task import TaskHead, TaskHeadConfig
from omg_graph.samples.dataset import ModalitySpec

PointEstimate = Literal["mean", "sample"]


class ExecutorConfig(BaseModel):
    """Settings of the executor that belong to a trained model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prediction: Prediction = "v"
    sampler: SamplerName = "dpm-solver++"
    train_steps: int = Field(default=1000, ge=2)
    """T."""
    sample_steps: int = Field(default=20, ge=1)
    anchor: AnchorKind = "mixture"
    point_estimate: PointEstimate = "mean"
    """``mean``: a forward pass trained for the conditional mean; ``sample``: draw 0, as in the paper."""
    width: int = Field(default=128, ge=8)
    layers: int = Field(default=4, ge=2)
    shallow_layers: tuple[int, ...] = (0, 1)
    deep_layers: tuple[int, ...] = (2, 3)
    heads: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    observed_slots: bool = True

    @model_validator(mode="after")
    def _layers_fit(self) -> ExecutorConfig:
        if self.width % 2 or self.width % self.heads:
            raise ValueError(
                f"width must be even and a multiple of heads; {self.width} and {self.heads} came"
            )
        outside = [layer for layer in self.shallow_layers + self.deep_layers if not 0 <= layer < self.layers]
        if outside:
            raise ValueError(
                f"shallow and deep layers are numbered from 0 to {self.layers - 1}; {outside} came"
            )
        if self.sample_steps > self.train_steps:
            raise ValueError(
                f"sample_steps can't exceed train_steps; {self.sample_steps} and {self.train_steps} came"
            )
        return self


@dataclass(frozen=True)
class ExecutorInput:
    """A batch as the executor sees it; everything missing is zero."""

    ids: tuple[str, ...]
    latents: dict[str, Float[Tensor, "batch _"]]
    observed: Bool[Tensor, "batch modality"]
    observation: Float[Tensor, "batch shared"]
    """u_X."""
    plan: Float[Tensor, "batch constraint shared"]
    """g of the whole plan first, then of each constraint."""
    evidence: dict[str, Float[Tensor, "batch _"]]
    """E (Eq. 8); zeros where a modality is observed or nothing was found."""


class Executor(nn.Module):
    """pi_E: the denoiser with all that is fitted around it."""

    def __init__(
        self, config: ExecutorConfig, specs: Sequence[ModalitySpec], widths: dict[str, int], shared_width: int
    ) -> None:
        super().__init__()
        self.config = config
        self.specs = {spec.name: spec for spec in specs}
        self.widths = widths
        self.names = tuple(widths)
        self.denoiser = Denoiser(
            latent_widths=widths,
            shared_width=shared_width,
            width=config.width,
            layers=config.layers,
            shallow_layers=config.shallow_layers,
            deep_layers=config.deep_layers,
            heads=config.heads,
            dropout=config.dropout,
            observed_slots=config.observed_slots,
        )
        self.gaussian = GaussianConditional(widths)
        self.anchor = Anchor(self.names, config.anchor)
        self.alignment = PerModality(
            {name: nn.Linear(width, low_level_size(self.specs[name])) for name, width in widths.items()}
        )
        """A of Eq. 14: evidence to low-level features."""
        self.register_buffer("residual_scale", torch.ones(len(widths)))
        self.register_buffer("trust", torch.ones(len(widths)))
        self.residual_scale: Tensor
        """Deviation of what the anchor leaves, for each modality: diffusion works on unit residuals."""
        self.trust: Tensor
        """How much of the network's mean estimate to add to the anchor, fitted on validation rows."""
        self.task: TaskHead | None = None

    def add_task(self, config: TaskHeadConfig) -> None:
        """Give the executor a task head."""
        self.task = TaskHead(config)

    def anchors(self, batch: ExecutorInput) -> dict[str, Float[Tensor, "batch _"]]:
        """The anchor of every modality, in latent units; zero where it is observed."""
        out = {}
        for column, name in enumerate(self.names):
            evidence = batch.evidence[name]
            gaussian = (
                self.gaussian.predict(name, batch.latents, batch.observed)
                if self.config.anchor in ("gaussian", "mixture")
                else torch.zeros_like(evidence)
            )
            missing = ~batch.observed[:, column : column + 1]
            out[name] = self.anchor(name, evidence, gaussian, batch.observed) * missing
        return out

    def conditions(self, batch: ExecutorInput, anchors: Mapping[str, Float[Tensor, "batch _"]]) -> Conditions:
        """What steers the denoiser."""
        return Conditions(batch.observation, batch.plan, batch.evidence, dict(anchors), batch.observed)

    def latent_estimate(
        self, name: str, residual: Tensor, anchor: Tensor, trust: Tensor | float = 1.0
    ) -> Float[Tensor, "batch latent"]:
        """Anchor and residual put together, in latent units."""
        scale = self.residual_scale[self.names.index(name)]
        return anchor + trust * scale * residual

    def mean_residuals(
        self, batch: ExecutorInput, conditions: Conditions
    ) -> dict[str, Float[Tensor, "batch _"]]:
        """The expected residual of every modality, by the denoiser's mean token: one forward pass."""
        rows = len(batch.ids)
        zeros = {name: torch.zeros_like(value) for name, value in batch.latents.items()}
        every = torch.ones(rows, dtype=torch.bool, device=batch.observation.device)
        time = torch.zeros(rows, device=batch.observation.device)
        outputs: dict[str, Tensor] = self.denoiser(zeros, batch.latents, time, conditions, every)
        return outputs

    def estimate(self, batch: ExecutorInput, conditions: Conditions) -> dict[str, Float[Tensor, "batch _"]]:
        """The point estimate of every modality's latents: the conditional mean."""
        residuals = self.mean_residuals(batch, conditions)
        return {
            name: self.latent_estimate(name, residuals[name], conditions.anchor[name], self.trust[column])
            for column, name in enumerate(self.names)
        }

    def draw(
        self,
        batch: ExecutorInput,
        conditions: Conditions,
        *,
        seed: int,
        draw: int,
        steps: int | None = None,
        on_step: StepCallback | None = None,
    ) -> dict[str, DenoisingPath]:
        """One sample of all missing modalities jointly, with the whole path, in residual units.

        Raises:
            ConfigError: if ``steps`` isn't between 1 and T.
        """
        return denoise(
            self.denoiser,
            batch.latents,
            conditions,
            self.widths,
            batch.ids,
            seed=seed,
            draw=draw,
            steps=self.config.sample_steps if steps is None else steps,
            sampler=self.config.sampler,
            train_steps=self.config.train_steps,
            prediction=self.config.prediction,
            on_step=on_step,
        )

    def fill(
        self, batch: ExecutorInput, estimates: Mapping[str, Float[Tensor, "batch _"]]
    ) -> dict[str, Float[Tensor, "batch _"]]:
        """One latent slot for each modality: encoded if observed, estimated if missing."""
        return {
            name: torch.where(batch.observed[:, column : column + 1], batch.latents[name], estimates[name])
            for column, name in enumerate(self.names)
        }


def low_level_size(spec: ModalitySpec) -> int:
    """How many low-level features phi takes from one modality."""
    return int(low_level_features(spec, torch.zeros(1, spec.size)).shape[1])


def low_level_features(
    spec: ModalitySpec, standard: Float[Tensor, "batch size"]
) -> Float[Tensor, "batch feature"]:
    """Phi of Eq. 14, which is fixed: nothing in it learns.

    Vectors: the features themselves. Sequences: mean, deviation and mean absolute difference of up to four
    windows. Images: a coarse copy.
    """
    if spec.kind == "vector":
        return standard
    shaped = standard.reshape(len(standard), *spec.shape)
    if spec.kind == "image":
        channels = shaped if shaped.ndim == 4 else shaped.unsqueeze(1)
        grid = (min(16, channels.shape[2]), min(16, channels.shape[3]))
        return F.adaptive_avg_pool2d(channels, grid).flatten(1)
    if spec.shape[0] == 1:
        return standard
    parts = []
    for window in shaped.tensor_split(min(4, spec.shape[0]), dim=1):
        parts += [window.mean(1), (window.var(1, unbiased=False) + 1e-6).sqrt()]
        steps = window.diff(dim=1).abs()
        parts.append(steps.mean(1) if steps.shape[1] else torch.zeros_like(window[:, 0]))
    return torch.cat(parts, dim=1)
