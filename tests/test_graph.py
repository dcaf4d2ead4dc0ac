"""The reconstruction graph: its shape, its input, its events, and life inside other graphs."""

from __future__ import annotations

import itertools
import json
import operator
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import numpy as np
import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph
from pydantic import ValidationError

from omg_graph.api import reconstruct
from omg_graph.data.reader import read_data_file
from omg_graph.errors import ConfigError, DataError
from omg_graph.graph import build_graph
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model
from omg_graph.record.artifacts import DiskArtifactStore, MemoryArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.state import Settings

NODES = ["planner", "rerank", "retriever", "executor"]
REPORTING = ["planner", "rerank", "retriever", "executor"]
"""Nodes that tell of their work; the review has something to tell only where a person answers."""


def test_the_nodes_in_their_order(model: Model) -> None:
    drawing = build_graph(model).get_graph()
    assert set(drawing.nodes) == {"__start__", *NODES, "review", "__end__"}
    path = ["__start__", *NODES, "__end__"]
    edges = {(edge.source, edge.target) for edge in drawing.edges}
    # where a person is asked: on with the plan, back for new candidates, and on to the next sample
    asked = {("rerank", "review"), *(("review", node) for node in ("retriever", "planner", "review"))}
    assert edges == {*itertools.pairwise(path), *asked}
    assert all(node in drawing.draw_mermaid() for node in NODES)


def test_schemas_for_other_programs(model: Model) -> None:
    graph = build_graph(model)
    wanted = graph.get_input_jsonschema()["properties"]
    assert {"path", "split", "samples", "missing", "limit"} <= set(wanted)
    assert set(graph.get_output_jsonschema()["properties"]) == {"trajectories"}
    context = graph.get_context_jsonschema()
    assert context is not None
    assert {"top_k", "candidates", "steps", "seed", "draws"} <= set(context["properties"])
    json.dumps([graph.get_input_jsonschema(), graph.get_output_jsonschema(), context])


def test_a_path_and_samples_written_out_give_the_same(
    model: Model, tiny_data_file: Path, sample: dict[str, Any]
) -> None:
    graph = build_graph(model)
    request = {"path": str(tiny_data_file), "split": "test", "missing": ["audio"], "limit": 1}
    (by_path,) = graph.invoke(request)["trajectories"]
    (written,) = graph.invoke(json.loads(json.dumps({"samples": [sample]})))["trajectories"]
    assert isinstance(by_path, Trajectory)
    assert by_path.plan == written.plan
    assert by_path.evidence == written.evidence
    assert by_path.reconstruction["audio"].preview == pytest.approx(
        written.reconstruction["audio"].preview, rel=1e-4
    )
    assert (by_path.hidden, written.hidden) == (("audio",), ())
    assert set(by_path.errors) == {"audio"}
    assert not written.errors


@pytest.mark.parametrize(
    ("request_", "culprit"),
    [
        ({"paht": "x.pkl"}, "paht"),
        ({"path": "x.pkl", "trajectories": []}, "trajectories"),
        ({"samples": [{"text": None}], "top_k": 3}, "top_k"),
        ({"path": "x.pkl", "limit": 0}, "limit"),
    ],
)
def test_unknown_input_is_refused_by_name(model: Model, request_: dict[str, Any], culprit: str) -> None:
    """LangGraph drops keys that no channel is called by, so a slip of the pen would be silent."""
    with pytest.raises(ConfigError, match=culprit):
        build_graph(model).invoke(request_)


def test_input_of_both_kinds_or_none(model: Model, sample: dict[str, Any]) -> None:
    graph = build_graph(model)
    for request in ({}, {"path": "x.pkl", "samples": [sample]}):
        with pytest.raises(DataError, match="path or samples"):
            graph.invoke(request)


def test_an_unknown_setting_is_refused(model: Model, sample: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, DataError, TypeError), match="tpo_k"):
        build_graph(model).invoke({"samples": [sample]}, context={"tpo_k": 3})


def test_no_context_means_the_defaults(model: Model, sample: dict[str, Any]) -> None:
    graph = build_graph(model)
    (bare,) = graph.invoke({"samples": [sample]})["trajectories"]
    (said,) = graph.invoke({"samples": [sample]}, context=Settings())["trajectories"]
    (plain,) = graph.invoke({"samples": [sample]}, context={"seed": 0, "top_k": None})["trajectories"]
    assert untimed(bare) == untimed(said) == untimed(plain)
    (other,) = graph.invoke({"samples": [sample]}, context={"top_k": 2, "candidates": 3})["trajectories"]
    assert len(other.evidence["audio"]) == 2
    assert len(other.plan.candidates) == 3


def untimed(trajectory: Trajectory) -> Trajectory:
    return trajectory.model_copy(update={"timings": {}})


def test_progress_is_streamed(model: Model, sample: dict[str, Any]) -> None:
    events = list(
        build_graph(model).stream(
            {"samples": [sample]}, context={"steps": 3, "draws": 2}, stream_mode="custom"
        )
    )
    assert [event["node"] for event in events[:3]] == REPORTING[:3]
    planned, ranked, retrieved, *steps = events
    assert planned["candidates"] == model.config.planning.candidates
    assert len(ranked["plans"]) == 1
    assert retrieved["entries"] == {"audio": model.config.retrieval.top_k}
    assert [(e["node"], e["draw"], e["step"], e["of"]) for e in steps] == [
        ("executor", draw, step, 3) for draw in (0, 1) for step in (1, 2, 3)
    ]
    json.dumps(events)


class Case(TypedDict, total=False):
    patient: dict[str, Any]
    found: str
    heard: Annotated[list[str], operator.add]


def test_inside_a_graph_of_another_state(model: Model, sample: dict[str, Any]) -> None:
    inner = build_graph(model)

    def recover(case: Case) -> Case:
        (trajectory,) = inner.invoke({"samples": [case["patient"]]}, context=Settings(steps=2))[
            "trajectories"
        ]
        return {"found": trajectory.plan.text, "heard": list(trajectory.reconstruction)}

    outer = StateGraph(Case)
    outer.add_node("recover", recover)
    outer.add_edge(START, "recover")
    outer.add_edge("recover", END)
    compiled = outer.compile()
    result = compiled.invoke({"patient": sample, "heard": ["nothing"]})
    assert result["found"]
    assert result["heard"] == ["nothing", "audio"]
    seen = list(compiled.stream({"patient": sample}, stream_mode="custom", subgraphs=True))
    assert {event["node"] for _, event in seen} == set(REPORTING)


class Shared(TypedDict, total=False):
    path: str
    split: str
    limit: int
    trajectories: list[Any]
    asked_by: str


def test_as_a_node_of_a_graph_that_shares_some_keys(model: Model, tiny_data_file: Path) -> None:
    outer = StateGraph(Shared)
    outer.add_node("reconstruct", build_graph(model))
    outer.add_edge(START, "reconstruct")
    outer.add_edge("reconstruct", END)
    result = outer.compile().invoke(
        {"path": str(tiny_data_file), "split": "test", "limit": 2, "asked_by": "someone"}
    )
    assert result["asked_by"] == "someone"
    assert [trajectory.id for trajectory in result["trajectories"]] == list(
        read_data_file(tiny_data_file).splits["test"].ids[:2]
    )


@dataclass
class User:
    """Another graph's context, which has nothing to do with reconstruction."""

    name: str


def test_as_a_node_it_minds_settings_and_no_other_context(model: Model, tiny_data_file: Path) -> None:
    def run(schema: type[Any], context: Any) -> Trajectory:
        outer = StateGraph(Shared, context_schema=schema)
        outer.add_node("reconstruct", build_graph(model))
        outer.add_edge(START, "reconstruct")
        outer.add_edge("reconstruct", END)
        request: Shared = {"path": str(tiny_data_file), "split": "test", "limit": 1}
        trajectory: Trajectory = outer.compile().invoke(request, context=context)["trajectories"][0]
        return untimed(trajectory)

    plain = run(Settings, Settings())
    assert run(User, User("someone")) == run(dict, {"user": "someone"}) == plain
    assert run(Settings, Settings(seed=3)).seed == 3


def test_the_function_inside_a_node_leaves_no_checkpoints(model: Model, sample: dict[str, Any]) -> None:
    def recover(case: Case) -> Case:
        two = [sample, {**sample, "id": "another"}]
        return {"found": ", ".join(t.id for t in reconstruct(model, two, settings=Settings(steps=1)))}

    outer = StateGraph(Case)
    outer.add_node("recover", recover)
    outer.add_edge(START, "recover")
    outer.add_edge("recover", END)
    saver = InMemorySaver()
    result = outer.compile(checkpointer=saver).invoke({}, {"configurable": {"thread_id": "one"}})
    assert result["found"] == f"{sample['id']}, another"
    assert set(saver.storage["one"]) == {""}


def test_beside_a_checkpointer(
    model: Model, sample: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every step can be read back, also by another process, and holds references, not arrays."""
    config = {"configurable": {"thread_id": "one"}}
    wide = {**sample, "id": "clip"}
    with SqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as saver:
        graph = build_graph(model, artifacts=DiskArtifactStore(tmp_path / "arrays"), checkpointer=saver)
        (made,) = graph.invoke({"samples": [wide]}, config, context=Settings(draws=4))["trajectories"]
    with SqliteSaver.from_conn_string(str(tmp_path / "runs.sqlite")) as saver:
        store = DiskArtifactStore(tmp_path / "arrays")
        again = build_graph(model, artifacts=store, checkpointer=saver)
        states = list(again.get_state_history(config))
        assert [state.next for state in states] == [
            (),
            *((node,) for node in reversed(NODES)),
            ("__start__",),
        ]
        (kept,) = states[0].values["trajectories"]
        assert Trajectory.model_validate(kept) == made
        assert store.get(made.reconstruction["audio"]).shape == (5,)
        # a run can be taken up again at any node
        before = next(state for state in states if state.next == ("executor",))
        (redone,) = again.invoke(None, before.config)["trajectories"]
    assert redone.reconstruction == made.reconstruction
    assert "Deserializing unregistered type" not in caplog.text
    assert "not serializable" not in caplog.text


def test_state_holds_no_arrays(model: Model, tiny_data_file: Path) -> None:
    """What a checkpoint holds is as JSON as it gets: arrays stay in the store, whatever their size."""
    graph = build_graph(model)
    request = {"path": str(tiny_data_file), "split": "test"}
    for state in graph.stream(request, stream_mode="values"):
        assert not list(arrays_in(state))


def arrays_in(value: Any) -> Any:
    if isinstance(value, dict):
        for item in value.values():
            yield from arrays_in(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from arrays_in(item)
    elif hasattr(value, "model_dump"):
        yield from arrays_in(value.model_dump())
    elif not isinstance(value, (str, int, float, bool, type(None))) or isinstance(value, np.generic):
        yield value


def test_a_checkpoint_of_wide_samples_stays_small(
    tiny_plain_folder: Path, tiny_plain_file: Path, tmp_path: Path
) -> None:
    """Draws and paths would be most of it."""
    plain = load_model(tiny_plain_folder)
    sizes = []
    for draws in (1, 40):
        file = tmp_path / f"{draws}.sqlite"
        with SqliteSaver.from_conn_string(str(file)) as saver:
            graph = build_graph(plain, artifacts=MemoryArtifactStore(), checkpointer=saver)
            graph.invoke(
                {"path": str(tiny_plain_file), "split": "test", "missing": ["photo"]},
                {"configurable": {"thread_id": "one"}},
                context=Settings(draws=draws),
            )
        with sqlite3.connect(file) as database:
            (size,) = database.execute("select sum(length(checkpoint)) from checkpoints").fetchone()
        sizes.append(size)
    assert sizes[1] < 1.2 * sizes[0]
