"""The graph that builds a knowledge base, alone and inside another."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.graph import END, START, StateGraph

from omg_graph.errors import ConfigError, KnowledgeBaseError
from omg_graph.graph import build_graph
from omg_graph.knowledge.graph import build_knowledge_base_graph
from omg_graph.model.model import Model
from omg_graph.retriever.entries import KnowledgeBase


def test_its_drawing_and_schemas() -> None:
    graph = build_knowledge_base_graph()
    assert list(graph.get_graph().nodes) == ["__start__", "read", "build", "__end__"]
    assert "build" in graph.get_graph().draw_mermaid()
    assert {"data", "output", "model"} <= set(graph.get_input_jsonschema()["properties"])
    assert {"knowledge_base", "entries", "fingerprint"} <= set(graph.get_output_jsonschema()["properties"])


def test_inside_another_graph_and_used_at_once(
    model: Model, tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    class Update(TypedDict, total=False):
        clips: str
        built: dict[str, Any]
        source: str

    inner = build_knowledge_base_graph()

    def build(state: Update) -> Update:
        return {
            "built": inner.invoke(
                {
                    "data": [state["clips"]],
                    "output": str(tmp_path / "kb"),
                    "model": str(tiny_model_folder),
                    "splits": ["valid"],
                }
            )
        }

    def use(state: Update) -> Update:
        other = model.with_knowledge_base(KnowledgeBase.load(Path(state["built"]["knowledge_base"])))
        request = {"path": state["clips"], "split": "test", "missing": ["audio"], "limit": 1}
        (trajectory,) = build_graph(other).invoke(request)["trajectories"]
        return {"source": trajectory.evidence["audio"][0].source}

    outer = StateGraph(Update)
    outer.add_node("build", build)
    outer.add_node("use", use)
    outer.add_edge(START, "build")
    outer.add_edge("build", "use")
    outer.add_edge("use", END)
    result = outer.compile().invoke({"clips": str(tiny_data_file)})
    assert result["built"]["entries"] == 16
    assert result["source"] == "clips.pkl · valid"
    assert len(result["built"]["fingerprint"]) == 64


def test_as_a_node_that_shares_keys(model: Model, tiny_data_file: Path, tmp_path: Path) -> None:
    class Shared(TypedDict, total=False):
        data: list[str]
        output: str
        splits: list[str]
        entries: int
        asked_by: str

    outer = StateGraph(Shared)
    outer.add_node("knowledge_base", build_knowledge_base_graph(model))
    outer.add_edge(START, "knowledge_base")
    outer.add_edge("knowledge_base", END)
    result = outer.compile().invoke(
        {"data": [str(tiny_data_file)], "output": str(tmp_path / "kb"), "splits": ["test"], "asked_by": "me"}
    )
    assert (result["entries"], result["asked_by"]) == (12, "me")


def test_progress_and_adding(model: Model, tiny_data_file: Path, tmp_path: Path) -> None:
    graph = build_knowledge_base_graph(model)
    request = {"data": [str(tiny_data_file)], "output": str(tmp_path / "kb"), "splits": ["test"]}
    events = list(graph.stream(request, stream_mode="custom"))
    assert events[-1] == {"node": "build", "done": 12, "of": 12}
    more = graph.invoke(request | {"splits": ["valid"], "add": True})
    assert more["entries"] == 28
    assert KnowledgeBase.load(tmp_path / "kb").fingerprint == more["fingerprint"]


def test_bad_requests(model: Model, tiny_data_file: Path, tmp_path: Path) -> None:
    graph = build_knowledge_base_graph(model)
    request = {"data": [str(tiny_data_file)], "output": str(tmp_path / "kb")}
    with pytest.raises(ConfigError, match="split"):
        graph.invoke(request | {"split": "test"})
    with pytest.raises(ConfigError, match="data"):
        graph.invoke({"output": "x"})
    with pytest.raises(KnowledgeBaseError, match="nothing is there"):
        graph.invoke(request | {"add": True})
    assert not (tmp_path / "kb").exists()
