"""What if? Runs taken up again at the plan or the evidence: what changes, and what isn't done again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from omg_graph import (
    MemoryArtifactStore,
    Model,
    Settings,
    Trajectory,
    afork_run,
    afork_thread,
    build_graph,
    fork_run,
    fork_thread,
    load_model,
    reconstruct,
)
from omg_graph.errors import ConfigError, DataError, KnowledgeBaseError, PlanError
from omg_graph.planner.chat import ChatPlanner
from omg_graph.planner.interface import PlannerInput, Sampling
from omg_graph.record.trajectory import CandidatePlan

SETTINGS = Settings(steps=3, draws=2, seed=4)
THREAD: Any = {"configurable": {"thread_id": "1"}}


class CountedPlanner:
    """The model's own planner, and how often it was asked for plans."""

    name = "counted"
    follows_sampling = False

    def __init__(self, model: Model) -> None:
        self.planner, self.schema, self.asked = model.planner, model.schema, 0

    def propose(self, observations: PlannerInput, sampling: Sampling, seed: int) -> list[list[CandidatePlan]]:
        self.asked += 1
        return self.planner.propose(observations, sampling, seed)


class CountedRetriever:
    """The model's own retriever, and the plans that it was asked for."""

    name = "counted"

    def __init__(self, model: Model) -> None:
        self.retriever, self.asked = model.retriever, list[str]()

    def retrieve(self, *arguments: Any, plan_texts: Any = (), **settings: Any) -> Any:
        self.asked += plan_texts
        return self.retriever.retrieve(*arguments, plan_texts=plan_texts, **settings)


@pytest.fixture(scope="module")
def clips(tiny_model_folder: Path) -> Model:
    return load_model(tiny_model_folder)


@pytest.fixture
def counted(clips: Model) -> tuple[Model, CountedPlanner, CountedRetriever]:
    planner, retriever = CountedPlanner(clips), CountedRetriever(clips)
    return clips.with_planner(planner).with_retriever(retriever), planner, retriever


Run = tuple[Trajectory, MemoryArtifactStore]


def run_of(model: Model, data: Path) -> Run:
    """One clip whose audio was hidden."""
    store = MemoryArtifactStore()
    given = {"split": "test", "missing": ["audio"], "limit": 1}
    (trajectory,) = reconstruct(model, data, settings=SETTINGS, artifacts=store, **given)
    return trajectory, store


@pytest.fixture(scope="module")
def run(clips: Model, tiny_data_file: Path) -> Run:
    return run_of(clips, tiny_data_file)


def another_sentiment(trajectory: Trajectory) -> str:
    return "negative" if trajectory.plan.constraints[-1].value != "negative" else "positive"


def same_but_for_time(one: Trajectory, other: Trajectory) -> bool:
    exclude = {"timings"}
    return one.model_dump(exclude=exclude) == other.model_dump(exclude=exclude)


def test_a_fork_that_takes_the_same_plan_is_the_same_run(clips: Model, run: Run) -> None:
    """Everything behind the fork is computed again, by the same seed, and comes out to the last bit."""
    trajectory, store = run
    fork = fork_run(clips, trajectory, artifacts=store, pick=1, settings=SETTINGS)
    assert (fork.plan.chosen_by, fork.plan.reviewed) == ("person", True)
    taken = fork.plan.model_copy(update={"chosen_by": "rerank", "reviewed": False})
    assert same_but_for_time(fork.model_copy(update={"plan": taken}), trajectory)


def test_another_sentiment(counted: Any, tiny_data_file: Path) -> None:
    model, planner, retriever = counted
    trajectory, store = run_of(model, tiny_data_file)
    asked = planner.asked, list(retriever.asked)
    value = another_sentiment(trajectory)
    fork = fork_run(model, trajectory, artifacts=store, constraints={"Sentiment": value}, settings=SETTINGS)
    assert (fork.plan.chosen_by, fork.plan.constraints[-1].value) == ("edited", value)
    assert fork.plan.constraints[:-1] == tuple(
        link.model_copy(update={"log_probability": None, "tokens": 0})
        for link in trajectory.plan.constraints[:-1]
    ), "this planner doesn't rescore"
    assert planner.asked == asked[0]
    assert retriever.asked == [*asked[1], fork.plan.text]
    assert fork.hidden == ("audio",)
    assert set(fork.arrays) == set(trajectory.arrays)
    assert fork.errors["audio"].squared_deviation == trajectory.errors["audio"].squared_deviation
    assert fork.evidence_cost["audio"] != trajectory.evidence_cost["audio"]


def test_an_entry_dropped(counted: Any, run: Run) -> None:
    clips, planner, retriever = counted
    trajectory, store = run
    first, *others = trajectory.evidence["audio"]
    fork = fork_run(clips, trajectory, artifacts=store, drop_evidence=[first.id], settings=SETTINGS)
    assert (planner.asked, retriever.asked) == (0, []), "nothing is looked up again"
    kept = fork.evidence["audio"]
    assert [entry.id for entry in kept] == [entry.id for entry in others]
    # softmax over fewer: the others keep their proportions (Eq. 8)
    assert [entry.weight for entry in kept] == pytest.approx(
        [entry.weight / (1 - first.weight) for entry in others], rel=1e-5
    )
    values = clips.knowledge_base.values["audio"][[clips.knowledge_base.row_of[e.id] for e in kept]]
    aggregated = (np.array([e.weight for e in kept])[:, None] * values).sum(0)
    np.testing.assert_allclose(store.get(fork.arrays["evidence/audio"]), aggregated, rtol=1e-4, atol=1e-6)
    assert fork.plan == trajectory.plan
    assert f"evidence left out on request: {first.id}" in fork.notes


def test_all_evidence_dropped(clips: Model, run: Run) -> None:
    trajectory, store = run
    every = [entry.id for entry in trajectory.evidence["audio"]]
    fork = fork_run(clips, trajectory, artifacts=store, drop_evidence=every, settings=SETTINGS)
    assert fork.evidence == {"audio": ()}
    assert fork.evidence_cost == {}
    assert not store.get(fork.arrays["evidence/audio"]).any()
    assert "no evidence was found for audio" in fork.notes


def test_a_new_plan_whose_evidence_is_thinned(clips: Model, run: Run) -> None:
    trajectory, store = run
    value = another_sentiment(trajectory)
    planned = fork_run(
        clips, trajectory, artifacts=store, constraints={"Sentiment": value}, settings=SETTINGS
    )
    entry = planned.evidence["audio"][0].id
    both = fork_run(
        clips,
        trajectory,
        artifacts=store,
        constraints={"Sentiment": value},
        drop_evidence=[entry],
        settings=SETTINGS,
    )
    apart = fork_run(clips, planned, artifacts=store, drop_evidence=[entry], settings=SETTINGS)
    assert same_but_for_time(both, apart)


def test_padded_sequences_keep_their_lengths(tiny_plain_folder: Path, tiny_plain_file: Path) -> None:
    model, store = load_model(tiny_plain_folder), MemoryArtifactStore()
    for row, hidden in ((0, "photo"), (1, "a.b")):
        made = reconstruct(
            model, tiny_plain_file, split="test", missing=[hidden], settings=SETTINGS, artifacts=store
        )
        fork = fork_run(model, made[row], artifacts=store, pick=1, settings=SETTINGS)
        assert fork.lengths == made[row].lengths
        refs = [t.reconstruction | t.arrays for t in (fork, made[row])]
        for key, ref in refs[1].items():  # alone and in a batch sums are rounded differently
            np.testing.assert_allclose(
                store.get(refs[0][key]), store.get(ref), rtol=1e-4, atol=1e-4, err_msg=key
            )


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({}, ConfigError, "expected a change"),
        ({"constraints": {"Sentiment": "fine"}}, PlanError, "Sentiment can't be 'fine'"),
        ({"constraints": {"Mood": "fine"}}, PlanError, "one of the fields Entity"),
        ({"pick": 50}, PlanError, "pick: expected a candidate from 1 to"),
        ({"drop_evidence": ["nobody"]}, KnowledgeBaseError, "got 'nobody'"),
    ],
)
def test_changes_that_can_t_be_made(
    clips: Model, run: Run, change: dict[str, Any], error: type[Exception], told: str
) -> None:
    trajectory, store = run
    with pytest.raises(error, match=told):
        fork_run(clips, trajectory, artifacts=store, **change)


def test_what_can_t_be_forked(clips: Model, run: Run, tiny_data_file: Path) -> None:
    trajectory, store = run
    with pytest.raises(DataError, match=r"expected a trajectory of model \w{12}, it is of 0000"):
        fork_run(clips, trajectory.model_copy(update={"model": "0" * 64}), artifacts=store, pick=1)
    (bare,) = reconstruct(clips, tiny_data_file, limit=1, settings=Settings(keep_path=False), artifacts=store)
    with pytest.raises(DataError, match="--keep-path all"):
        fork_run(clips, bare, artifacts=store, pick=1)


def test_a_thread_is_forked_over_its_checkpoints(
    clips: Model, tiny_data_file: Path, chat_server: Any
) -> None:
    """The language model isn't asked again, and the old run stays in the thread's history."""
    chat_server.reply = lambda *_: '{"Entity": "story", "Action": "praises", "Sentiment": "positive"}'
    chat = ChatOpenAI(model="m", base_url=chat_server.url, api_key="none", max_retries=0)
    model, store = clips.with_planner(ChatPlanner(chat, clips.schema)), MemoryArtifactStore()
    graph = build_graph(model, artifacts=store, checkpointer=InMemorySaver())
    settings = Settings(steps=2, candidates=2)
    sample = {"path": str(tiny_data_file), "split": "test", "missing": ["audio"], "limit": 2}
    old = graph.invoke(sample, THREAD, context=settings)["trajectories"]
    calls = len(chat_server.requests)
    assert calls == 4
    (ids := [trajectory.id for trajectory in old])[1]
    new = fork_thread(graph, THREAD, constraints={"Sentiment": "negative"}, sample=ids[1], settings=settings)[
        "trajectories"
    ]
    assert [t.plan.constraints[-1].value for t in new] == ["positive", "negative"]
    assert new[0].model_dump(exclude={"timings"}) == old[0].model_dump(exclude={"timings"})
    entry = new[1].evidence["audio"][0].id
    dropped = fork_thread(graph, THREAD, drop_evidence=[entry], sample=ids[1], settings=settings)
    again = dropped["trajectories"]
    assert again[1].plan == new[1].plan
    assert entry not in [e.id for e in again[1].evidence["audio"]]
    assert len(chat_server.requests) == calls
    finished = [s.values["trajectories"] for s in graph.get_state_history(THREAD) if not s.next]
    assert finished == [again, new, old]
    with pytest.raises(PlanError, match=r"expected the id of a sample .*got 'nobody'"):
        fork_thread(graph, THREAD, pick=1, sample="nobody")


def test_a_fork_by_update_state_as_over_the_server(clips: Model, tiny_data_file: Path) -> None:
    graph = build_graph(clips, checkpointer=InMemorySaver())
    sample = {"path": str(tiny_data_file), "split": "test", "missing": ["audio"], "limit": 1}
    graph.invoke(sample, THREAD, context=SETTINGS)
    old = graph.get_state(THREAD).values
    # the run is finished: what follows from the old plan goes
    value = another_sentiment(old["trajectories"][0])
    graph.update_state(THREAD, {"edits": [{"set": {"Sentiment": value}}]}, as_node="rerank")
    (fork,) = graph.invoke(None, THREAD, context=SETTINGS)["trajectories"]
    assert fork.plan.constraints[-1].value == value
    planned = graph.get_state(THREAD).values
    assert planned["edits"] == []
    assert planned["embeddings"]["plan"] != old["embeddings"]["plan"], "what the executor is told"
    assert planned["embeddings"]["observation"] == old["embeddings"]["observation"]
    entry = fork.evidence["audio"][0].id
    graph.update_state(THREAD, {"edits": [{"drop_evidence": [entry]}]}, as_node="review")
    (thinned,) = graph.invoke(None, THREAD, context=SETTINGS)["trajectories"]
    assert entry not in [e.id for e in thinned.evidence["audio"]]
    assert thinned.plan == fork.plan
    vectors = graph.get_state(THREAD).values["evidence_vectors"]
    assert vectors["audio"] != planned["evidence_vectors"]["audio"]


def test_a_thread_with_no_run_has_nothing_to_fork(clips: Model) -> None:
    graph = build_graph(clips, checkpointer=InMemorySaver())
    with pytest.raises(ConfigError, match="thread '1': a run that has evidence was expected"):
        fork_thread(graph, THREAD, drop_evidence=["x"])


def test_from_an_event_loop(clips: Model, run: Run, tiny_data_file: Path) -> None:
    trajectory, store = run
    entry = trajectory.evidence["audio"][0].id
    graph = build_graph(clips, artifacts=store, checkpointer=InMemorySaver())
    sample = {"path": str(tiny_data_file), "split": "test", "missing": ["audio"], "limit": 1}

    async def forks() -> list[Trajectory]:
        await graph.ainvoke(sample, THREAD, context=SETTINGS)
        told = await afork_thread(graph, THREAD, drop_evidence=[entry], settings=SETTINGS)
        alone = await afork_run(clips, trajectory, artifacts=store, drop_evidence=[entry], settings=SETTINGS)
        with pytest.raises(ConfigError, match="a run that has a plan was expected"):
            await afork_thread(graph, {"configurable": {"thread_id": "2"}}, pick=1)
        return [alone, told["trajectories"][0]]

    expected = fork_run(clips, trajectory, artifacts=store, drop_evidence=[entry], settings=SETTINGS)
    for fork in asyncio.run(forks()):
        assert (fork.evidence, fork.reconstruction, fork.prediction) == (
            expected.evidence,
            expected.reconstruction,
            expected.prediction,
        )
