"""The training graph: one node for each stage, from the data to a model folder."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from langgraph.config import get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, Field

from omg_graph.files import DataFolder
from omg_graph.inputs import confined, refuse_unknown_input
from omg_graph.planner.schemas import schema_names
from omg_graph.training.config import is_named
from omg_graph.training.request import TrainingRequest
from omg_graph.training.train import STAGES, Training

PATHS = ("data", "output", "config", "schema_file", "plans", "text_encoder", "shared_stages")
"""What of a request names a file or folder."""

NODES = (*STAGES, "save")


class TrainingOutput(BaseModel):
    """What a finished run says."""

    model: str = Field(default="", description="The model folder.")
    fingerprint: str = Field(default="", description="SHA-256 over the model's files.")
    metrics: dict[str, Any] = Field(default={}, description="On validation rows, for each missing pattern.")
    notes: list[str] = Field(default=[], description="What was decided or left out.")
    seconds: Annotated[dict[str, float], operator.or_] = Field(
        default={}, description="Seconds each stage took."
    )
    stages: Annotated[dict[str, Any], operator.or_] = Field(
        default={}, description="What each stage made: its file and SHA-256, widths, errors, epochs."
    )


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
    under_way: dict[str, Training] = {}
    """What this process needn't read again; another process takes it from the cache."""
    folder = None if data_folder is None else DataFolder(data_folder)

    def training_of(state: TrainingState, stage: str) -> tuple[str, Training]:
        request = TrainingRequest(**{n: getattr(state, n) for n in TrainingRequest.model_fields})
        # what goes by a name comes with the package
        named = {"config": is_named(request.config), "schema_file": request.schema_file in schema_names()}
        request = confined(request, folder, [name for name in PATHS if not named.get(name)])
        key = request.model_dump_json()
        if stage != NODES[0] and key not in under_way:
            request = request.model_copy(update={"resume": True})
        if stage == NODES[0] or key not in under_way:
            under_way[key] = Training(request)
        writer = get_stream_writer()
        under_way[key].report_to(
            lambda what, done, of, loss: writer({"stage": what, "done": done, "of": of, "loss": loss})
        )
        return key, under_way[key]

    def node(stage: str) -> Callable[..., dict[str, Any]]:
        def run(state: TrainingState) -> dict[str, Any]:
            key, training = training_of(state, stage)
            get_stream_writer()({"stage": stage, "done": 0, "of": 1, "loss": None})
            if stage != NODES[-1]:
                started, made = time.perf_counter(), {}
                if training.finished is None:
                    stages = {stage: STAGES[stage](training)}
                    made = {"stages": stages, "seconds": {stage: round(time.perf_counter() - started, 2)}}
                return {**made, "notes": list(training.notes)}
            manifest = training.finished or training.save(state.seconds)
            del under_way[key]
            return {
                "model": state.output,
                "fingerprint": manifest.fingerprint,
                "metrics": manifest.metrics,
                "notes": list(training.notes),
                "seconds": dict(manifest.training.get("seconds", {})),
            }

        run.__name__ = stage
        return run

    graph = StateGraph(TrainingState, input_schema=TrainingRequest, output_schema=TrainingOutput)
    previous = START
    for stage in NODES:
        graph.add_node(stage, node(stage))
        graph.add_edge(previous, stage)
        previous = stage
    graph.add_edge(previous, END)
    compiled = graph.compile(checkpointer=checkpointer, name="train")
    refuse_unknown_input(compiled, TrainingRequest)
    return compiled
