from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from omg_graph.errors import ConfigError
from omg_graph.executor.denoiser import Conditions
from omg_graph.executor.diffusion import SamplerName
from omg_graph.executor.executor import Executor, ExecutorInput
from omg_graph.executor.sampling import DenoisingPath, denoise, initial_noise
from omg_graph.priors.kernel import KernelConditional
from omg_graph.seeding import generator

Build = Callable[..., Executor]
SAMPLERS = ("ddpm", "ddim", "dpm-solver++")


def part(batch: ExecutorInput, conditions: Conditions, rows: list[int]) -> tuple[ExecutorInput, Conditions]:
    index = torch.tensor(rows)

    def take(values: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value[index] for name, value in values.items()}

    some = ExecutorInput(
        tuple(batch.ids[row] for row in rows),
        take(batch.latents),
        batch.observed[index],
        batch.observation[index],
        batch.plan[index],
        take(batch.evidence),
        tuple(batch.groups[row] for row in rows),
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
    executor.kernel = KernelConditional.keep(
        batch.latents, torch.ones_like(batch.observed), [f"kept-{i}" for i in batch.ids], batch.ids
    )
    assert executor.alike_rows(batch) == {}, "draws start from noise"
    executor.start.fill_(0.5)
    alike = executor.alike_rows(batch)
    for draw in range(3):
        shared = last(executor.draw(batch, conditions, seed=3, draw=draw, alike=alike))
        alone = last(executor.draw(batch, conditions, seed=3, draw=draw))
        assert all(torch.equal(shared[name], alone[name]) for name in alone)
