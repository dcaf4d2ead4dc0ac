"""Why the plan won, what the reconstruction changed, and what the utility is made of."""

from __future__ import annotations

import pytest

from omg_graph.record.results import SavedRun
from omg_graph.record.trajectory import CandidatePlan, Constraint, Plan, Prediction
from omg_graph.report.chapters import (
    evidence_chapters,
    label_rows,
    plan_chapter,
    prediction_change,
    utility_rows,
)


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


def test_how_often_a_plan_was_drawn_is_told_and_the_winner_first() -> None:
    good, bad = candidate("good", -1.0, 0.2), candidate("bad", -2.0, 0.2)
    told = plan_chapter(plan(bad, good.model_copy(update={"greedy": True, "times": 2}), chosen=1))
    assert [(row.text, row.times, row.chosen, row.greedy) for row in told.candidates] == [
        ("good", 2, True, True),
        ("bad", 1, False, False),
    ]
    assert told.reason == "Its score is the highest, 1.00 above the next. It is also the most probable."
    assert told.candidates[0].remarks == "greedy, drawn 2 times"
    assert told.drawn == 3


def test_a_plan_that_the_cost_turned_is_told_so() -> None:
    told = plan_chapter(plan(candidate("likely", -1.0, 1.0), candidate("fitting", -1.1, 0.1), chosen=1))
    assert "0.17 above the next" in told.reason
    assert "By probability alone “likely” would have won" in told.reason


def test_what_broke_the_schema_is_told() -> None:
    broken = candidate("odd", -0.1, None, violations=("no such word",))
    told = plan_chapter(plan(candidate("good", -1.0, 0.2), broken))
    assert told.reason == "It is the only valid plan that was drawn. 1 broke the schema and couldn't win."


def test_a_plan_chosen_by_the_utility_is_told_so() -> None:
    scored = candidate("scored", -1.0, 0.1), candidate("useful", -1.5, 0.1)
    told = plan_chapter(plan(*scored, chosen=1, chosen_by="utility"))
    assert told.reason.startswith("Its whole trajectory has the greatest utility (Eq. 2).")
    assert told.reason.endswith("By its score alone “scored” would have won.")


def test_no_choice_is_told_as_none() -> None:
    same = candidate("good", -1.0, 0.2).model_copy(update={"times": 3})
    assert plan_chapter(plan(same)).reason == "All 3 candidates are this plan."


@pytest.mark.parametrize(("who", "told"), [("person", "chose"), ("edited", "wrote")])
def test_a_person_is_told_of(who: str, told: str) -> None:
    assert f"A person {told} this plan." == plan_chapter(plan(candidate("a", -1, 0.1), chosen_by=who)).reason


def test_the_terms_of_the_utility_add_up(clips_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]
    assert trajectory.utility is not None
    rows = utility_rows(trajectory)
    assert sum(row.share or 0.0 for row in rows) == pytest.approx(trajectory.utility.total)
    assert all(row.value is not None for row in rows)


def test_labels_come_in_their_order_with_and_without(clips_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]
    rows = label_rows(trajectory, clips_run.facts)
    assert [row.label for row in rows][::6] == ["strongly negative", "strongly positive"]
    assert sum(row.with_it for row in rows) == pytest.approx(1.0)
    assert sum(row.without or 0.0 for row in rows) == pytest.approx(1.0)
    by_share = label_rows(trajectory, None)
    assert [row.with_it for row in by_share] == sorted((row.with_it for row in rows), reverse=True)


def test_what_the_reconstruction_changed(clips_run: SavedRun, plain_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]

    def change(now: Prediction, before: Prediction) -> str:
        return prediction_change(
            trajectory.model_copy(update={"prediction": now, "prediction_without": before})
        )

    sure = Prediction(value=None, label="ant", probabilities={"ant": 0.9, "bee": 0.1})
    unsure = Prediction(value=None, label="ant", probabilities={"ant": 0.6, "bee": 0.4})
    other = Prediction(value=None, label="bee", probabilities={"ant": 0.3, "bee": 0.7})
    assert change(sure, unsure) == "The label stays; its probability goes from 0.60 to 0.90."
    assert change(sure, other).startswith("Without the reconstruction it would have been bee")
    numbers = Prediction(value=1.5, label=None), Prediction(value=1.0, label=None)
    assert change(*numbers) == "The reconstruction moves it by +0.50, from +1.00."
    assert "no prediction" in prediction_change(plain_run.trajectories[0])


def test_evidence_is_cut_and_says_so(clips_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]
    entry = trajectory.evidence["audio"][0].model_copy(update={"weight": 0.02, "text": "x" * 1000})
    (told,) = evidence_chapters(trajectory.model_copy(update={"evidence": {"audio": (entry,) * 50}}))
    assert (len(told.entries), told.more) == (25, 25)
    assert told.more_weight == pytest.approx(0.5)
    assert len(told.entries[0].text) == 400


def test_the_same_evidence_for_several_is_told_once(clips_run: SavedRun) -> None:
    trajectory = clips_run.trajectories[0]
    entries = trajectory.evidence["audio"]
    costs = {"audio": 0.5, "vision": 0.5, "text": 0.5}
    found = {"audio": entries, "vision": entries, "text": entries[:2]}
    update = {"evidence": found, "evidence_cost": costs, "left_out": {}}
    told = evidence_chapters(trajectory.model_copy(update=update))
    assert [chapter.names for chapter in told] == [("audio", "vision"), ("text",)]
    other = update | {"left_out": {"vision": 3}}
    told = evidence_chapters(trajectory.model_copy(update=other))
    assert [chapter.names for chapter in told] == [("audio",), ("vision",), ("text",)]
