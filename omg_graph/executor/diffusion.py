"""The relations of the diffusion process, each a short pure function named for what it computes."""

from __future__ import annotations

from inspect import signature
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from omg_graph.errors import ConfigError

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
    """What the denoiser is asked to predict.

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
    """A diffusers scheduler for latents: nothing clipped, steps spaced from T on.

    DDPM with ``fixed_small`` variance is Eq. 11 with its posterior deviation sigma_t.
    """
    from diffusers.schedulers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    common = {
        "num_train_timesteps": train_steps,
        # eps-prediction divides by sqrt(abar): the linear schedule keeps it away from zero at T
        "beta_schedule": "squaredcos_cap_v2" if prediction == "v" else "linear",
        "prediction_type": "v_prediction" if prediction == "v" else "epsilon",
        "timestep_spacing": "trailing",
        # the usual range of betas is made for 1,000 steps; scaled, z_T is noise with any number of them
        "beta_start": min(0.1 / train_steps, 0.999),
        "beta_end": min(20.0 / train_steps, 0.999),
    }
    if sampler == "ddpm":
        return DDPMScheduler(**common, clip_sample=False, variance_type="fixed_small")
    if sampler == "ddim":
        return DDIMScheduler(**common, clip_sample=False, set_alpha_to_one=True)
    return DPMSolverMultistepScheduler(**common, algorithm_type="dpmsolver++", solver_order=2)


def space_timesteps(scheduler: Any, steps: int) -> None:
    """Tell a scheduler to take ``steps`` steps, the first of them at T - 1.

    Raises:
        ConfigError: if there are fewer than 1 or more than T.
    """
    most = int(scheduler.config.num_train_timesteps)
    if not 1 <= steps <= most:
        raise ConfigError(f"between 1 and {most} denoising steps were expected, {steps} came: change --steps")
    scheduler.set_timesteps(steps)
    if len(scheduler.timesteps) == steps:
        return
    # rounding inside diffusers' trailing spacing appends a step at -1 for some numbers, 61 of 1,000 for one
    spaced = scheduler.timesteps[:steps]
    if "timesteps" in signature(scheduler.set_timesteps).parameters:
        scheduler.set_timesteps(timesteps=spaced.tolist())
    else:
        scheduler.timesteps = spaced
