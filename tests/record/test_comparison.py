"""What differs between two runs of a sample, in cases that can be worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from omg_graph.errors import DataError
from omg_graph.record.artifacts import MemoryArtifactStore
from omg_graph.record.comparison import compare
from omg_graph.record.trajectory import CandidatePlan, Constraint, EvidenceEntry, Plan, Trajectory

STORE = MemoryArtifactStore()
MEAN, DEVIATION = np.array([1.0, 2.0]), np.array([0.5, 2.0])


def plan(mood: str, log_probability: float | None) -> Plan:
    constraints = tuple(
        Constraint(field=field, value=value, log_probability=log_probability, tokens=1)
        for field, value in (("Entity", "story"), ("Mood", mood))
    )
    winner = CandidatePlan(
        text=f"story: {mood}",
        constraints=constraints,
        log_probability=log_probability,
        log_probability_per_token=log_probability,
        semantic_cost=0.5,
    )
    return Plan(
        schema_name="s",
        planner="p",
        text=winner.text,
        constraints=constraints,
        chosen=0,
        semantic_weight=0.3,
        candidates=(winner,),
    )


def run(mood: str, weights: dict[str, float], numbers: list[float], **changes: object) -> Trajectory:
    return Trajectory(
        id="a",
        group="a",
        observed=("text",),
        missing=("audio",),
        plan=plan(mood, -1.0 if mood == "glad" else None),
        evidence={
            "audio": tuple(
                EvidenceEntry(id=key, weight=weight, similarity=0.1, text=f"of {key}", source="kb")
                for key, weight in weights.items()
            )
        },
        reconstruction={"audio": STORE.put(np.array(numbers, dtype=np.float32))},
        seed=0,
        model="m",
    ).model_copy(update=changes)


def test_by_hand() -> None:
    before = run("glad", {"x": 0.6, "y": 0.4}, [1.5, 2.0])
    after = run("sad", {"y": 0.7, "z": 0.3}, [2.5, 4.0], notes=("new",))
    found = compare(before, after, (STORE.get, STORE.get), lambda _: (MEAN, DEVIATION))
    assert found.same_input
    assert found.plan is not None
    assert [(one.field, one.before, one.after) for one in found.plan.changed] == [("Mood", "glad", "sad")]
    assert found.plan.log_probability == (-1.0, None)
    evidence = found.evidence["audio"]
    assert [(one.id, one.before, one.after) for one in evidence.entries] == [
        ("y", 0.4, 0.7),
        ("x", 0.6, None),
        ("z", None, 0.3),
    ]
    assert [one.change for one in evidence.entries] == ["", "gone", "new"]
    assert evidence.moved == pytest.approx((0.6 + 0.3 + 0.3) / 2)
    output = found.output["audio"]
    # two deviations in one feature, one in the other; and one and none from the mean
    assert output.distance == pytest.approx(np.sqrt((2**2 + 1**2) / 2))
    assert output.from_mean == pytest.approx(np.sqrt(1 / 2))
    assert found.notes == ((), ("new",))


def test_a_run_and_itself() -> None:
    one = run("glad", {"x": 1.0}, [3.0, 4.0])
    found = compare(one, one, (STORE.get, STORE.get), lambda _: (MEAN, DEVIATION))
    assert found.plan is not None
    assert (found.plan.changed, found.evidence["audio"].moved, found.output["audio"].distance) == ((), 0, 0)


def test_frames_past_the_end_of_a_sequence_don_t_count() -> None:
    frames = [[[1.5, 2.0], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], [[1.5, 4.0]] + [[1.0, 2.0]] * 3]
    before, after = (run("glad", {}, numbers, lengths={"audio": 1}) for numbers in frames)  # type: ignore[arg-type]
    found = compare(before, after, (STORE.get, STORE.get), lambda _: (MEAN, DEVIATION))
    assert found.output["audio"].distance == pytest.approx(np.sqrt(1 / 2))


def test_without_arrays_or_scale_there_is_no_distance() -> None:
    one = run("glad", {"x": 1.0}, [3.0, 4.0])
    for arrays, scale in (((lambda _: None, STORE.get), (MEAN, DEVIATION)), ((STORE.get, STORE.get), None)):
        found = compare(one, one, arrays, lambda _, scale=scale: scale)  # type: ignore[misc]
        assert found.output["audio"].distance is None


def test_two_samples_aren_t_one() -> None:
    one = run("glad", {"x": 1.0}, [3.0, 4.0])
    with pytest.raises(DataError, match="got 'a' and 'b'"):
        compare(one, one.model_copy(update={"id": "b"}), (STORE.get, STORE.get), lambda _: None)
