"""What the planner drew, as it stands in a trajectory; how long a reconstructed sequence is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from omg_graph.data.dataset import ModalitySpec, Split
from omg_graph.errors import PlanError
from omg_graph.model.folder import load_model
from omg_graph.outcomes import reconstructed_lengths
from omg_graph.record.trajectory import Plan
from omg_graph.trajectories import counted

GOOD, BAD = ("story", "praises", "positive"), ("story", "lets down", "negative")


def test_a_plan_that_came_twice_is_listed_once(tiny_model_folder: Path) -> None:
    model = load_model(tiny_model_folder)
    drawn = [
        model.schema.candidate(GOOD, (-1.0, -1.0, -1.0), (2, 2, 2), greedy=True),
        model.schema.candidate(BAD, (-0.5, -0.5, -0.5), (2, 2, 2)),
        model.schema.candidate(GOOD, (-1.0, -1.0, -0.5), (2, 2, 2)),
    ]
    good, bad = counted(drawn)
    assert (good.times, good.greedy, good.log_probability) == (2, True, -2.5)
    assert (bad.times, bad.greedy, bad.log_probability) == (1, False, -1.5)
    assert "times" not in bad.model_dump()

    plan = Plan(
        schema_name="affect",
        planner="distilled",
        text=good.text,
        constraints=good.constraints,
        chosen=0,
        semantic_weight=0.3,
        candidates=(good, bad),
    )
    assert (plan.drawn, plan.numbered(1), plan.numbered(2)) == (3, 0, 1)
    for number in (0, 3):
        with pytest.raises(PlanError, match=f"from 1 to 2, got {number}"):
            plan.numbered(number)


def test_a_sequence_takes_the_length_of_an_aligned_one() -> None:
    split = Split(
        name="some",
        ids=("a", "b", "c"),
        groups=("a", "b", "c"),
        modalities=tuple(ModalitySpec(name=name, kind="sequence", shape=(4, 2)) for name in ("one", "two")),
        arrays={name: np.ones((3, 4, 2), np.float32) for name in ("one", "two")},
        observed={"one": np.array([True, False, True]), "two": np.array([False, False, True])},
        lengths={"one": np.array([3, 4, 1]), "two": np.array([4, 4, 2])},
    )
    model: Any = SimpleNamespace(config=SimpleNamespace(median_lengths={"two": 9}))
    lengths, source = reconstructed_lengths(model, split, {})
    assert lengths["two"].tolist() == [3, 4, 2]
    assert source == {"two": ["aligned with one", "training median", "input"]}
