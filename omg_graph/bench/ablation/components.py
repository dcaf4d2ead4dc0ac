"""What ablations put in the place of the method's own components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.errors import ConfigError
from omg_graph.executor.denoiser import Conditions, Denoiser, Latents
from omg_graph.executor.executor import Executor, ExecutorInput
from omg_graph.executor.objective import (
    Losses,
    Noising,
    Targets,
    noised,
    objective,
    signal_level,
    task_loss,
)
from omg_graph.planner.schema import Plan, Schema
from omg_graph.seeding import generator

# in the plan's place


def gaussian_noise(plan: Tensor, keys: Sequence[str]) -> Tensor:
    """Gaussian noise of unit scale in place of c_S: the paper's *w/o Planner* (Appendix A)."""
    shape = plan.shape[1:]
    drawn = [torch.randn(shape, generator=generator("plan noise", key)) for key in keys]
    noise: Tensor = torch.stack(drawn) / float(shape[-1]) ** 0.5
    return noise.to(plan)


def no_plan(plan: Tensor, *_: Any) -> Tensor:
    """Zeros, in place of c_S or of the plan that turns the query."""
    return torch.zeros_like(plan)


def random_plan(plan: Tensor, ids: Sequence[str], schema: Schema, text_encoder: CachedTextEncoder) -> Tensor:
    """(samples, shared): g of a plan that says nothing about its sample, the same at every call.

    Raises:
        ConfigError: if a field of the schema is free text, which nothing can be drawn from.
    """
    texts = [schema.text(draw_plan(schema, sample)) for sample in ids]
    return torch.from_numpy(text_encoder.embed(texts)).to(plan)


def draw_plan(schema: Schema, sample: str) -> Plan:
    """A plan by the sample's id alone, each field drawn evenly from all that the schema allows.

    Raises:
        ConfigError: if a field of the schema is free text.
    """
    drawn, values = generator("random plan", sample), list[str]()
    for level, field in enumerate(schema.fields):
        allowed = schema.allowed(level, values)
        if allowed is None:
            raise ConfigError(
                f"random-plan: expected a schema whose every field lists its values, "
                f"{field.name} of {schema.name!r} is free text: leave that variant out"
            )
        values.append(allowed[int(torch.randint(len(allowed), (), generator=drawn))])
    return tuple(values)


# in retrieval


def always(_before: float, _after: float) -> bool:
    """The learned correction of the query stays, even if validation is worse for it."""
    return True


def mean_weights(similarities: Float[Tensor, "batch k"], _temperature: float) -> Float[Tensor, "batch k"]:
    """The same weight for every entry found, 1/K: mean pooling in place of Eq. 8's attention."""
    found = (similarities > -torch.inf).to(similarities.dtype)
    return found / found.sum(dim=1, keepdim=True).clamp(min=1.0)


def no_weights(similarities: Float[Tensor, "batch k"], _temperature: float) -> Float[Tensor, "batch k"]:
    """No entry counts: E and C_evi are zero. Nothing is left for a query to learn: ``retriever.epochs`` 0."""
    return torch.zeros_like(similarities)


# in the denoiser


class JointInjection(nn.Module):
    """Plan and evidence side by side, through one bottleneck that starts at zero."""

    def __init__(self, width: int, shared_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hidden = nn.Linear(width, width)
        self.conditions = nn.Linear(shared_width + width, width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(
        self,
        hidden: Float[Tensor, "batch slot width"],
        plan: Float[Tensor, "batch shared"],
        evidence: Float[Tensor, "batch slot width"],
    ) -> Float[Tensor, "batch slot width"]:
        """To be added to h, like CA(h, c_S) and ZA(h, E); ``plan`` is g of the whole plan."""
        beside = torch.cat([plan.unsqueeze(1).expand(-1, hidden.shape[1], -1), evidence], dim=-1)
        mixed: Tensor = self.out(F.silu(self.hidden(self.norm(hidden)) + self.conditions(beside)))
        return mixed


class JointDenoiser(Denoiser):
    """Plan and evidence enter every layer side by side, through the same weights: *Concat-Injection*.

    What Eqs. 12 and 13 keep apart meets here. ``shallow_layers`` and ``deep_layers`` should be empty.
    """

    @wraps(Denoiser.__init__)  # type: ignore[misc]
    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        shared = self.observation_in.in_features
        self.joints = nn.ModuleList(JointInjection(self.width, shared) for _ in self.blocks)

    def inject(
        self, layer: int, hidden: Tensor, plan: Tensor, evidence: Tensor, missing: Tensor
    ) -> Float[Tensor, "batch slot width"]:
        """See ``Denoiser.inject``."""
        added: Tensor = self.joints[layer](hidden, plan[:, 0], missing * evidence)
        return hidden + added


class DenoiserWithoutObservation(Denoiser):
    """A denoiser that isn't given u_X."""

    def forward(
        self,
        states: Latents,
        clean: Latents,
        time: Float[Tensor, " batch"],
        conditions: Conditions,
        mean: Bool[Tensor, " batch"] | None = None,
    ) -> dict[str, Float[Tensor, "batch _"]]:
        """See ``Denoiser.forward``."""
        blind = replace(conditions, observation=torch.zeros_like(conditions.observation))
        return super().forward(states, clean, time, blind, mean)


# in the objective


def classify_noisy_state(
    executor: Executor,
    batch: ExecutorInput,
    conditions: Conditions,
    targets: Targets,
    noising: Noising,
    *networks: Any,
) -> Losses:
    """The objective with L_task on the noisy state z_t instead of its one-step estimate (Eq. 16)."""
    losses = objective(executor, batch, conditions, targets, noising, *networks)
    states: Mapping[str, Tensor] = {
        name: executor.latent_estimate(name, state, conditions.anchor[name])
        for name, state in noised(executor, conditions, targets, noising)[1].items()
    }
    return replace(losses, task=task_loss(executor, batch, states, targets, signal_level(batch, noising)))
