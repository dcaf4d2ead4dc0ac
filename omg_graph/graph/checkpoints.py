"""How the graph's state is written into checkpoints: its own types are known, and no others are read back."""

from __future__ import annotations

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from omg_graph.graph.edits import Edit
from omg_graph.graph.state import Batch, Reviewing
from omg_graph.samples.dataset import ModalitySpec
from omg_graph.trajectory.artifacts import ArrayRef
from omg_graph.trajectory.trajectory import Trajectory

TYPES = (ArrayRef, Batch, Edit, ModalitySpec, Reviewing, Trajectory)


def checkpoint_serializer() -> JsonPlusSerializer:
    """For a checkpointer of your own: ``SqliteSaver(connection, serde=checkpoint_serializer())``.

    LangGraph's default reads back any type whatever, with a warning for each.
    """
    return JsonPlusSerializer(allowed_msgpack_modules=[(kind.__module__, kind.__name__) for kind in TYPES])
