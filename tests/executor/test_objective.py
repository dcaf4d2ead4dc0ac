from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from omg_graph.executor.denoiser import Conditions
from omg_graph.executor.diffusion import make_scheduler
from omg_graph.executor.executor import Executor, ExecutorInput
from omg_graph.executor.objective import (
    Losses,
    Noising,
    ObjectiveWeights,
    Targets,
    draw_noising,
    evidence_consistency,
    objective,
    plan_consistency,
)
from omg_graph.retriever.evidence import aggregate, attention_weights
from omg_graph.retriever.query import QueryProjection
from omg_graph.seeding import generator, seeded

Build = Callable[..., Executor]
SHARED = 6


def embedding(width: int, key: str) -> Tensor:
    return torch.randn(width, SHARED, generator=generator("embedding", key))


def decode(name: str, latents: Tensor) -> Tensor:
    """Latents are the features: the modalities of these tests are vectors as wide as their latents."""
    return latents


def embed(name: str, latents: Tensor) -> Tensor:
    return nn.functional.normalize(latents @ embedding(latents.shape[1], name), dim=-1)


@pytest.fixture
def targets(conditions: Conditions) -> Targets:
    rows = len(conditions.observed)
    return Targets(
        latents={
            name: torch.randn(value.shape, generator=generator("truth", name))
            for name, value in conditions.evidence.items()
        },
        known=~conditions.observed,
        label=torch.linspace(-1, 1, rows),
    )


def noising(executor: Executor, rows: int, mean_share: float = 0.5) -> Noising:
    signals = make_scheduler("ddpm", executor.config.train_steps, executor.config.prediction).alphas_cumprod
    weights = ObjectiveWeights(mean_share=mean_share, condition_dropout=0.1)
    return draw_noising(executor, rows, signals, weights, generator("noising"))


def losses(
    executor: Executor,
    batch: ExecutorInput,
    conditions: Conditions,
    targets: Targets,
    mean_share: float = 0.5,
) -> Losses:
    random = noising(executor, len(batch.ids), mean_share)
    return objective(executor, batch, conditions, targets, random, decode, embed)


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
@pytest.mark.parametrize("term", ["denoising", "mean", "plan", "evidence", "task"])
def test_every_term_teaches_the_denoiser(
    make_executor: Build,
    batch: ExecutorInput,
    conditions: Conditions,
    targets: Targets,
    term: str,
    prediction: str,
) -> None:
    """Eqs. 14-17 on one-step estimates: each term's gradient reaches the denoiser and is finite."""
    executor = make_executor(prediction=prediction)
    value = getattr(losses(executor, batch, conditions, targets), term)
    assert float(value.detach()) > 0
    value.backward()
    gradients = [p.grad for p in executor.denoiser.parameters() if p.grad is not None]
    assert any(gradient.any() for gradient in gradients)
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("term", ["denoising", "task", "evidence"])
def test_a_gradient_reaches_the_query_projection(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, targets: Targets, term: str
) -> None:
    """Eq. 17 (and Eqs. 14, 15) back through z_0|t, the adapters' E (Eq. 8) and q to W_q of Eq. 7."""
    executor = make_executor()
    rows, entries, width = len(batch.ids), 5, 8
    projection = QueryProjection(SHARED, SHARED, [width])
    keys = nn.functional.normalize(torch.randn(entries, width, generator=generator("keys")), dim=-1)
    query = projection(torch.zeros(rows, width), batch.observation, batch.plan[:, 0])
    weights = attention_weights(query @ keys.T, 0.07)
    evidence = {
        name: aggregate(weights, torch.randn(rows, entries, size, generator=generator("values", name)))
        for name, size in executor.widths.items()
    }
    steered = replace(conditions, evidence=evidence)
    getattr(losses(executor, replace(batch, evidence=evidence), steered, targets), term).backward()
    gradient = projection.projection.weight.grad
    assert gradient is not None
    assert gradient.any()
    assert gradient.isfinite().all()


def test_the_total_is_the_weighted_sum() -> None:
    """Eq. 15 inside Eq. 18, with every weight its own."""
    parts = Losses(*(torch.tensor(float(value)) for value in (1, 2, 4, 8, 16)))
    assert parts.total(ObjectiveWeights(plan=0.5, evidence=0.25, task=0.125)).item() == 1 + 2 + 2 + 2 + 2
    assert parts.total(ObjectiveWeights(plan=0, evidence=0, task=0)).item() == 3
    assert parts.total(ObjectiveWeights()).item() == pytest.approx(3 + 0.1 * (4 + 8 + 16))


def test_plan_and_evidence_losses_by_hand() -> None:
    """Eq. 14: 1 - cos is 0, 1 and 2 for equal, orthogonal and opposite; L1 is 0 when aligned."""
    plan = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    made = torch.tensor([[3.0, 0.0], [0.0, 2.0], [-1.0, 0.0]])
    assert torch.allclose(plan_consistency(made, plan), torch.tensor([0.0, 1.0, 2.0]), atol=1e-6)
    assert evidence_consistency(made, made).tolist() == [0.0, 0.0, 0.0]
    assert torch.allclose(evidence_consistency(made, plan), torch.tensor([1.0, 1.5, 1.0]))


def test_both_losses_vanish_where_the_reconstruction_obeys(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, targets: Targets
) -> None:
    """L_plan with g(Y^) = c_S, and L_evi with phi(Y^) = A(E), inside the objective."""
    executor = make_executor()
    for _, layer in executor.alignment.items():
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    found = objective(
        executor,
        batch,
        conditions,
        targets,
        noising(executor, len(batch.ids)),
        lambda name, latents: torch.zeros_like(latents),
        lambda name, latents: conditions.plan[:, 0],
    )
    assert found.plan.item() == pytest.approx(0.0, abs=1e-6)
    assert found.evidence.item() == 0.0


def test_a_perfect_denoiser_costs_nothing(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, targets: Targets
) -> None:
    """The first term of Eq. 15, and the mean's, are zero for the right answer and only there."""
    executor = make_executor()
    random = noising(executor, len(batch.ids))
    truth = {
        name: (targets.latents[name] - conditions.anchor[name]) / executor.residual_scale[column]
        for column, name in enumerate(executor.names)
    }

    class Oracle(nn.Module):
        def forward(self, states, clean, time, conditions, mean):  # type: ignore[no-untyped-def]
            abar = random.signal
            v = {n: abar.sqrt() * random.noise[n] - (1 - abar).sqrt() * truth[n] for n in truth}
            return {n: torch.where(mean[:, None], truth[n], v[n]) for n in truth}

    executor.denoiser = Oracle()
    found = objective(executor, batch, conditions, targets, random, decode, embed)
    assert found.denoising.item() == pytest.approx(0.0, abs=1e-9)
    assert found.mean.item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("mean_share", [0.0, 0.5])
def test_slots_whose_truth_nobody_knows_are_not_scored(
    make_executor: Build,
    batch: ExecutorInput,
    conditions: Conditions,
    targets: Targets,
    mean_share: float,
) -> None:
    """Data that miss a slot by nature: whatever stands for its truth has no influence on any term."""
    executor = make_executor()
    known = targets.known.clone()
    known[::2] = False
    partly = replace(targets, known=known)
    moved = {
        name: torch.where(known[:, column : column + 1], value, value + 50.0)
        for column, (name, value) in enumerate(targets.latents.items())
    }
    with torch.no_grad():
        left = losses(executor, batch, conditions, partly, mean_share)
        right = losses(executor, batch, conditions, replace(partly, latents=moved), mean_share)
    assert left == right
    nobody = replace(targets, known=torch.zeros_like(known))
    with torch.no_grad():
        nothing = losses(executor, batch, conditions, nobody, mean_share)
    assert [nothing.denoising, nothing.mean, nothing.plan, nothing.evidence] == [0.0] * 4


def test_rows_without_a_label_cost_nothing(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, targets: Targets
) -> None:
    """Eq. 17 is a mean over labelled rows; without any, or without a head, it is zero."""
    executor = make_executor()
    nowhere = replace(targets, label=torch.full((len(batch.ids),), torch.nan))
    found = losses(executor, batch, conditions, nowhere)
    assert found.task.item() == 0.0
    found.total(ObjectiveWeights()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in executor.parameters())
    with torch.no_grad():
        assert losses(executor, batch, conditions, replace(targets, label=None)).task.item() == 0.0
        assert losses(make_executor(task=False), batch, conditions, targets).task.item() == 0.0


def test_estimates_without_signal_hardly_count(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, targets: Targets
) -> None:
    """L_plan, L_evi and L_task of noisy rows are weighted by abar, and rows of the mean estimate by 1.

    Rows that miss nothing rest on no estimate: their task loss counts whole, so they are left out here.
    """
    executor = make_executor()
    rows = len(batch.ids)
    assert targets.label is not None
    complete = batch.observed.all(dim=1)
    targets = replace(targets, label=targets.label.masked_fill(complete, torch.nan))
    random = noising(executor, rows)
    quiet = replace(random, signal=torch.full((rows, 1), 1e-8), mean=torch.zeros(rows, dtype=torch.bool))
    with torch.no_grad():
        faint = objective(executor, batch, conditions, targets, quiet, decode, embed)
        loud = objective(
            executor, batch, conditions, targets, replace(quiet, mean=~quiet.mean), decode, embed
        )
    for term in ("plan", "evidence", "task"):
        assert getattr(faint, term).item() < 1e-4 * getattr(loud, term).item()
    assert faint.denoising.item() > 0
    assert faint.mean.item() == 0
    assert loud.denoising.item() == 0


def test_what_is_random_is_repeatable(make_executor: Build) -> None:
    executor = make_executor()
    with seeded("elsewhere"):
        first = noising(executor, 64)
    second = noising(executor, 64)
    assert torch.equal(first.time, second.time)
    assert torch.equal(first.mean, second.mean)
    assert 0.2 < first.mean.float().mean().item() < 0.8
    assert first.time.min().item() >= 0
    assert first.time.max().item() < executor.config.train_steps
    assert not noising(executor, 64, mean_share=0.0).mean.any()
    for given in (first.plan_given, first.evidence_given):
        assert 0.7 < given.float().mean().item() < 1


def gradients(loss: Tensor, module: nn.Module) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True, allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


def test_a_task_weight_of_zero_leaves_the_head_alone(
    make_executor: Build, batch: ExecutorInput, conditions: Conditions, targets: Targets
) -> None:
    executor = make_executor()
    assert executor.task is not None
    found = losses(executor, batch, conditions, targets)
    off, on = (found.total(ObjectiveWeights(task=weight)) for weight in (0.0, 1.0))
    assert not any(gradient.any() for gradient in gradients(off, executor.task))
    assert any(gradient.any() for gradient in gradients(on, executor.task))
    assert any(gradient.any() for gradient in gradients(off, executor.denoiser))
