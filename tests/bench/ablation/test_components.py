"""What ablations put in the place of the method's own components, each by itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from omg_graph import pipeline
from omg_graph.bench.ablation.components import (
    DenoiserWithoutObservation,
    JointDenoiser,
    classify_noisy_state,
    draw_plan,
    gaussian_noise,
    mean_weights,
    no_plan,
    no_weights,
)
from omg_graph.bench.ablation.runs import AblationRequest
from omg_graph.bench.ablation.variants import DEFAULT
from omg_graph.data.reader import read_data_file
from omg_graph.errors import ConfigError
from omg_graph.executor.denoiser import Conditions, Denoiser
from omg_graph.executor.executor import ExecutorInput
from omg_graph.executor.objective import Noising, Targets, objective
from omg_graph.model.model import Model
from omg_graph.planner.schemas import load_schema, parse_schema
from omg_graph.seeding import generator, seeded

PLAN = nn.functional.normalize(torch.ones(3, 4, 256), dim=-1)
WIDTHS, SHARED, ROWS = {"sound": 5, "sight": 3}, 6, 7
TIME = torch.zeros(ROWS)


def random(*shape: int, key: str) -> Tensor:
    return torch.randn(*shape, generator=generator("tests", key, *shape))


def test_no_plan_is_zeros() -> None:
    assert not no_plan(PLAN, "abc").any()


def test_noise_is_a_samples_own_and_of_the_scale_of_a_plan() -> None:
    noise = gaussian_noise(PLAN, "abc")
    assert noise.shape == PLAN.shape
    torch.testing.assert_close(noise.norm(dim=-1), torch.ones(3, 4), atol=0.2, rtol=0)
    assert float((noise[0, 0] @ noise[1, 0]).abs()) < 0.5
    assert torch.equal(gaussian_noise(PLAN[1:2], "b"), noise[1:2])


def test_random_plans_obey_the_schema_and_depend_on_the_id_alone() -> None:
    schema = load_schema("affect")
    plans = [draw_plan(schema, f"sample {number}") for number in range(300)]
    assert all(not schema.violations(plan) for plan in plans)
    assert draw_plan(schema, "sample 7") == plans[7]
    for level, field in enumerate(schema.fields):
        # each value about as often as any other
        assert {plan[level] for plan in plans} == set(field.values or ())


def test_random_plans_keep_to_what_may_follow_what() -> None:
    schema = parse_schema(
        "name: s\nfields:\n  - {name: A, values: [x, y]}\n"
        "  - {name: B, values: [p, q], within: {x: [p], y: [q]}}\ntext_form: '{A} {B}'\n",
        "here",
    )
    plans = {draw_plan(schema, str(number)) for number in range(30)}
    assert plans == {("x", "p"), ("y", "q")}


def test_nothing_is_drawn_from_free_text() -> None:
    schema = parse_schema("name: s\nfields:\n  - {name: A, max_words: 2}\ntext_form: '{A}'\n", "here")
    with pytest.raises(ConfigError, match="A of 's' is free text"):
        draw_plan(schema, "a")


def test_weights_by_hand() -> None:
    found = torch.tensor([[0.9, 0.1, -math.inf], [0.5, 0.4, 0.3], [-math.inf] * 3])
    means = torch.tensor([[0.5, 0.5, 0.0], [1 / 3] * 3, [0.0] * 3])
    torch.testing.assert_close(mean_weights(found, 0.07), means)
    assert torch.equal(no_weights(found, 0.07), torch.zeros(3, 3))


@pytest.fixture
def conditions() -> Conditions:
    codes = torch.arange(ROWS)[:, None]
    return Conditions(
        observation=random(ROWS, SHARED, key="observation"),
        plan=random(ROWS, 3, SHARED, key="plan"),
        evidence={name: random(ROWS, width, key=f"evidence {name}") for name, width in WIDTHS.items()},
        anchor={name: torch.zeros(ROWS, width) for name, width in WIDTHS.items()},
        observed=(codes >> torch.arange(2)) % 2 == 1,
        trusted=torch.zeros(ROWS, dtype=torch.bool),
        plan_given=torch.ones(ROWS, dtype=torch.bool),
        evidence_given=torch.ones(ROWS, dtype=torch.bool),
    )


def denoise(denoiser: Denoiser, conditions: Conditions) -> Tensor:
    states = {name: random(ROWS, width, key=name) for name, width in WIDTHS.items()}
    return torch.cat(list(denoiser(states, states, TIME, conditions).values()), dim=1)


def built(kind: type[Denoiser], *, trained: bool, **settings: object) -> Denoiser:
    """A small denoiser as it is first, but for heads that would give zeros; or with all its weights moved."""
    with seeded("tests", "denoiser"):
        denoiser = kind(WIDTHS, SHARED, width=16, heads=2, dropout=0.0, **settings)
    for name, parameter in denoiser.named_parameters():
        if trained or name.startswith("out."):
            parameter.data += 0.3 * random(*parameter.shape, key=name)
    return denoiser.eval()


def test_joint_injections_start_at_zero_and_then_read_plan_and_evidence(conditions: Conditions) -> None:
    nowhere = {"shallow_layers": (), "deep_layers": ()}
    steered = (
        replace(conditions, plan=conditions.plan.flip(0)),
        replace(conditions, evidence={name: -value for name, value in conditions.evidence.items()}),
    )
    for trained in (False, True):
        denoiser = built(JointDenoiser, trained=trained, **nowhere)
        before = denoise(denoiser, conditions)
        assert before.any()
        assert all(torch.equal(before, denoise(denoiser, other)) is not trained for other in steered)


def test_a_denoiser_that_is_not_given_u_x(conditions: Conditions) -> None:
    other = replace(conditions, observation=-conditions.observation)
    blind, seeing = (built(kind, trained=True) for kind in (DenoiserWithoutObservation, Denoiser))
    assert torch.equal(denoise(blind, conditions), denoise(blind, other))
    assert not torch.equal(denoise(seeing, conditions), denoise(seeing, other))


def test_the_noisy_state_teaches_the_head_and_never_the_denoiser(
    trained: Callable[[str], Model], finished: AblationRequest
) -> None:
    model = trained(DEFAULT)
    executor = deepcopy(model.executor).requires_grad_(True)
    split = read_data_file(finished.data).splits["valid"]
    assert split.labels is not None
    seen = pipeline.observe(model, split)
    rows, observed = len(split), seen.observed.clone()
    observed[:, 0] = False
    batch = ExecutorInput(
        ids=split.ids,
        groups=split.groups,
        latents={
            name: value * observed[:, [place]] for place, (name, value) in enumerate(seen.latents.items())
        },
        observed=observed,
        observation=torch.tensor(seen.embedding),
        plan=random(rows, 4, model.config.shared_width, key="plan"),
        evidence={name: torch.zeros_like(value) for name, value in seen.latents.items()},
        trusted=torch.zeros(rows, dtype=torch.bool),
    )
    conditions = executor.conditions(batch, executor.anchors(batch))
    targets = Targets(dict(seen.latents), ~observed, torch.as_tensor(split.labels.values).float())
    noising = Noising(
        time=torch.full((rows,), 10.0),
        signal=torch.full((rows, 1), 0.5),
        noise={name: random(*value.shape, key=name) for name, value in seen.latents.items()},
        mean=torch.zeros(rows, dtype=torch.bool),
        plan_given=torch.ones(rows, dtype=torch.bool),
        evidence_given=torch.ones(rows, dtype=torch.bool),
    )
    networks = (
        lambda name, latents: model.latent_space.codecs[name].network.decode(latents),
        model.encoder.embed_one,
    )
    usual, noisy = (
        make(executor, batch, conditions, targets, noising, *networks)
        for make in (objective, classify_noisy_state)
    )

    def reaches(loss: Tensor, module: nn.Module) -> bool:
        found = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
        return any(gradient is not None and bool(gradient.any()) for gradient in found)

    assert executor.task is not None
    assert reaches(noisy.task, executor.task)
    assert reaches(usual.task, executor.denoiser)
    assert not reaches(noisy.task, executor.denoiser)
    assert torch.equal(noisy.denoising, usual.denoising)
    assert not torch.equal(noisy.task, usual.task)
