"""What may stand for the plan, and whose plan may turn the query."""

from __future__ import annotations

import pytest
import torch

from omg_graph.errors import ConfigError
from omg_graph.model.conditions import PLAN_CONDITIONS, random_plan
from omg_graph.planner.schemas import load_schema, parse_schema

PLAN = torch.nn.functional.normalize(torch.ones(3, 4, 256), dim=-1)
IDS = ("a", "b", "c")


def test_the_plan_itself_and_nothing() -> None:
    assert torch.equal(PLAN_CONDITIONS["plan"](PLAN, IDS), PLAN)
    assert not PLAN_CONDITIONS["none"](PLAN, IDS).any()


def test_noise_is_a_samples_own_and_of_the_scale_of_a_plan() -> None:
    noise = PLAN_CONDITIONS["noise"](PLAN, IDS)
    assert noise.shape == PLAN.shape
    torch.testing.assert_close(noise.norm(dim=-1), torch.ones(3, 4), atol=0.2, rtol=0)
    assert float((noise[0, 0] @ noise[1, 0]).abs()) < 0.5
    assert torch.equal(PLAN_CONDITIONS["noise"](PLAN[1:2], ("b",)), noise[1:2])


def test_random_plans_obey_the_schema_and_depend_on_the_id_alone() -> None:
    schema = load_schema("affect")
    plans = [random_plan(schema, f"sample {number}") for number in range(300)]
    assert all(not schema.violations(plan) for plan in plans)
    assert random_plan(schema, "sample 7") == plans[7]
    for level, field in enumerate(schema.fields):
        # each value about as often as any other
        assert {plan[level] for plan in plans} == set(field.values or ())


def test_random_plans_keep_to_what_may_follow_what() -> None:
    schema = parse_schema(
        "name: s\nfields:\n  - {name: A, values: [x, y]}\n"
        "  - {name: B, values: [p, q], within: {x: [p], y: [q]}}\ntext_form: '{A} {B}'\n",
        "here",
    )
    plans = {random_plan(schema, str(number)) for number in range(30)}
    assert plans == {("x", "p"), ("y", "q")}


def test_nothing_is_drawn_from_free_text() -> None:
    schema = parse_schema("name: s\nfields:\n  - {name: A, max_words: 2}\ntext_form: '{A}'\n", "here")
    with pytest.raises(ConfigError, match="A of 's' is free text"):
        random_plan(schema, "a")
