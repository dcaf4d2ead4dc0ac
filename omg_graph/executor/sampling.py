"""The sampling loop: from z_T to z_0 through a diffusers scheduler (Eq. 11 with DDPM)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from omg_graph.executor.denoiser import Conditions, Denoiser
from omg_graph.executor.diffusion import (
    Prediction,
    SamplerName,
    clean_estimate,
    make_scheduler,
    space_timesteps,
)
from omg_graph.seeding import generator


@dataclass
class DenoisingPath:
    """z_T ... z_0 and the clean estimates on the way, in residual units."""

    timesteps: list[int] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    """(batch, latent) each, one more than ``timesteps``."""
    clean: list[Tensor] = field(default_factory=list)


StepCallback = Callable[[int, int, dict[str, DenoisingPath]], None]
"""(step from 1, steps, the paths so far)."""


def path_costs(
    paths: Mapping[str, DenoisingPath], observed: Bool[Tensor, "batch modality"]
) -> Float[Tensor, " batch"]:
    """C_path of each sample (Eq. 3): the mean squared change of the clean estimate between steps.

    The mean is over steps, the first of which changes nothing, then over missing modalities.
    """
    total = torch.zeros(len(observed))
    for column, path in enumerate(paths.values()):
        clean = torch.stack(path.clean)
        cost = clean.diff(dim=0).square().mean(dim=2).sum(dim=0) / len(clean)
        total = total + torch.where(observed[:, column].cpu(), torch.zeros_like(cost), cost)
    return total / (~observed).sum(dim=1).cpu().clamp(min=1)


def chosen_paths(
    kept: Mapping[str, DenoisingPath], made: Mapping[str, DenoisingPath], better: Bool[Tensor, " batch"]
) -> dict[str, DenoisingPath]:
    """The paths kept so far; where the new ones are better, these."""

    def mixed(old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
        return [torch.where(better[:, None], one, other) for one, other in zip(new, old, strict=True)]

    return {
        name: DenoisingPath(
            path.timesteps, mixed(path.states, made[name].states), mixed(path.clean, made[name].clean)
        )
        for name, path in kept.items()
    }


def initial_noise(seed: int, ids: Sequence[str], modality: str, draw: int, width: int) -> Tensor:
    """z_T for each sample, (samples, width): of (seed, id, modality, draw) alone."""
    rows = [torch.randn(width, generator=generator(seed, i, modality, draw, "start")) for i in ids]
    return torch.stack(rows)


def denoise(
    denoiser: Denoiser,
    clean: dict[str, Tensor],
    conditions: Conditions,
    widths: dict[str, int],
    ids: Sequence[str],
    *,
    seed: int,
    draw: int,
    steps: int,
    sampler: SamplerName,
    train_steps: int,
    prediction: Prediction,
    on_step: StepCallback | None = None,
    start: float = 1.0,
    residuals: Mapping[str, Tensor] | None = None,
) -> dict[str, DenoisingPath]:
    """All missing modalities of a batch jointly, one draw.

    With ``residuals`` all steps are taken below ``start`` times T: the path begins with the residuals, noised
    as the forward process noises a clean latent.

    Returns:
        For each modality the whole path, on the CPU; rows where it is observed are meaningless.

    Raises:
        ConfigError: if ``steps`` isn't between 1 and ``train_steps``.
    """
    device = conditions.observation.device
    # every modality has a scheduler and generators of its own: multistep schedulers keep state
    schedulers: dict[str, Any] = {}
    noises: dict[str, list[torch.Generator]] = {}
    states: dict[str, Tensor] = {}
    paths = {name: DenoisingPath() for name in widths}
    of_all = steps if residuals is None else max(steps, min(train_steps, round(steps / start)))
    for name, width in widths.items():
        schedulers[name] = make_scheduler(sampler, train_steps, prediction)
        space_timesteps(schedulers[name], of_all)
        noises[name] = [generator(seed, i, name, draw, "steps") for i in ids]
        states[name] = initial_noise(seed, ids, name, draw, width).to(device)
    first = next(iter(schedulers.values()))
    timesteps = [int(t) for t in first.timesteps[-steps:]]
    signals = first.alphas_cumprod
    if residuals is not None:
        kept = signals[timesteps[0]]
        for name, noise in states.items():
            states[name] = kept.sqrt() * residuals[name] + (1 - kept).sqrt() * noise
    for name, state in states.items():
        paths[name].states.append(state.cpu())
    stochastic = {"ddpm": True, "ddim": False, "dpm-solver++": False}[sampler]
    for index, timestep in enumerate(timesteps):
        time = torch.full((len(ids),), float(timestep), device=device)
        with torch.inference_mode():
            outputs = denoiser(states, clean, time, conditions)
        signal = signals[timestep].to(device).expand(len(ids), 1)
        for name in widths:
            estimate = clean_estimate(states[name], outputs[name], signal, prediction)
            extra = {"generator": noises[name]} if stochastic else {}
            step = schedulers[name].step(outputs[name], timestep, states[name], **extra)
            states[name] = step.prev_sample
            paths[name].timesteps.append(timestep)
            paths[name].states.append(states[name].cpu())
            paths[name].clean.append(estimate.cpu())
        if on_step is not None:
            on_step(index + 1, len(timesteps), paths)
    return paths
