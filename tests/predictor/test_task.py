from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omg_graph.predictor.task import TaskHead, TaskHeadConfig
from omg_graph.seeding import generator, seeded

NAMES = ("bad", "poor", "neutral", "good")
DEGREES = (-2.0, -1.0, 0.0, 1.5)
WIDTHS = {"items": 3, "a.b": 2}


def head(kind: str = "degrees") -> TaskHead:
    words = {"degrees": DEGREES} if kind == "degrees" else {}
    with seeded("task", kind):
        return TaskHead(
            TaskHeadConfig(
                kind=kind,  # type: ignore[arg-type]
                names=() if kind == "number" else NAMES,
                widths=WIDTHS,
                scales=dict.fromkeys(WIDTHS, 2.0),
                shared_width=5,
                hidden=8,
                target_mean=10.0,
                target_deviation=4.0,
                **words,
            )
        ).eval()


def outputs(rows: int = 6) -> Tensor:
    return 2 * torch.randn(rows, len(NAMES), generator=generator("outputs"))


def test_probabilities_sum_to_one_and_the_value_is_the_expectation() -> None:
    task, given = head(), outputs()
    probabilities = task.probabilities(given)
    assert torch.allclose(probabilities.sum(1), torch.ones(6))
    expected = (probabilities * torch.tensor(DEGREES)).sum(1)
    assert torch.allclose(task.value(given), expected, atol=1e-6)
    certain = torch.full((1, 4), -100.0)
    certain[0, 3] = 100.0
    assert task.value(certain).item() == pytest.approx(1.5)


def test_a_number_is_given_in_the_label_s_units() -> None:
    assert torch.allclose(head("number").value(torch.tensor([[0.0], [-1.0]])), torch.tensor([10.0, 6.0]))


def test_the_class_is_the_nearest_degree() -> None:
    target = torch.tensor([-9.0, -1.4, 0.1, 0.74, 0.76, 3.0])
    assert head().class_index(target).tolist() == [0, 1, 2, 2, 3, 3]
    assert head("classes").class_index(torch.tensor([3.0, 0.0])).tolist() == [3, 0]


@pytest.mark.parametrize("kind", ["degrees", "classes", "number"])
def test_unknown_labels_cost_nothing(kind: str) -> None:
    """Eq. 17 over labelled rows only: neither a cost nor a gradient, and no NaN in either."""
    task = head(kind)
    given = outputs()[:, : task.config.outputs].requires_grad_()
    target = torch.tensor([1.0, torch.nan, 0.0, torch.nan, 1.0, 0.0])
    cost = task.loss(given, target)
    cost.sum().backward()
    assert cost[[1, 3]].tolist() == [0.0, 0.0]
    assert bool((cost[[0, 2, 4, 5]] > 0).all())
    assert given.grad is not None
    assert given.grad.isfinite().all()
    assert not given.grad[[1, 3]].any()


@pytest.mark.parametrize("kind", ["degrees", "classes", "number"])
def test_the_truth_costs_less_than_a_mistake(kind: str) -> None:
    task = head(kind)
    right, wrong = torch.zeros(1, task.config.outputs), torch.zeros(1, task.config.outputs)
    if kind == "number":
        target, right[0, 0], wrong[0, 0] = torch.tensor([14.0]), 1.0, -1.0
    else:
        target, right[0, 3], wrong[0, 0] = torch.tensor([1.5 if kind == "degrees" else 3.0]), 5.0, 5.0
    assert float(task.loss(right, target)) < float(task.loss(wrong, target))


def test_every_slot_and_the_observation_are_fused() -> None:
    """Fusion(u_X, z) of Eq. 17 reads all of it, each modality in units of its own scale."""
    task = head()
    latents = {name: torch.randn(4, width, generator=generator(name)) for name, width in WIDTHS.items()}
    observation = torch.randn(4, 5, generator=generator("u"))
    before = task(observation, latents)
    assert before.shape == (4, 4)
    assert not torch.allclose(before, task(observation + 1, latents))
    for name in WIDTHS:
        assert not torch.allclose(before, task(observation, latents | {name: latents[name] + 5}))
    doubled = head()
    doubled.config = task.config.model_copy(update={"scales": dict.fromkeys(WIDTHS, 4.0)})
    twice = {name: 2 * value for name, value in latents.items()}
    assert torch.allclose(before, doubled(observation, twice), atol=1e-6)
