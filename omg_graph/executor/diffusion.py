"""The diffusion process: its relations as short pure functions, and the sampling loop (Eqs. 11 and 16)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from omg_graph.errors import ConfigError
from omg_graph.executor.denoiser import Conditions, Denoiser
from omg_graph.seeding import generator

Prediction = Literal["v", "epsilon"]
SamplerName = Literal["ddpm", "ddim", "dpm-solver++"]

MINIMUM_SIGNAL = 1e-4
"""Lower bound of abar where Eq. 16 divides by its square root."""


def add_noise(
    clean: Float[Tensor, "batch latent"],
    noise: Float[Tensor, "batch latent"],
    signal: Float[Tensor, "batch 1"],
) -> Float[Tensor, "batch latent"]:
    """z_t = sqrt(abar) z_0 + sqrt(1 - abar) eps (section 3.5, Appendix B Eq. 4); ``signal`` is abar_t."""
    return signal.sqrt() * clean + (1 - signal).sqrt() * noise


def velocity(
    clean: Float[Tensor, "batch latent"],
    noise: Float[Tensor, "batch latent"],
    signal: Float[Tensor, "batch 1"],
) -> Float[Tensor, "batch latent"]:
    """V = sqrt(abar) eps - sqrt(1 - abar) z_0."""
    return signal.sqrt() * noise - (1 - signal).sqrt() * clean


def noise_from_velocity(
    noisy: Float[Tensor, "batch latent"], v: Float[Tensor, "batch latent"], signal: Float[Tensor, "batch 1"]
) -> Float[Tensor, "batch latent"]:
    """Eps = sqrt(abar) v + sqrt(1 - abar) z_t."""
    return signal.sqrt() * v + (1 - signal).sqrt() * noisy


def clean_from_velocity(
    noisy: Float[Tensor, "batch latent"], v: Float[Tensor, "batch latent"], signal: Float[Tensor, "batch 1"]
) -> Float[Tensor, "batch latent"]:
    """z_0|t = sqrt(abar) z_t - sqrt(1 - abar) v: Eq. 16 without its division."""
    return signal.sqrt() * noisy - (1 - signal).sqrt() * v


def clean_from_noise(
    noisy: Float[Tensor, "batch latent"],
    noise: Float[Tensor, "batch latent"],
    signal: Float[Tensor, "batch 1"],
) -> Float[Tensor, "batch latent"]:
    """z_0|t = (z_t - sqrt(1 - abar) eps) / sqrt(abar), with abar bounded below (Eq. 16, Tweedie)."""
    bounded = signal.clamp(min=MINIMUM_SIGNAL)
    return (noisy - (1 - bounded).sqrt() * noise) / bounded.sqrt()


def regression_target(
    clean: Float[Tensor, "batch latent"],
    noise: Float[Tensor, "batch latent"],
    signal: Float[Tensor, "batch 1"],
    prediction: Prediction,
) -> Float[Tensor, "batch latent"]:
    """The denoiser's regression target.

    Eq. 15's first term is |eps - eps'|^2. Predicting v reweights it: |v - v'|^2 = |eps - eps'|^2 / abar.
    """
    return noise if prediction == "epsilon" else velocity(clean, noise, signal)


def clean_estimate(
    noisy: Float[Tensor, "batch latent"],
    output: Float[Tensor, "batch latent"],
    signal: Float[Tensor, "batch 1"],
    prediction: Prediction,
) -> Float[Tensor, "batch latent"]:
    """The one-step estimate z_0|t from the denoiser's output (Eq. 16)."""
    if prediction == "epsilon":
        return clean_from_noise(noisy, output, signal)
    return clean_from_velocity(noisy, output, signal)


def make_scheduler(sampler: SamplerName, train_steps: int, prediction: Prediction) -> Any:
    """A diffusers scheduler for latents: no clipping, trailing timestep spacing.

    DDPM with ``fixed_small`` variance is Eq. 11 with the posterior standard deviation sigma_t.
    """
    from diffusers.schedulers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    common = {
        "num_train_timesteps": train_steps,
        # eps-prediction divides by sqrt(abar): the linear schedule keeps it away from zero at T
        "beta_schedule": "squaredcos_cap_v2" if prediction == "v" else "linear",
        "prediction_type": "v_prediction" if prediction == "v" else "epsilon",
        "timestep_spacing": "trailing",
        # the usual betas suit 1,000 steps; scaled by T, z_T is noise for any number of steps
        "beta_start": min(0.1 / train_steps, 0.999),
        "beta_end": min(20.0 / train_steps, 0.999),
    }
    if sampler == "ddpm":
        return DDPMScheduler(**common, clip_sample=False, variance_type="fixed_small")
    if sampler == "ddim":
        return DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=True)
    return DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++", solver_order=2)


def space_timesteps(scheduler: Any, steps: int) -> None:
    """Set a scheduler to ``steps`` steps, the first at T - 1.

    Raises:
        ConfigError: if there are fewer than 1 or more than T.
    """
    most = int(scheduler.config.num_train_timesteps)
    if not 1 <= steps <= most:
        raise ConfigError(f"expected between 1 and {most} denoising steps, got {steps}: change --steps")
    scheduler.set_timesteps(steps)
    if len(scheduler.timesteps) == steps:
        return
    # diffusers' trailing spacing appends a step at -1 for some counts by rounding, e.g. 61 of 1,000
    spaced = scheduler.timesteps[:steps]
    if "timesteps" in signature(scheduler.set_timesteps).parameters:
        scheduler.set_timesteps(timesteps=spaced.tolist())
    else:
        scheduler.timesteps = spaced


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

    The mean is over steps (the first has change zero), then over missing modalities.
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
    """For each row the better of the path kept so far and the new one."""

    def mixed(old: list[Tensor], new: list[Tensor]) -> list[Tensor]:
        return [torch.where(better[:, None], one, other) for one, other in zip(new, old, strict=True)]

    return {
        name: DenoisingPath(
            path.timesteps, mixed(path.states, made[name].states), mixed(path.clean, made[name].clean)
        )
        for name, path in kept.items()
    }


@dataclass(frozen=True)
class Guidance:
    """How strongly plan and evidence steer a draw; 1 and 1 is the network as it was trained."""

    plan: float = 1.0
    evidence: float = 1.0

    @property
    def shares(self) -> dict[tuple[bool, bool], float]:
        """Which outputs are summed, by (plan given, evidence given), and with which factors.

        v = v(0,0) + w_p [v(p,0) - v(0,0)] + w_e [v(p,e) - v(p,0)]: classifier-free guidance (Ho and Salimans
        2022, arXiv:2207.12598) of two conditions in a chain (Brooks et al. 2023, arXiv:2211.09800, Eq. 3).
        """
        shares = {
            (True, True): self.evidence,
            (True, False): self.plan - self.evidence,
            (False, False): 1 - self.plan,
        }
        return {given: share for given, share in shares.items() if share}


def guided(
    denoiser: Denoiser,
    states: Mapping[str, Tensor],
    clean: Mapping[str, Tensor],
    time: Tensor,
    conditions: Conditions,
    guidance: Guidance,
) -> dict[str, Float[Tensor, "batch _"]]:
    """The denoiser's output under guidance, in one pass over as many copies of the batch as it needs."""
    if guidance == Guidance():
        plain: dict[str, Tensor] = denoiser(states, clean, time, conditions)
        return plain
    shares, rows = guidance.shares, len(time)
    copies = torch.arange(rows, device=time.device).repeat(len(shares))
    given = torch.tensor(list(shares), device=time.device).repeat_interleave(rows, dim=0)
    outputs = denoiser(
        {name: state[copies] for name, state in states.items()},
        {name: latents[copies] for name, latents in clean.items()},
        time[copies],
        conditions.take(copies).given(given[:, 0], given[:, 1]),
    )
    factors = torch.tensor(list(shares.values()), device=time.device)[:, None, None]
    return {name: (out.unflatten(0, (-1, rows)) * factors).sum(dim=0) for name, out in outputs.items()}


def initial_noise(seed: int, ids: Sequence[str], modality: str, draw: int, width: int) -> Tensor:
    """z_T for each sample, (samples, width): depends on (seed, id, modality, draw) alone."""
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
    guidance: Guidance,
    on_step: StepCallback | None = None,
    start: float = 1.0,
    residuals: Mapping[str, Tensor] | None = None,
) -> dict[str, DenoisingPath]:
    """One joint draw of all missing modalities of a batch.

    With ``residuals`` all steps are below ``start`` times T: the path begins with the residuals, noised by
    the forward process.

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
            outputs = guided(denoiser, states, clean, time, conditions, guidance)
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
