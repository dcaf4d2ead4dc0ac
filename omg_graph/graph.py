"""planner -> rerank (-> review) -> retriever -> executor: the reconstruction graph (Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph

from omg_graph.batches import read_batch
from omg_graph.files import DataFolder
from omg_graph.inputs import checked_input, complete_input, set_intake
from omg_graph.model.model import Model
from omg_graph.nodes import Nodes, watched
from omg_graph.planner.interface import Planner
from omg_graph.record.artifacts import ArtifactStore, MemoryArtifactStore
from omg_graph.review.review import after_rerank, after_review
from omg_graph.state import ReconstructionInput, ReconstructionOutput, ReconstructionState, Settings

ReconstructionGraph = CompiledStateGraph[
    ReconstructionState, Settings, ReconstructionInput, ReconstructionOutput
]


def build_graph(
    model: Model,
    *,
    artifacts: ArtifactStore | None = None,
    checkpointer: Any = None,
    data_folder: str | Path | None = None,
    planners: Mapping[str, Planner] | None = None,
) -> ReconstructionGraph:
    """Compile the reconstruction graph.

    Args:
        model: What ``load_model`` read; the graph's nodes close over it.
        artifacts: Where arrays live; in memory by default. Give a disk store beside a lasting checkpointer.
        checkpointer: A LangGraph checkpointer; None takes that of a graph around it, False never any.
        data_folder: The one folder that a ``path`` in the input may lie in, for graphs that strangers call;
            any file that the process can read if None.
        planners: Planners that a run may ask for by name in its settings, beside the model's own.

    Returns:
        A graph whose input is a path or samples written out, whose context is ``Settings``, and whose
        output is a list of trajectories. Samples written out go into the artifact store at once: what is
        kept of a run is numbers, words and references.

    Raises:
        DataError: if the data folder isn't there.
    """
    store = artifacts or MemoryArtifactStore()
    folder = None if data_folder is None else DataFolder(data_folder)
    nodes = Nodes(model, store, folder, dict(planners or {}))
    graph = StateGraph(
        ReconstructionState,
        context_schema=Settings,
        input_schema=ReconstructionInput,
        output_schema=ReconstructionOutput,
    )
    graph.add_node("planner", watched(nodes.planner))
    graph.add_node("rerank", watched(nodes.rerank))
    graph.add_node("review", watched(nodes.review))
    graph.add_node("retriever", watched(nodes.retriever))
    graph.add_node("executor", watched(nodes.executor))
    graph.add_edge(START, "planner")
    graph.add_edge("planner", "rerank")
    graph.add_conditional_edges("rerank", after_rerank)
    graph.add_conditional_edges("review", after_review)
    graph.add_edge("retriever", "executor")
    graph.add_edge("executor", END)
    compiled = graph.compile(checkpointer=checkpointer, name="reconstruct")

    def intake(given: Any, nested: bool) -> Any:
        """Samples written out go into the store, before the input is kept anywhere."""
        given = complete_input(given, ReconstructionInput, nested=nested)
        if not isinstance(given, dict) or given.get("samples") is None:
            return given
        own = {key: given[key] for key in given if key in ReconstructionInput.model_fields}
        request = checked_input(own, ReconstructionInput)
        return given | {"samples": None, "batch": read_batch(request, model, store, folder)}

    set_intake(compiled, intake)
    return compiled
