"""read -> build: the graph that builds a knowledge base for a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, ConfigDict, Field

from omg_graph.errors import KnowledgeBaseError
from omg_graph.files import DataFolder
from omg_graph.inputs import confined, refuse_unknown_input
from omg_graph.knowledge.entries import EntrySource, build_knowledge_base, read_sources
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model
from omg_graph.retriever.entries import KnowledgeBase


class KnowledgeBaseRequest(BaseModel):
    """Which data become entries, of which model, and where they go."""

    model_config = ConfigDict(extra="forbid")

    data: list[str] = Field(
        title="Data", description="Pickles or .npz files of samples.", examples=[["my_data.pkl"]]
    )
    output: str = Field(
        title="Output", description="The knowledge base's folder, which is made.", examples=["my_kb"]
    )
    model: str | None = Field(
        default=None,
        title="Model",
        description="A model folder; the graph's own, else the embedded default, if empty.",
        examples=["my_model"],
    )
    splits: list[str] = Field(
        default=[],
        title="Splits",
        description="Splits to take; train, else the only one, if empty.",
        examples=[["train"]],
    )
    seed: int = Field(default=0, title="Seed", description="Decides everything random.", examples=[0])
    add: bool = Field(
        default=False, title="Add", description="Add to what lies at output, instead of replacing it."
    )


class KnowledgeBaseOutput(BaseModel):
    """What was built."""

    knowledge_base: str = Field(
        default="", title="Knowledge base", description="Its folder, for omg run --kb."
    )
    entries: int = Field(default=0, title="Entries", description="How many it holds.")
    fingerprint: str = Field(default="", title="Fingerprint", description="SHA-256 over its content.")
    notes: list[str] = Field(default=[], title="Notes", description="What was decided or left out.")


class KnowledgeBaseState(KnowledgeBaseRequest, KnowledgeBaseOutput):
    """Request and result."""


def build_knowledge_base_graph(
    model: Model | None = None,
    *,
    checkpointer: Any = None,
    default_model: Path | None = None,
    data_folder: str | Path | None = None,
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile the graph; what it builds loads with ``KnowledgeBase.load`` and ``--kb``.

    Args:
        model: A model in memory; the request's ``model`` folder is read if None.
        checkpointer: A LangGraph checkpointer, or None.
        default_model: The model folder where a request names none; the embedded default if None.
        data_folder: The one folder that every path may lie in, for graphs that strangers call; any if None.

    Raises:
        DataError: if the data folder isn't there.
    """
    place = None if data_folder is None else DataFolder(data_folder)

    def allowed(state: KnowledgeBaseState) -> KnowledgeBaseState:
        return confined(state, place, ("data", "output", "model"))

    def model_of(state: KnowledgeBaseState) -> Model:
        if model is not None:
            return model
        return load_model(state.model or default_model)

    def read(state: KnowledgeBaseState) -> dict[str, Any]:
        """Check that every file can be used, before any work is done."""
        state = allowed(state)
        loaded = model_of(state)
        _, notes = _sources(loaded, state)
        return {"notes": list(notes)}

    def build(state: KnowledgeBaseState) -> dict[str, Any]:
        """Make the entries by the model's own parts, and write them whole."""
        named, state = state.output, allowed(state)
        loaded, folder = model_of(state), Path(state.output)
        sources, _ = _sources(loaded, state)
        writer = get_stream_writer()
        made = build_knowledge_base(
            loaded,
            sources,
            name=folder.name,
            seed=state.seed,
            on_progress=lambda done, of: writer({"node": "build", "done": done, "of": of}),
        )
        if state.add:
            if not folder.is_dir():
                raise KnowledgeBaseError(f"{folder}: expected a knowledge base to add to, nothing is there")
            made = KnowledgeBase.load(folder).extended(made)
        made.save(folder)
        return {"knowledge_base": named, "entries": len(made), "fingerprint": made.fingerprint}

    graph = StateGraph(
        KnowledgeBaseState, input_schema=KnowledgeBaseRequest, output_schema=KnowledgeBaseOutput
    )
    graph.add_node("read", read)
    graph.add_node("build", build)
    graph.add_edge(START, "read")
    graph.add_edge("read", "build")
    graph.add_edge("build", END)
    compiled = graph.compile(checkpointer=checkpointer, name="knowledge_base")
    refuse_unknown_input(compiled, KnowledgeBaseRequest)
    return compiled


def _sources(model: Model, state: KnowledgeBaseState) -> tuple[list[EntrySource], tuple[str, ...]]:
    return read_sources(model, [Path(path) for path in state.data], splits=state.splits)
