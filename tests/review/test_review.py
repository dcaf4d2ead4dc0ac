"""A person in the loop: what is shown, what may be answered, and what the trajectory says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from omg_graph import Model, Settings, Trajectory, build_graph, load_model, reconstruct
from omg_graph.errors import ConfigError, PlanError
from omg_graph.planner.chat import ChatPlanner
from omg_graph.review.review import ReviewAnswer, ReviewRequest, read_answer

ASKED = Settings(review_plan=True, steps=2)


@pytest.fixture(scope="module")
def clips(tiny_model_folder: Path) -> Model:
    return load_model(tiny_model_folder)


@pytest.fixture
def talk(clips: Model, tiny_data_file: Path) -> Callable[..., dict[str, Any]]:
    """A run of one sample or more, to which each call gives one answer more."""
    graph = build_graph(clips, checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}

    def say(*answer: Any, limit: int = 1) -> dict[str, Any]:
        sample = {"path": str(tiny_data_file), "split": "test", "missing": ["audio"], "limit": limit}
        return graph.invoke(Command(resume=answer[0]) if answer else sample, thread, context=ASKED)

    return say


def asked(result: dict[str, Any]) -> ReviewRequest:
    (waiting,) = result["__interrupt__"]
    return ReviewRequest.model_validate(waiting.value)


def made(result: dict[str, Any]) -> Trajectory:
    assert "__interrupt__" not in result
    return result["trajectories"][0]


def other_value(request: ReviewRequest) -> dict[str, str]:
    """A change of the last field which makes a plan that was never drawn."""
    field, drawn = request.fields[-1], {candidate.text for candidate in request.candidates}
    now = request.candidates[0]
    for value in field.values or ():
        if now.text.replace(now.constraints[-1].value, value) not in drawn:
            return {field.name: value}
    raise AssertionError("every value was drawn")


def test_what_a_person_is_shown(talk: Callable[..., dict[str, Any]], clips: Model) -> None:
    request = asked(talk())
    assert (request.number, request.of, request.missing) == (1, 1, ("audio",))
    assert [field.name for field in request.fields] == list(clips.schema.field_names)
    scores = [candidate.score for candidate in request.candidates]
    assert scores == sorted(scores, reverse=True)
    assert [candidate.number for candidate in request.candidates] == [*range(1, len(scores) + 1)]
    assert len({candidate.text for candidate in request.candidates}) == len(scores)
    assert sum(candidate.times for candidate in request.candidates) == clips.config.planning.candidates
    assert request.error is None


def test_accepting_is_the_model_s_choice_seen_by_a_person(
    talk: Callable[..., dict[str, Any]], clips: Model, tiny_data_file: Path
) -> None:
    request = asked(talk())
    plan = made(talk({"accept": True})).plan
    assert plan.text == request.candidates[0].text
    (alone,) = reconstruct(clips, tiny_data_file, split="test", missing=["audio"], limit=1)
    assert (plan.chosen_by, plan.reviewed) == ("rerank", True)
    assert plan.model_copy(update={"reviewed": False}) == alone.plan


def test_an_edited_plan_is_scored_like_the_others(talk: Callable[..., dict[str, Any]], clips: Model) -> None:
    request = asked(talk())
    ((field, value),) = other_value(request).items()
    # the case and white space are as people type
    trajectory = made(talk({"set": {field.lower(): f" {value.upper()}"}}))
    plan = trajectory.plan
    winner = plan.candidates[plan.chosen]
    assert (plan.chosen_by, winner.edited, winner.constraints[-1].value) == ("edited", True, value)
    assert {one.text for one in plan.candidates[:-1]} == {one.text for one in request.candidates}
    assert winner.log_probability == pytest.approx(sum(c.log_probability for c in winner.constraints))
    assert winner.score == pytest.approx(winner.log_probability - plan.semantic_weight * winner.semantic_cost)
    # the constraints before the edit have the log-probabilities that they were drawn with
    assert winner.constraints[0].log_probability == pytest.approx(
        request.candidates[0].constraints[0].log_probability, abs=1e-4
    )
    assert winner.constraints[-1].tokens == 2  # the value, however many words it has, and its end


def test_an_edit_that_makes_a_candidate_is_that_candidate(talk: Callable[..., dict[str, Any]]) -> None:
    request = asked(talk())
    plan = made(talk({"set": {c.field: c.value for c in request.candidates[-1].constraints}})).plan
    assert plan.text == request.candidates[-1].text
    assert plan.chosen_by == "person"
    assert not any(candidate.edited for candidate in plan.candidates)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"pick": 99}, "a candidate from 1 to"),
        ({"pick": 0}, "greater than or equal to 1"),
        ({"set": {"Weather": "fine"}}, "one of the fields Entity, Action, Sentiment"),
        ({"set": {"Sentiment": "so so"}}, "Sentiment can't be 'so so': one of strongly negative"),
        ({"take": 1}, "take: Extra inputs are not permitted"),
        ({"pick": 1, "redraw": True}, "got more than one"),
        ("maybe", "expected an answer, got 'maybe'"),
        (["accept"], "valid dictionary"),
    ],
)
def test_an_answer_that_can_t_be_used_is_asked_for_again(
    talk: Callable[..., dict[str, Any]], answer: object, told: str
) -> None:
    first = asked(talk())
    again = asked(talk(answer))
    assert told in again.error
    assert again.model_copy(update={"error": None}) == first
    assert made(talk("accept")).plan.text == first.candidates[0].text


def test_new_candidates_join_the_old_ones(talk: Callable[..., dict[str, Any]]) -> None:
    first = asked(talk())
    second, third = asked(talk("redraw")), asked(talk("redraw"))
    texts = [candidate.text for candidate in second.candidates]
    assert set(texts) > {candidate.text for candidate in first.candidates}
    assert {candidate.text for candidate in third.candidates} >= set(texts)
    assert third.candidates[0].score == max(c.score for c in third.candidates)
    picked = made(talk({"pick": len(third.candidates)}))
    assert (picked.plan.text, picked.plan.chosen_by) == (third.candidates[-1].text, "person")
    assert picked.utility.semantic == third.candidates[-1].semantic_cost
    # by the same seed the same is drawn anew
    again = asked(talk())
    assert [c.text for c in again.candidates] == [c.text for c in first.candidates]
    assert [c.text for c in asked(talk("redraw")).candidates] == texts


def test_one_sample_after_another(talk: Callable[..., dict[str, Any]]) -> None:
    first = asked(talk(limit=3))
    second = asked(talk({"pick": 2}))
    assert (first.number, second.number, second.of) == (1, 2, 3)
    assert first.sample != second.sample
    assert asked(talk("redraw")).sample == second.sample
    third = asked(talk({"accept": True}))
    assert third.number == 3
    result = talk("accept_rest")
    plans = [trajectory.plan for trajectory in result["trajectories"]]
    assert [plan.chosen_by for plan in plans] == ["person", "rerank", "rerank"]
    assert [plan.reviewed for plan in plans] == [True, True, True]
    assert len(plans[1].candidates) > len(plans[0].candidates)


def test_the_next_run_of_a_thread_is_reviewed_too(talk: Callable[..., dict[str, Any]]) -> None:
    asked(talk())
    talk({"accept": True})
    assert asked(talk(limit=2)).of == 2
    asked(talk("redraw"))
    # a run that is given up in the middle of a review leaves nothing to the next one
    again = asked(talk(limit=1))
    assert (again.number, again.of, again.notes.count("new candidates were asked for")) == (1, 1, 0)


def test_from_an_event_loop(clips: Model, tiny_data_file: Path) -> None:
    graph = build_graph(clips, checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}

    async def run() -> tuple[ReviewRequest, Trajectory]:
        sample = {"path": str(tiny_data_file), "split": "test", "missing": ["audio"], "limit": 1}
        request = asked(await graph.ainvoke(sample, thread, context=ASKED))
        return request, made(await graph.ainvoke(Command(resume={"pick": 2}), thread, context=ASKED))

    request, trajectory = asyncio.run(run())
    assert trajectory.plan.text == request.candidates[1].text


def test_a_review_without_anybody_is_refused(clips: Model, tiny_data_file: Path) -> None:
    with pytest.raises(ConfigError, match="expected somebody to answer"):
        reconstruct(clips, tiny_data_file, settings=ASKED)


def test_a_language_model_is_asked_once_however_long_the_review(
    clips: Model, tiny_data_file: Path, chat_server: Any
) -> None:
    """Answers run the review node again, never the planner; a plan that it didn't draw has no score."""
    chat_server.reply = lambda *_: '{"Entity": "story", "Action": "praises", "Sentiment": "positive"}'
    chat = ChatOpenAI(model="m", base_url=chat_server.url, api_key="none", max_retries=0)
    model = clips.with_planner(ChatPlanner(chat, clips.schema))
    graph = build_graph(model, checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "1"}}
    settings = ASKED.model_copy(update={"candidates": 2})
    sample = {"path": str(tiny_data_file), "split": "test", "missing": ["audio"], "limit": 1}
    asked(graph.invoke(sample, thread, context=settings))
    assert len(chat_server.requests) == 2
    for answer in ({"pick": 7}, {"set": {"Sentiment": "?"}}):
        asked(graph.invoke(Command(resume=answer), thread, context=settings))
    assert len(chat_server.requests) == 2
    same = asked(graph.invoke(Command(resume="redraw"), thread, context=settings))
    assert len(chat_server.requests) == 4
    assert "nothing new came up among 2 new candidates" in same.notes
    answer = {"set": {"Sentiment": "negative"}}
    plan = (trajectory := made(graph.invoke(Command(resume=answer), thread, context=settings))).plan
    assert len(chat_server.requests) == 4
    winner = plan.candidates[plan.chosen]
    assert (plan.planner, winner.log_probability, winner.score) == ("chat", None, None)
    assert winner.semantic_cost is not None
    assert any("can't score a plan" in note for note in trajectory.notes)


@pytest.mark.parametrize(
    ("answer", "meant"),
    [
        ({"accept": True}, ReviewAnswer(accept=True)),
        (" accept ", ReviewAnswer(accept=True)),
        (2, ReviewAnswer(pick=2)),
        ("2", ReviewAnswer(pick=2)),
        ('{"set": {"a": "b"}}', ReviewAnswer(set={"a": "b"})),
        ("redraw", ReviewAnswer(redraw=True)),
        ("accept_rest", ReviewAnswer(accept_rest=True)),
    ],
)
def test_forms_of_an_answer(answer: object, meant: ReviewAnswer) -> None:
    assert read_answer(answer) == meant


@pytest.mark.parametrize("answer", [True, None, {}, "", "[1]"])
def test_what_says_nothing_is_no_answer(answer: object) -> None:
    with pytest.raises(PlanError):
        read_answer(answer)
