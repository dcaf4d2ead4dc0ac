from __future__ import annotations

import numpy as np
import pytest
import torch

from omg_graph.data.patterns import pattern_pool
from omg_graph.training.rows import PairData

ROWS = 12
CPU = torch.device("cpu")


@pytest.fixture
def data() -> PairData:
    """Rows of two modalities, each either hidden in turn, half of them under each of two plans."""
    ids = tuple(f"row{row}" for row in range(ROWS))
    latents = {name: torch.arange(ROWS)[:, None] + torch.tensor([[shift]]) for name, shift in LATENTS.items()}
    pool = pattern_pool(np.ones((ROWS, 2), np.bool_), ids, 3, 0)
    return PairData(
        ids=ids,
        groups=ids,
        latents=latents,
        known=torch.ones(ROWS, 2, dtype=torch.bool),
        label=torch.arange(ROWS).float(),
        keys=torch.cat(list(latents.values()), dim=1),
        view_of_column=torch.tensor([0, 1]),
        pool=pool,
        observation=torch.from_numpy(pool.rows).float()[:, None],
        plan_index=torch.from_numpy(pool.rows % 2),
        plan_table=torch.arange(3.0)[:, None, None].expand(3, 2, 4),
        folds=np.zeros(ROWS, dtype=np.int64),
        estimates={"prior": {name: torch.from_numpy(pool.rows).float()[:, None] for name in latents}},
        shortlist={"a": torch.zeros(len(pool), 1, dtype=torch.int64)},
    )


LATENTS = {"a": 0.0, "b": 100.0}


def test_the_teacher_s_plans_are_trusted_and_the_others_stay(data: PairData) -> None:
    own = data.own_plans
    places = torch.where(torch.arange(len(data.pool)) % 3 == 0, -1, 2)
    taught = data.taught(places)
    pairs = data.pool.everything
    batch = taught.executor_input(pairs, {}, CPU)
    assert torch.equal(batch.trusted, places >= 0)
    assert torch.equal(taught.own_plans, torch.where(places >= 0, 2, own))
    assert torch.equal(batch.plan[:, 0, 0], taught.own_plans.float())
    assert not data.executor_input(pairs, {}, CPU).trusted.any()
    assert not taught.shortlist


@pytest.mark.parametrize("same_plan", [False, True])
def test_donors_show_the_same_modalities_of_other_rows(data: PairData, same_plan: bool) -> None:
    donors = data.donors(5, same_plan=same_plan)
    pairs = data.pool.everything
    assert sorted(donors) == list(pairs)
    assert np.array_equal(data.pool.visible[donors], data.pool.visible)
    assert (data.pool.rows[donors] != data.pool.rows).all()
    same = data.own_plans[torch.from_numpy(donors)] == data.own_plans
    assert bool(same.all()) == same_plan
    assert np.array_equal(donors, data.donors(5, same_plan=same_plan))
    assert not np.array_equal(donors, data.donors(6, same_plan=same_plan))


def test_a_counterfactual_pair_keeps_its_plan_query_and_truth(data: PairData) -> None:
    """What is observed is the donor's, down to u_X and the prior's estimate; there is no label to learn."""
    donors, pairs = data.donors(0, same_plan=False), data.pool.everything
    moved = data.showing(donors)
    shown, own = moved.executor_input(pairs, {}, CPU), data.executor_input(pairs, {}, CPU)
    theirs = data.executor_input(donors, {}, CPU)
    for name in data.names:
        assert torch.equal(shown.latents[name], theirs.latents[name])
        assert torch.equal(
            moved.estimates["prior"][name], data.estimates["prior"][name][torch.from_numpy(donors)]
        )
    assert torch.equal(shown.observation, theirs.observation)
    assert torch.equal(shown.observed, own.observed)
    assert torch.equal(shown.plan, own.plan)
    assert torch.equal(moved.raw_queries(pairs)[0], data.raw_queries(pairs)[0])
    targets, expected = moved.targets(pairs, CPU), data.targets(pairs, CPU)
    for name in data.names:
        assert torch.equal(targets.latents[name], expected.latents[name])
    assert torch.equal(targets.known, expected.known)
    assert targets.label is None
    assert expected.label is not None
