"""The executor: from observation, plan and evidence to the missing modality and the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from omg_graph.codecs.codec import codec_class
from omg_graph.data.dataset import ModalitySpec
from omg_graph.encoders.per_modality import PerModality
from omg_graph.errors import ConfigError
from omg_graph.executor.denoiser import Conditions, Denoiser
from omg_graph.executor.diffusion import (
    DenoisingPath,
    Guidance,
    Prediction,
    SamplerName,
    StepCallback,
    denoise,
)
from omg_graph.predictor.task import Predictor, TaskHeadConfig, predictor_class
from omg_graph.priors.mixture import Mixture
from omg_graph.priors.prior import Shown, SimilarRows
from omg_graph.seeding import generator

SIMILAR = 32
"""Nearest kept rows whose residuals a sample's first draws start from."""

PointEstimate = Literal["kind", "mean", "sample"]


class ExecutorConfig(BaseModel):
    """Settings of the executor that belong to a trained model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prediction: Prediction = "v"
    sampler: SamplerName = "dpm-solver++"
    train_steps: int = Field(default=1000, ge=2)
    """T."""
    sample_steps: int = Field(default=20, ge=1)
    priors: tuple[str, ...] = ("evidence", "planned", "kernel")
    """Priors whose weighted sum is subtracted before diffusion (entry points ``omg_graph.priors``)."""
    point_estimate: PointEstimate = "kind"
    """``mean``: a forward pass trained for the conditional mean; ``sample``: draw 0, as in the paper;
    ``kind``: what suits each modality's kind, by its codec."""
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
        injected = self.shallow_layers + self.deep_layers
        outside = [layer for layer in injected if not 0 <= layer < self.layers]
        if outside:
            raise ValueError(
                f"shallow and deep layers are numbered from 0 to {self.layers - 1}; {outside} came"
            )
        if self.sample_steps > self.train_steps:
            raise ValueError(
                f"sample_steps can't exceed train_steps; {self.sample_steps} and {self.train_steps} came"
            )
        return self


@dataclass(frozen=True, kw_only=True)
class ExecutorInput(Shown):
    """A batch as the executor sees it; everything missing is zero."""

    plan: Float[Tensor, "batch constraint shared"]
    """g of the whole plan first, then of each constraint."""
    evidence: dict[str, Float[Tensor, "batch _"]]
    """E (Eq. 8); zeros where a modality is observed or nothing was found."""
    observation: Float[Tensor, "batch shared"]
    """u_X."""
    trusted: Bool[Tensor, " batch"]
    """Whose plan is a person's or a teacher's."""
    label_estimates: Float[Tensor, "batch column"] | None = None
    """The label estimates of the label regression, if there is one."""
    words: Float[Tensor, "batch term"] | None = None
    """Encoded transcripts, if the task head uses them; zeros without a transcript."""


class Executor(nn.Module):
    """pi_E: the denoiser, and everything fitted around it."""

    def __init__(
        self,
        config: ExecutorConfig,
        specs: Sequence[ModalitySpec],
        widths: dict[str, int],
        shared_width: int,
        denoiser: type[Denoiser] = Denoiser,
        tokens: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.specs = {spec.name: spec for spec in specs}
        self.widths = widths
        self.names = tuple(widths)
        self.denoiser = denoiser(
            latent_widths=widths,
            shared_width=shared_width,
            width=config.width,
            layers=config.layers,
            shallow_layers=config.shallow_layers,
            deep_layers=config.deep_layers,
            heads=config.heads,
            dropout=config.dropout,
            observed_slots=config.observed_slots,
            tokens=dict(tokens or {}),
        )
        self.anchor = Mixture(widths, config.priors)
        self.alignment = PerModality(
            {name: nn.Linear(width, self._low_level_width(name)) for name, width in widths.items()}
        )
        """A of Eq. 14: evidence to low-level features."""
        self.register_buffer("residual_scale", torch.ones(len(widths)))
        self.register_buffer("trust", torch.ones(len(widths), len(widths)))
        self.register_buffer("start", torch.tensor(1.0))
        self.register_buffer("guidance_weights", torch.ones(2))
        self.residual_scale: Tensor
        """Standard deviation of each modality's residual from the anchor: diffusion uses unit residuals."""
        self.trust: Tensor
        """(modalities, observed modalities - 1): weight of the network's mean estimate beside the anchor,
        fitted on validation rows."""
        self.start: Tensor
        """Start of draws as a share of T: 1 is pure noise, less is the noised residual of a neighbour."""
        self.guidance_weights: Tensor
        """(2,): of plan and evidence in draws, fitted on validation rows."""
        self.task: Predictor | None = None

    @property
    def guidance(self) -> Guidance:
        """How strongly plan and evidence steer draws where nobody says otherwise."""
        return Guidance(*self.guidance_weights.tolist())

    def add_task(self, config: TaskHeadConfig) -> None:
        """Add the predictor that a configuration names."""
        self.task = predictor_class(config.predictor)(config)

    def with_rows(
        self,
        latents: dict[str, Float[Tensor, "row _"]],
        known: Bool[Tensor, "row modality"],
        ids: Sequence[str],
        groups: Sequence[str],
    ) -> Executor:
        """The same executor, with more rows in the priors that keep rows; all else is shared.

        Args:
            latents: Every modality's latents; any value where unknown.
            known: Which of it is known.
            ids: The rows' ids; rows that are kept already are skipped.
            groups: The rows' groups.
        """
        anchor = self.anchor.with_rows(latents, known, ids, groups)
        if anchor is self.anchor:
            return self
        extended = copy(self)
        extended._modules = {**self._modules, "anchor": anchor}
        return extended

    def anchors(self, batch: ExecutorInput) -> dict[str, Float[Tensor, "batch _"]]:
        """The anchor of every modality, in latent units; zero where it is observed."""
        return {
            name: self.anchor.predict(name, batch) * ~batch.observed[:, column : column + 1]
            for column, name in enumerate(self.names)
        }

    def conditions(self, batch: ExecutorInput, anchors: Mapping[str, Float[Tensor, "batch _"]]) -> Conditions:
        """The denoiser's conditioning inputs."""
        every = torch.ones_like(batch.trusted)
        found = torch.stack([value.any(dim=1) for value in batch.evidence.values()]).any(dim=0)
        return Conditions(
            batch.observation,
            batch.plan,
            batch.evidence,
            dict(anchors),
            batch.observed,
            batch.trusted,
            every,
            found | ~self.denoiser.guidable,
        )

    def latent_estimate(
        self, name: str, residual: Tensor, anchor: Tensor, trust: Tensor | float = 1.0
    ) -> Float[Tensor, "batch latent"]:
        """Anchor plus residual, in latent units."""
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
        count = (batch.observed.sum(dim=1) - 1).clamp(min=0)
        return {
            name: self.latent_estimate(
                name, residuals[name], conditions.anchor[name], self.trust[column, count].unsqueeze(1)
            )
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
        guidance: Guidance | None = None,
        similar: Mapping[str, SimilarRows] | None = None,
        on_step: StepCallback | None = None,
    ) -> dict[str, DenoisingPath]:
        """One sample of all missing modalities jointly, with the whole path, in residual units.

        ``similar`` is the result of ``similar_rows`` for the batch, to compute it once for many draws.

        Raises:
            ConfigError: if ``steps`` isn't between 1 and T, or guidance is asked for and wasn't trained.
        """
        guidance = guidance or self.guidance
        if guidance != Guidance() and not bool(self.denoiser.guidable):
            raise ConfigError(
                f"expected guidance weights of 1 for a model that always had plan and evidence, "
                f"got {guidance.plan:g} and {guidance.evidence:g}: train it again, or leave them out"
            )
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
            guidance=guidance,
            on_step=on_step,
            start=float(self.start),
            residuals=self._similar_residuals(
                self.similar_rows(batch) if similar is None else similar, batch, seed, draw
            )
            if float(self.start) < 1
            else None,
        )

    def drawn_latents(
        self, paths: Mapping[str, DenoisingPath], conditions: Conditions
    ) -> dict[str, Float[Tensor, "batch _"]]:
        """The latents that a draw ends at, on the device of its conditions."""
        return {
            name: self.latent_estimate(name, paths[name].states[-1].to(anchor.device), anchor)
            for name, anchor in conditions.anchor.items()
        }

    def similar_rows(self, batch: ExecutorInput) -> dict[str, SimilarRows]:
        """The nearest kept rows of each sample, by modality; empty if draws start from noise."""
        if float(self.start) == 1:
            return {}
        rows = {name: self.anchor.similar_rows(name, batch) for name in self.names}
        return {name: found for name, found in rows.items() if found is not None}

    def _similar_residuals(
        self, similar: Mapping[str, SimilarRows], batch: ExecutorInput, seed: int, draw: int
    ) -> dict[str, Float[Tensor, "batch _"]]:
        """The residual of a similar kept row for each sample, a different row per draw, in residual units.

        Draws use the ``SIMILAR`` nearest rows in an order that depends on (seed, id), then the next ones. All
        missing modalities of a draw use the same rank. That is usually the same row, unless the modalities'
        kernels have different lengths or rows lack one of the modalities.
        """
        block, place = divmod(draw, SIMILAR)
        ranks = torch.tensor(
            [
                block * SIMILAR
                + int(torch.randperm(SIMILAR, generator=generator(seed, i, "similar", block))[place])
                for i in batch.ids
            ],
            device=batch.observed.device,
        )
        out = {}
        for column, name in enumerate(self.names):
            spread = self.anchor.spread(name, batch.observed) / self.residual_scale[column]
            out[name] = similar[name].residuals(ranks) * spread.unsqueeze(1)
        return out

    def _low_level_width(self, name: str) -> int:
        spec = self.specs[name]
        rows = torch.zeros(1, codec_class(spec.kind).standard_size(spec))
        return int(self.low_level(name, rows).shape[1])

    def low_level(self, name: str, standard: Float[Tensor, "batch size"]) -> Float[Tensor, "batch feature"]:
        """Phi of Eq. 14: the low-level features of a modality's standard rows, by its codec."""
        spec = self.specs[name]
        return codec_class(spec.kind).low_level(spec, standard)

    def fill(
        self, batch: ExecutorInput, estimates: Mapping[str, Float[Tensor, "batch _"]]
    ) -> dict[str, Float[Tensor, "batch _"]]:
        """One latent slot for each modality: encoded if observed, estimated if missing."""
        return {
            name: torch.where(batch.observed[:, column : column + 1], batch.latents[name], estimates[name])
            for column, name in enumerate(self.names)
        }
