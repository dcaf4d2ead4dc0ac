"""What every renderer shows: why the plan won, evidence, features, prediction and utility."""

from __future__ import annotations

import numpy as np
import pytest

from omg_graph.record.results import SavedRun
from omg_graph.record.trajectory import CandidatePlan, Constraint, Plan, Prediction
from omg_graph.record.view import plan_view, prediction_text, view


def candidate(text: str, log_probability: float, cost: float | None, **more: object) -> CandidatePlan:
    link = Constraint(field="Sentiment", value=text, log_probability=log_probability, tokens=1)
    score = None if cost is None else log_probability - 0.3 * cost
    fields = {"semantic_cost": cost, "score": score} | more
    return CandidatePlan(
        text=text,
        constraints=(link,),
        log_probability=log_probability,
        log_probability_per_token=log_probability,
        **fields,  # type: ignore[arg-type]
    )


def plan(*candidates: CandidatePlan, chosen: int = 0, chosen_by: str = "rerank") -> Plan:
    return Plan(
        schema_name="affect",
        planner="distilled",
        text=candidates[chosen].text,
        constraints=candidates[chosen].constraints,
        chosen=chosen,
        chosen_by=chosen_by,
        semantic_weight=0.3,
        candidates=candidates,
    )


def test_the_winner_comes_first_with_how_often_it_was_drawn() -> None:
    good, bad = candidate("good", -1.0, 0.2), candidate("bad", -2.0, 0.2)
    shown = plan_view(plan(bad, good.model_copy(update={"greedy": True, "times": 2}), chosen=1))
    assert [(row.number, row.drawn.text, row.chosen, row.remarks) for row in shown.candidates] == [
        (1, "good", True, "greedy, ×2"),
        (2, "bad", False, ""),
    ]
    assert shown.candidates[0].weighted_cost == pytest.approx(0.06)
    assert shown.reason == "Its score is the highest, 1.00 above the next. It is also the most probable."


GOOD = candidate("good", -1.0, 0.2)


@pytest.mark.parametrize(
    ("drawn", "reason"),
    [
        (
            plan(candidate("likely", -1.0, 1.0), candidate("fitting", -1.1, 0.1), chosen=1),
            "Its score is the highest, 0.17 above the next. The most probable plan is “likely”; "
            "C_sem decided against it.",
        ),
        (
            plan(GOOD, candidate("odd", -0.1, None, violations=("no such word",))),
            "It is the only valid plan that was drawn. 1 broke the schema and couldn't win.",
        ),
        (
            plan(GOOD, candidate("useful", -1.5, 0.1), chosen=1, chosen_by="utility"),
            "Its whole trajectory has the greatest utility (Eq. 2). "
            "By its score alone “good” would have won.",
        ),
        (plan(GOOD.model_copy(update={"times": 3})), "All 3 candidates are this plan."),
        (plan(GOOD, chosen_by="person"), "A person chose this plan."),
        (plan(GOOD, chosen_by="edited"), "A person wrote this plan."),
    ],
)
def test_why_a_plan_won(drawn: Plan, reason: str) -> None:
    assert plan_view(drawn).reason == reason


def test_the_terms_of_the_utility_add_up(clips_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]
    assert trajectory.utility is not None
    rows = view(trajectory).terms
    assert sum(row.share or 0.0 for row in rows) == pytest.approx(trajectory.utility.total)
    assert all(row.value is not None for row in rows)


def test_labels_come_in_their_order_with_and_without(clips_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]
    rows = view(trajectory, clips_run.facts).labels
    assert [row.label for row in rows][::6] == ["strongly negative", "strongly positive"]
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    assert sum(row.without or 0.0 for row in rows) == pytest.approx(1.0)
    by_share = view(trajectory).labels
    assert [row.share for row in by_share] == sorted((row.share for row in rows), reverse=True)


def test_what_the_reconstruction_changed(clips_run: SavedRun, plain_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]

    def change(now: Prediction, before: Prediction) -> str:
        both = {"prediction": now, "prediction_without": before}
        return view(trajectory.model_copy(update=both)).change

    sure = Prediction(value=None, label="ant", probabilities={"ant": 0.9, "bee": 0.1})
    unsure = Prediction(value=None, label="ant", probabilities={"ant": 0.6, "bee": 0.4})
    other = Prediction(value=None, label="bee", probabilities={"ant": 0.3, "bee": 0.7})
    assert change(sure, unsure) == "The label stays; its probability goes from 0.60 to 0.90."
    assert change(sure, other).startswith("Without the reconstruction it would have been bee")
    numbers = Prediction(value=1.5, label=None), Prediction(value=1.0, label=None)
    assert change(*numbers) == "The reconstruction moves it by +0.50, from +1.00."
    assert "no prediction" in view(plain_run.trajectories[0]).change


def test_the_rest_of_the_evidence_is_counted(clips_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]
    entry = trajectory.evidence["audio"][0].model_copy(update={"weight": 0.01})
    heavy = entry.model_copy(update={"weight": 0.5, "id": "heavy"})
    (part,) = view(trajectory.model_copy(update={"evidence": {"audio": (*(entry,) * 50, heavy)}})).evidence
    entries, more, rest = part.top(26)
    assert (len(entries), more, entries[0].id) == (26, 25, "heavy")
    assert rest == pytest.approx(0.25)


def test_the_same_evidence_for_two_modalities_is_shown_once(clips_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]
    entries = trajectory.evidence["audio"]
    costs = {"audio": 0.5, "vision": 0.5, "text": 0.5}
    kept = {"audio": entries, "vision": entries, "text": entries[:2]}
    update = {"evidence": kept, "evidence_cost": costs, "left_out": {}}
    parts = view(trajectory.model_copy(update=update)).evidence
    assert [part.names for part in parts] == [("audio", "vision"), ("text",)]
    other = update | {"left_out": {"vision": 3}}
    parts = view(trajectory.model_copy(update=other)).evidence
    assert [part.names for part in parts] == [("audio",), ("vision",), ("text",)]


def test_the_features_furthest_from_the_mean_come_first(clips_run: SavedRun) -> None:
    names, units = ("loud", "shrill", "slow", "hoarse", "wet"), ("dB", "1", "Hz", "1", "1")
    trajectory, facts = clips_run.trajectories[0], clips_run.facts
    assert facts is not None
    assert view(trajectory, facts, clips_run.arrays).reconstructions[0].features == ()
    update = {"feature_names": {"audio": names}, "feature_units": {"audio": units}}
    named = view(trajectory, facts.model_copy(update=update), clips_run.arrays)
    (one,) = named.reconstructions
    values, scale = clips_run.arrays.find(one.ref), clips_run.arrays.scale("audio")
    assert values is not None
    assert scale is not None
    distances = (values - scale[0]) / scale[1]
    assert [abs(feature.distance) for feature in one.features] == sorted(np.abs(distances), reverse=True)
    (shrill,) = [feature for feature in one.features if feature.name == "shrill"]
    assert (shrill.unit, shrill.value, shrill.mean) == ("", values[1], scale[0][1])


def test_a_prediction_in_words() -> None:
    degree = Prediction(value=2.29, label="positive", probabilities={"positive": 0.57})
    classes = Prediction(value=None, label="bee", probabilities={"ant": 0.3, "bee": 0.7})
    assert prediction_text(degree) == "positive +2.29 (57%)"
    assert prediction_text(classes) == "bee (70%)"
    assert prediction_text(Prediction(value=-1.5, label=None)) == "-1.50"
    assert prediction_text(None) == "-"
