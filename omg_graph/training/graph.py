"""The training graph: one node for each stage, from the data to a model folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, Field

from omg_graph.files import DataFolder
from omg_graph.inputs import confined, refuse_unknown_input
from omg_graph.planner.schemas import schema_names
from omg_graph.training.config import is_named
from omg_graph.training.session import TrainingRequest, TrainingSession

PATHS = ("data", "output", "config", "schema_file", "plans", "text_encoder", "shared_stages")
"""What of a request names a file or folder."""

STAGES = ("prepare", "autoencoders", "planner", "executor", "knowledge_base", "validate", "save")


class TrainingOutput(BaseModel):
    """What a finished run says."""

    model: str = Field(default="", description="The model folder.")
    fingerprint: str = Field(default="", description="SHA-256 over the model's files.")
    metrics: dict[str, Any] = Field(default={}, description="On validation rows, for each missing pattern.")
    notes: list[str] = Field(default=[], description="What was decided or left out.")
    seconds: dict[str, float] = Field(default={}, description="Seconds each stage took.")


class TrainingState(TrainingRequest, TrainingOutput):
    """Request and result."""


def build_training_graph(
    *, checkpointer: Any = None, data_folder: str | Path | None = None
) -> CompiledStateGraph[Any, Any, Any, Any]:
    """Compile the training graph.

    Input is a ``TrainingRequest`` as JSON; the model that it makes loads in ``build_graph`` with no
    further step. Stages are kept on disk, so a run that was killed goes on with ``resume`` to the same
    weights as an uninterrupted one.

    Args:
        checkpointer: A LangGraph checkpointer, or None.
        data_folder: The one folder that every path may lie in, for graphs that strangers call; any if None.

    Raises:
        DataError: if the data folder isn't there.
    """
    sessions: dict[str, TrainingSession] = {}
    folder = None if data_folder is None else DataFolder(data_folder)

    def session_of(state: TrainingState, stage: str) -> tuple[str, TrainingSession]:
        request = TrainingRequest(**{n: getattr(state, n) for n in TrainingRequest.model_fields})
        # what goes by a name comes with the package
        named = {"config": is_named(request.config), "schema_file": request.schema_file in schema_names()}
        request = confined(request, folder, [name for name in PATHS if not named.get(name)])
        key = request.model_dump_json()
        # a run begins with a session of its own, whatever became of an earlier one
        if key not in sessions or stage == STAGES[0]:
            writer = get_stream_writer()
            sessions[key] = TrainingSession(
                request,
                lambda what, done, of, loss: writer({"stage": what, "done": done, "of": of, "loss": loss}),
            )
        return key, sessions[key]

    def node(stage: str) -> Callable[..., dict[str, Any]]:
        def run(state: TrainingState) -> dict[str, Any]:
            key, session = session_of(state, stage)
            get_stream_writer()({"stage": stage, "done": 0, "of": 1, "loss": None})
            _catch_up(session, stage)
            session.stage(stage, getattr(session, stage))
            if stage != STAGES[-1]:
                return {"seconds": dict(session.seconds), "notes": list(session.notes)}
            del sessions[key]
            finished = session.finished()
            return {
                "model": state.output,
                "fingerprint": finished.manifest.fingerprint,
                "metrics": session.metrics,
                "notes": list(session.notes),
                "seconds": dict(session.seconds),
            }

        run.__name__ = stage
        return run

    graph = StateGraph(TrainingState, input_schema=TrainingRequest, output_schema=TrainingOutput)
    previous = START
    for stage in STAGES:
        graph.add_node(stage, node(stage))
        graph.add_edge(previous, stage)
        previous = stage
    graph.add_edge(previous, END)
    compiled = graph.compile(checkpointer=checkpointer, name="train")
    refuse_unknown_input(compiled, TrainingRequest)
    return compiled


def _catch_up(session: TrainingSession, stage: str) -> None:
    """Go through earlier stages again where the process that ran them is gone; they are kept on disk."""
    if stage != STAGES[0] and not (hasattr(session, "run") or session.finished_before):
        session.request = session.request.model_copy(update={"resume": True})
        for earlier in STAGES[: STAGES.index(stage)]:
            session.stage(earlier, getattr(session, earlier))
