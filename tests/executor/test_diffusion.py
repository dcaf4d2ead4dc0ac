from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from omg_graph.errors import ConfigError
from omg_graph.executor.denoiser import Conditions
from omg_graph.executor.diffusion import (
    MINIMUM_SIGNAL,
    DenoisingPath,
    Guidance,
    Prediction,
    SamplerName,
    add_noise,
    clean_estimate,
    clean_from_noise,
    clean_from_velocity,
    denoise,
    guided,
    initial_noise,
    make_scheduler,
    noise_from_velocity,
    regression_target,
    space_timesteps,
    velocity,
)
from omg_graph.executor.executor import Executor, ExecutorInput
from omg_graph.priors.kernel import KernelConditional
from omg_graph.seeding import generator

SAMPLERS: tuple[SamplerName, ...] = ("ddpm", "ddim", "dpm-solver++")
PREDICTIONS: tuple[Prediction, ...] = ("v", "epsilon")
signals = st.floats(1e-3, 0.9999)


def drawn(seed: int, rows: int = 4, width: int = 3) -> tuple[Tensor, Tensor]:
    source = generator("diffusion", seed)
    clean = torch.randn(rows, width, generator=source, dtype=torch.float64)
    return clean, torch.randn(rows, width, generator=source, dtype=torch.float64)


def level(signal: float, rows: int = 4) -> Tensor:
    return torch.full((rows, 1), signal, dtype=torch.float64)


@given(signals, st.integers(0, 99), st.sampled_from(PREDICTIONS))
def test_the_tweedie_estimate_inverts_the_forward_process(
    signal: float, seed: int, prediction: Prediction
) -> None:
    """Eq. 16 with the true noise (or v) gives back z_0 of z_t = sqrt(abar) z_0 + sqrt(1 - abar) eps."""
    (clean, noise), abar = drawn(seed), level(signal)
    noisy = add_noise(clean, noise, abar)
    output = regression_target(clean, noise, abar, prediction)
    assert torch.allclose(clean_estimate(noisy, output, abar, prediction), clean, atol=1e-9)


@given(signals, st.integers(0, 99))
def test_v_and_noise_forms_agree(signal: float, seed: int) -> None:
    """For any output, not only the true one: Eq. 16 with and without its division is the same estimate."""
    (noisy, v), abar = drawn(seed), level(signal)
    noise = noise_from_velocity(noisy, v, abar)
    assert torch.allclose(
        clean_from_velocity(noisy, v, abar), clean_from_noise(noisy, noise, abar), atol=1e-9
    )


@given(signals, st.integers(0, 99))
def test_the_v_loss_is_the_noise_loss_over_the_signal(signal: float, seed: int) -> None:
    """|v - v'|^2 = |eps - eps'|^2 / abar: Eq. 15's first term, reweighted."""
    (clean, noise), abar = drawn(seed), level(signal)
    noisy, v = add_noise(clean, noise, abar), velocity(clean, noise, abar)
    guess = v + drawn(seed + 1)[1]
    noise_error = (noise - noise_from_velocity(noisy, guess, abar)).square().sum(1)
    assert torch.allclose((v - guess).square().sum(1), noise_error / signal, rtol=1e-9)


def test_the_noise_form_stays_finite_without_signal() -> None:
    """Eq. 16's division is by sqrt(abar), bounded below."""
    clean, noise = drawn(0)
    estimate = clean_from_noise(clean, noise, level(0.0))
    assert estimate.isfinite().all()
    assert torch.allclose(estimate, clean_from_noise(clean, noise, level(MINIMUM_SIGNAL)))


@pytest.mark.parametrize("signal", [0.02, 0.3, 0.9])
def test_tweedie_is_the_posterior_mean_of_a_gaussian_mixture(signal: float) -> None:
    """Appendix B.2: with the noise predictor that minimises the squared error, Eq. 16 is E[z_0 | z_t].

    z_0 is a mixture of two Gaussians in one dimension, so E[z_0 | z_t] and E[eps | z_t] are known: both
    are integrated numerically here, each from its own definition.
    """
    weights, means, deviations = (0.3, 0.7), (-1.5, 0.8), (0.2, 0.5)
    z0 = torch.linspace(-6, 6, 24_001, dtype=torch.float64)
    prior = sum(
        w / s * torch.exp(-0.5 * ((z0 - m) / s) ** 2)
        for w, m, s in zip(weights, means, deviations, strict=True)
    )
    for observed in (-2.0, -0.3, 0.0, 1.1):
        noise_of_z0 = (observed - math.sqrt(signal) * z0) / math.sqrt(1 - signal)
        posterior = prior * torch.exp(-0.5 * noise_of_z0**2)
        posterior = posterior / posterior.sum()
        best_noise = (posterior * noise_of_z0).sum().reshape(1, 1)
        every = level(signal, len(z0))
        best_v = (posterior * velocity(z0[:, None], noise_of_z0[:, None], every)[:, 0]).sum()
        # the posterior mean in closed form: each component's own, weighted by its share of the evidence
        share, component_mean = [], []
        for w, m, s in zip(weights, means, deviations, strict=True):
            spread = signal * s * s + 1 - signal
            residual = observed - math.sqrt(signal) * m
            share.append(w / math.sqrt(spread) * math.exp(-0.5 * residual**2 / spread))
            component_mean.append(m + math.sqrt(signal) * s * s / spread * residual)
        exact = sum(a * b for a, b in zip(share, component_mean, strict=True)) / sum(share)
        noisy, abar = torch.full((1, 1), observed, dtype=torch.float64), level(signal, 1)
        assert float(clean_estimate(noisy, best_noise, abar, "epsilon")) == pytest.approx(exact, abs=1e-6)
        assert float(clean_estimate(noisy, best_v.reshape(1, 1), abar, "v")) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize("signal", [0.02, 0.3, 0.9])
def test_the_score_is_the_mean_of_the_conditional_ones_and_gives_tweedie(signal: float) -> None:
    """Appendix B Eqs. 5-10, each from the marginal density of a Gaussian mixture in two dimensions.

    The score comes from that density by differentiation; the posterior mean that it leads to (Eq. 8) is
    checked against draws' weights, and Eq. 16 with the noise of Eq. 9 against both.
    """
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    means = torch.tensor([[-1.5, 0.5], [0.8, -0.2]], dtype=torch.float64)
    spread = torch.tensor([0.2, 0.5], dtype=torch.float64).square()
    marginal = (signal * spread + 1 - signal)[:, None]

    def parts(z_t: Tensor) -> Tensor:
        away = z_t[:, None] - math.sqrt(signal) * means
        return weights.log() - 0.5 * (away.square() / marginal).sum(2) - marginal[:, 0].log()

    z_t = torch.randn(5, 2, generator=generator("score"), dtype=torch.float64).requires_grad_()
    (score,) = torch.autograd.grad(parts(z_t).logsumexp(1).sum(), z_t)
    share = parts(z_t).softmax(1).detach()
    away = z_t.detach()[:, None] - math.sqrt(signal) * means
    each = means + math.sqrt(signal) * (spread / marginal[:, 0])[:, None] * away
    posterior_mean = (share[..., None] * each).sum(1)
    # Eqs. 5-7: the mean of -(z_t - sqrt(abar) z_0) / (1 - abar) over p(z_0 | z_t)
    expected = -(z_t.detach() - math.sqrt(signal) * posterior_mean) / (1 - signal)
    assert torch.allclose(score, expected)
    # Eq. 8, and Eqs. 9 and 10 with the noise that the score stands for
    assert torch.allclose((z_t.detach() + (1 - signal) * score) / math.sqrt(signal), posterior_mean)
    noise = -math.sqrt(1 - signal) * score
    found = clean_estimate(z_t.detach(), noise, level(signal, 5), "epsilon")
    assert torch.allclose(found, posterior_mean)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("timestep", [999, 500, 20, 1])
def test_a_ddpm_step_is_equation_11(prediction: Prediction, timestep: int) -> None:
    """z_{t-1} by Eq. 11 written out, sigma_t the posterior deviation, equals the library's."""
    scheduler = make_scheduler("ddpm", 1000, prediction)
    space_timesteps(scheduler, 1000)
    z_t, output = (value.float() for value in drawn(timestep))
    abar = float(scheduler.alphas_cumprod[timestep].double())
    before = float(scheduler.alphas_cumprod[timestep - 1].double())
    alpha = abar / before
    noise = output if prediction == "epsilon" else noise_from_velocity(z_t, output, level(abar).float())
    sigma = math.sqrt((1 - before) / (1 - abar) * (1 - alpha))
    xi = torch.cat([torch.randn(1, 3, generator=generator("xi", row)) for row in range(4)])
    expected = (z_t - (1 - alpha) / math.sqrt(1 - abar) * noise) / math.sqrt(alpha) + sigma * xi
    step = scheduler.step(output, timestep, z_t, generator=[generator("xi", row) for row in range(4)])
    # the library goes through the clean estimate, which is large where there is no signal
    assert torch.allclose(step.prev_sample, expected, rtol=1e-3, atol=1e-4 / math.sqrt(alpha))


@settings(deadline=None)
@given(st.sampled_from(SAMPLERS), st.sampled_from([4, 50, 1000]), st.data())
def test_steps_start_at_the_end_and_fall(sampler: SamplerName, train_steps: int, data: st.DataObject) -> None:
    """As many steps as were asked for, from T - 1 down, none outside the schedule."""
    steps = data.draw(st.integers(1, train_steps))
    scheduler = make_scheduler(sampler, train_steps, "v")
    space_timesteps(scheduler, steps)
    timesteps = [int(step) for step in scheduler.timesteps]
    assert len(timesteps) == steps
    assert timesteps[0] == train_steps - 1
    assert timesteps[-1] >= 0
    assert all(later < earlier for earlier, later in pairwise(timesteps))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_counts_that_the_library_rounds_wrongly(sampler: SamplerName) -> None:
    """61 of 1,000 and 29 of 50 are two of the counts for which diffusers appends a step at -1."""
    for train_steps, steps in ((1000, 61), (50, 29)):
        scheduler = make_scheduler(sampler, train_steps, "v")
        space_timesteps(scheduler, steps)
        assert len(scheduler.timesteps) == steps
        assert int(scheduler.timesteps.min()) >= 0


@pytest.mark.parametrize("steps", [0, -1, 51])
def test_steps_out_of_range_are_refused(steps: int) -> None:
    with pytest.raises(ConfigError, match=f"between 1 and 50 denoising steps.*got {steps}"):
        space_timesteps(make_scheduler("ddim", 50, "v"), steps)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("train_steps", [20, 100, 1000])
def test_the_last_state_is_noise_however_many_steps(prediction: Prediction, train_steps: int) -> None:
    """z_T ~ N(0, I) (section 3.5) holds only if abar_T is next to nothing."""
    signals = make_scheduler("ddpm", train_steps, prediction).alphas_cumprod
    assert float(signals[-1]) < 1e-3
    assert float(signals[0]) > 0.9 if train_steps >= 100 else float(signals[0]) > 0.5
    assert bool((signals.diff() < 0).all())


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 61])
def test_a_perfect_denoiser_is_followed_to_the_truth(
    sampler: SamplerName, prediction: Prediction, steps: int
) -> None:
    """Fed with the output that points at one z_0, every sampler ends there, unclipped and finite near T."""
    scheduler = make_scheduler(sampler, 1000, prediction)
    space_timesteps(scheduler, steps)
    target = torch.tensor([[40.0, -3.0, 0.5]])  # far outside [-1, 1]
    state = torch.randn(1, 3, generator=generator("start"))
    for timestep in scheduler.timesteps:
        abar = scheduler.alphas_cumprod[int(timestep)].reshape(1, 1)
        noise = (state - abar.sqrt() * target) / (1 - abar).sqrt()
        output = regression_target(target, noise, abar, prediction)
        extra = {"generator": [generator("noise", int(timestep))]} if sampler == "ddpm" else {}
        state = scheduler.step(output, int(timestep), state, **extra).prev_sample
        assert state.isfinite().all()
    # DDIM steps by the whole part of T / steps, so a count that doesn't divide T stops a little short
    slack = 0.05 if sampler == "ddim" and 1000 % steps else 2e-3
    assert torch.allclose(state, target, rtol=1e-3, atol=slack)


Build = Callable[..., Executor]
SAMPLERS = ("ddpm", "ddim", "dpm-solver++")


def part(batch: ExecutorInput, conditions: Conditions, rows: list[int]) -> tuple[ExecutorInput, Conditions]:
    index = torch.tensor(rows)

    def take(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value[index] for name, value in values.items()}

    some = ExecutorInput(
        ids=tuple(batch.ids[row] for row in rows),
        groups=tuple(batch.groups[row] for row in rows),
        latents=take(batch.latents),
        observed=batch.observed[index],
        observation=batch.observation[index],
        plan=batch.plan[index],
        evidence=take(batch.evidence),
        trusted=batch.trusted[index],
    )
    return some, conditions.take(index)


def last(paths: dict[str, DenoisingPath]) -> dict[str, Tensor]:
    return {name: path.states[-1] for name, path in paths.items()}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_s_draw_is_its_own(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, sampler: SamplerName
) -> None:
    """Of (seed, id, modality, draw) alone: alone, in another order or among others it is the same."""
    executor = make_executor(sampler=sampler, sample_steps=6)
    together = last(executor.draw(batch, conditions, seed=3, draw=1))
    for rows in ([4], [6, 1, 0]):
        some = last(executor.draw(*part(batch, conditions, rows), seed=3, draw=1))
        for name, value in some.items():
            assert torch.allclose(value, together[name][rows], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_path_is_whole_and_can_be_repeated(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, sampler: SamplerName
) -> None:
    """z_T ... z_0 of Eq. 1: one state more than steps, the first of them noise; told of every step."""
    executor = make_executor(sampler=sampler, sample_steps=6)
    told: list[tuple[int, int]] = []
    paths = executor.draw(
        batch, conditions, seed=3, draw=0, on_step=lambda step, of, _: told.append((step, of))
    )
    assert told == [(step, 6) for step in range(1, 7)]
    torch.manual_seed(99)  # the global generator has no say
    again = executor.draw(batch, conditions, seed=3, draw=0)
    for name, path in paths.items():
        assert len(path.timesteps) == len(path.clean) == 6
        assert len(path.states) == 7
        assert path.timesteps[0] == executor.config.train_steps - 1
        assert torch.equal(path.states[0], initial_noise(3, batch.ids, name, 0, executor.widths[name]))
        assert all(torch.equal(a, b) for a, b in zip(path.states, again[name].states, strict=True))
        assert all(state.isfinite().all() for state in path.states)
        # the last step lands on the clean estimate
        assert torch.allclose(path.states[-1], path.clean[-1], rtol=1e-3, atol=2e-2)


def test_draws_seeds_ids_and_modalities_differ() -> None:
    first = initial_noise(3, ("x", "y"), "audio", 0, 4)
    assert not torch.equal(first[0], first[1])
    for other in (
        initial_noise(4, ("x", "y"), "audio", 0, 4),
        initial_noise(3, ("x", "y"), "vision", 0, 4),
        initial_noise(3, ("x", "y"), "audio", 1, 4),
    ):
        assert not torch.isclose(first, other).any()


def test_draws_of_one_sample_differ(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions
) -> None:
    executor = make_executor(sample_steps=4)
    first = last(executor.draw(batch, conditions, seed=3, draw=0))
    second = last(executor.draw(batch, conditions, seed=3, draw=1))
    for column, name in enumerate(executor.names):
        missing = ~batch.observed[:, column]
        assert bool((first[name][missing] != second[name][missing]).any(dim=1).all())


def test_ddpm_draws_noise_on_the_way(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions
) -> None:
    """sigma_t xi of Eq. 11: from the same z_T another draw's noise leads elsewhere."""
    steps = {
        sampler: make_executor(sampler=sampler, sample_steps=50).draw(batch, conditions, seed=3, draw=0)
        for sampler in ("ddpm", "ddim")
    }
    for name in batch.latents:
        first, second = steps["ddpm"][name], steps["ddim"][name]
        assert torch.equal(first.states[0], second.states[0])
        assert not torch.allclose(first.states[1], second.states[1], atol=1e-3)


@pytest.mark.parametrize("steps", [0, 51])
def test_impossible_step_counts_are_refused(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, steps: int
) -> None:
    with pytest.raises(ConfigError, match="between 1 and 50 denoising steps"):
        make_executor().draw(batch, conditions, seed=0, draw=0, steps=steps)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_late_start_keeps_to_the_residuals_it_starts_from(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, sampler: SamplerName
) -> None:
    """From the last timesteps next to nothing is left to denoise; from T what it starts from is drowned."""
    executor = make_executor()
    source = generator("residuals")
    residuals = {
        name: torch.randn(len(batch.ids), width, generator=source) for name, width in executor.widths.items()
    }

    def drawn(start: float, given: dict[str, Tensor]) -> dict[str, DenoisingPath]:
        return denoise(
            executor.denoiser,
            batch.latents,
            conditions,
            executor.widths,
            batch.ids,
            seed=0,
            draw=0,
            steps=5,
            sampler=sampler,
            train_steps=50,
            prediction="v",
            guidance=Guidance(),
            start=start,
            residuals=given,
        )

    opposite = {name: -value for name, value in residuals.items()}
    late, early = drawn(0.1, residuals), drawn(1.0, residuals)
    turned_late, turned_early = drawn(0.1, opposite), drawn(1.0, opposite)
    for name, value in residuals.items():
        assert late[name].timesteps == [4, 3, 2, 1, 0]
        assert early[name].timesteps == [49, 39, 29, 19, 9]
        assert len(late[name].states) == 6
        apart = (late[name].states[-1] - turned_late[name].states[-1]).norm()
        assert float(apart) > float(value.norm())
        assert float(apart) > 3 * float((early[name].states[-1] - turned_early[name].states[-1]).norm())


def test_rows_alike_are_found_once_for_all_draws(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions
) -> None:
    executor = make_executor(sampler="ddim", sample_steps=4)
    kernel = executor.anchor.priors["kernel"]
    kernel.regression = KernelConditional.keep(
        batch.latents, torch.ones_like(batch.observed), [f"kept-{i}" for i in batch.ids], batch.ids
    )
    assert executor.similar_rows(batch) == {}, "draws start from noise"
    executor.start.fill_(0.5)
    similar = executor.similar_rows(batch)
    for draw in range(3):
        shared = last(executor.draw(batch, conditions, seed=3, draw=draw, similar=similar))
        alone = last(executor.draw(batch, conditions, seed=3, draw=draw))
        assert all(torch.equal(shared[name], alone[name]) for name in alone)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 0.0), (1.0, 0.0), (2.0, 1.5), (1.5, 1.5), (0.0, 1.0)])
def test_guidance_is_a_sum_of_outputs_with_and_without(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, weights: tuple[float, float]
) -> None:
    """v = v(0,0) + w_p [v(p,0) - v(0,0)] + w_e [v(p,e) - v(p,0)]."""
    denoiser = make_executor().denoiser
    rows = len(batch.ids)
    states = {name: torch.randn(value.shape) for name, value in batch.latents.items()}
    time = torch.linspace(0, 49, rows)
    every, none = torch.ones(rows, dtype=torch.bool), torch.zeros(rows, dtype=torch.bool)

    def output(plan: Tensor, evidence: Tensor) -> dict[str, Tensor]:
        made: dict[str, Tensor] = denoiser(states, batch.latents, time, conditions.given(plan, evidence))
        return made

    neither, planned, both = output(none, none), output(every, none), output(every, every)
    made = guided(denoiser, states, batch.latents, time, conditions, Guidance(*weights))
    for name, value in made.items():
        plan = planned[name] - neither[name]
        expected = neither[name] + weights[0] * plan + weights[1] * (both[name] - planned[name])
        assert torch.allclose(value, expected, rtol=1e-4, atol=1e-5)


def test_guidance_is_refused_where_nothing_was_dropped(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions
) -> None:
    executor = make_executor(sample_steps=2)
    executor.denoiser.guidable.fill_(False)
    executor.draw(batch, conditions, seed=0, draw=0)
    with pytest.raises(ConfigError, match="got 2 and 1: train it again"):
        executor.draw(batch, conditions, seed=0, draw=0, guidance=Guidance(plan=2.0))
