"""The Gaussian conditional that reads the plan: exact where it can be checked, additive over constraints."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from omg_graph.data.patterns import PatternPool
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.planned import PlannedConditional
from omg_graph.priors.prior import Examples, Shown
from omg_graph.seeding import generator

WIDTHS = {"a": 2, "b": 3}
SHARED = 12
PATTERN = torch.tensor([[True, False]])


def embeddings() -> tuple[Tensor, Tensor]:
    """Unit vectors of four entities and three actions."""
    source = generator("planned embeddings")
    made = torch.randn(7, SHARED, generator=source)
    made /= made.norm(dim=1, keepdim=True)
    return made[:4], made[4:]


def plans_of(entity: Tensor, action: Tensor) -> Tensor:
    """c_S: a vector for the whole plan, which says nothing here, then the constraints."""
    entities, actions = embeddings()
    return torch.stack([torch.zeros(len(entity), SHARED), entities[entity], actions[action]], dim=1)


def world(count: int, seed: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """What is missing is the sum of what entity and action and the observed add to it."""
    source = generator("planned world", seed)
    entity = torch.randint(4, (count,), generator=source)
    action = torch.randint(3, (count,), generator=source)
    parts = generator("planned parts")
    of_entity, of_action = torch.randn(4, 3, generator=parts), torch.randn(3, 3, generator=parts)
    mixing = torch.randn(2, 3, generator=parts)
    a = torch.randn(count, 2, generator=source)
    noise = 0.05 * torch.randn(count, 3, generator=source)
    return entity, action, {"a": a, "b": a @ mixing + of_entity[entity] + of_action[action] + noise}


def rows_of(entity: Tensor, action: Tensor, latents: dict[str, Tensor]) -> Examples:
    """Each row shown once, by its first modality."""
    count = len(entity)
    plans, index = torch.unique(plans_of(entity, action), dim=0, return_inverse=True)
    pool = PatternPool(
        np.arange(count), np.tile(PATTERN.numpy(), (count, 1)), np.arange(count + 1, dtype=np.int64)
    )
    ids = tuple(f"row{row}" for row in range(count))
    return Examples(
        ids=ids,
        groups=ids,
        latents=latents,
        known=torch.ones(count, 2, dtype=torch.bool),
        pool=pool,
        folds=np.arange(count) % 5,
        plan_index=index,
        plan_table=plans,
    )


def fitted(
    entity: Tensor, action: Tensor, latents: dict[str, Tensor], ridge: float = 1e-4, scale: float = 1.0
) -> PlannedConditional:
    rows = rows_of(entity, action, latents)
    model = PlannedConditional.telling_apart(WIDTHS, rows.plans(rows.pool.everything))
    model = model.refit(rows)
    model.use("b", ridge, scale)
    return model


def shown(latents: dict[str, Tensor], plans: Tensor | None, pattern: Tensor = PATTERN) -> Shown:
    names = ("new",) * len(latents["a"])
    hidden = {"a": latents["a"], "b": torch.zeros_like(latents["b"])}
    observed = pattern.expand(len(names), 2)
    return Shown(ids=names, groups=names, latents=hidden, observed=observed, plan=plans)


def predicted(model: PlannedConditional, latents: dict[str, Tensor], plans: Tensor) -> Tensor:
    return model.predict("b", shown(latents, plans))


def test_the_plan_is_read_where_it_helps_held_out_rows() -> None:
    entity, action, latents = world(400, 0)
    model = PlannedConditional.fit(rows_of(entity, action, latents))
    assert model.reads_plan("b")
    same = torch.zeros_like(entity)
    assert not PlannedConditional.fit(rows_of(same, same, latents)).reads_plan("b")


def test_it_is_the_regression_on_observation_and_constraints() -> None:
    entity, action, latents = world(400, 0)
    model = fitted(entity, action, latents, ridge=1e-6)
    one_hot = torch.cat([latents["a"], torch.eye(4)[entity], torch.eye(3)[action]], dim=1).double()
    target = latents["b"].double()
    solved = torch.linalg.lstsq(
        torch.cat([one_hot, torch.ones(400, 1).double()], dim=1), target, driver="gelsd"
    ).solution
    expected = torch.cat([one_hot, torch.ones(400, 1).double()], dim=1) @ solved
    made = predicted(model, latents, plans_of(entity, action))
    assert torch.allclose(made, expected.float(), atol=2e-3)


def test_a_combination_that_was_never_met_is_put_together_from_its_parts() -> None:
    entity, action, latents = world(600, 0)
    met = ~((entity == 2) & (action == 1))
    model = fitted(entity[met], action[met], {name: value[met] for name, value in latents.items()})
    part = {name: value[~met] for name, value in latents.items()}
    made = predicted(model, part, plans_of(entity[~met], action[~met]))
    error = (made - part["b"]).square().mean() / latents["b"].square().mean()
    assert float(error) < 0.01
    swapped = predicted(model, part, plans_of(entity[~met], torch.zeros_like(action[~met])))
    assert float((swapped - made).square().mean()) > 0.1


@pytest.mark.parametrize("pattern", [[True, False], [False, False]])
def test_without_a_scale_it_is_the_gaussian_conditional(pattern: list[bool]) -> None:
    entity, action, latents = world(200, 1)
    model = fitted(entity, action, latents, scale=0.0)
    assert not model.reads_plan("b")
    asked = shown(latents, plans_of(entity, action), torch.tensor([pattern]))
    assert torch.equal(model.predict("b", asked), model.gaussian.predict("b", asked))


def test_a_row_alone_is_the_row_in_its_batch() -> None:
    entity, action, latents = world(60, 2)
    model = fitted(entity, action, latents)
    plans = plans_of(entity, action)
    together = predicted(model, latents, plans)
    alone = predicted(model, {name: value[7:8] for name, value in latents.items()}, plans[7:8])
    assert torch.allclose(together[7:8], alone, atol=1e-5)


def test_plans_that_are_all_the_same_add_nothing() -> None:
    entity, action, latents = world(200, 3)
    same = torch.zeros_like(entity)
    model = fitted(same, same, latents, ridge=float(GaussianConditional(WIDTHS).ridges[1]))
    assert model.basis.shape[1] == 0
    made = predicted(model, latents, plans_of(entity, action))
    assert torch.allclose(made, model.gaussian.predict("b", shown(latents, None)), atol=1e-5)


def test_what_was_fitted_is_loaded_with_its_size() -> None:
    entity, action, latents = world(200, 4)
    model = fitted(entity, action, latents)
    loaded = PlannedConditional(WIDTHS)
    loaded.load_state_dict(model.state_dict())
    plans = plans_of(entity, action)
    assert torch.equal(predicted(loaded, latents, plans), predicted(model, latents, plans))
