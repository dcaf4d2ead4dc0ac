"""planner -> rerank -> retriever -> executor: the reconstruction graph (Figure 2)."""

from __future__ import annotations

from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from omg_graph.graph.nodes import Nodes
from omg_graph.graph.state import ReconstructionInput, ReconstructionOutput, ReconstructionState, Settings
from omg_graph.graph.strict import refuse_unknown_input
from omg_graph.model.model import Model
from omg_graph.trajectory.artifacts import ArtifactStore, MemoryArtifactStore

ReconstructionGraph = CompiledStateGraph[
    ReconstructionState, Settings, ReconstructionInput, ReconstructionOutput
]


def build_graph(
    model: Model, *, artifacts: ArtifactStore | None = None, checkpointer: Any = None
) -> ReconstructionGraph:
    """Compile the reconstruction graph.

    Args:
        model: What ``load_model`` read; the graph's nodes close over it.
        artifacts: Where arrays live; in memory by default. Give a disk store beside a lasting checkpointer.
        checkpointer: A LangGraph checkpointer; None takes that of a graph around it, False never any.

    Returns:
        A graph whose input is a path or samples written out, whose context is ``Settings``, and whose
        output is a list of trajectories.
    """
    nodes = Nodes(model, artifacts or MemoryArtifactStore())
    graph = StateGraph(
        ReconstructionState,
        context_schema=Settings,
        input_schema=ReconstructionInput,
        output_schema=ReconstructionOutput,
    )
    graph.add_node("planner", nodes.planner)
    graph.add_node("rerank", nodes.rerank)
    graph.add_node("retriever", nodes.retriever)
    graph.add_node("executor", nodes.executor)
    graph.add_edge(START, "planner")
    graph.add_edge("planner", "rerank")
    graph.add_edge("rerank", "retriever")
    graph.add_edge("retriever", "executor")
    graph.add_edge("executor", END)
    compiled = graph.compile(checkpointer=checkpointer, name="reconstruct")
    refuse_unknown_input(compiled, ReconstructionInput)
    return compiled
