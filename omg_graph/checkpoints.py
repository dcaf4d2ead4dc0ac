"""How the graph's state is written into checkpoints: small, and no types but its own are read back."""

from __future__ import annotations

import zlib
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from omg_graph.data.dataset import ModalitySpec
from omg_graph.record.artifacts import ArrayRef
from omg_graph.record.trajectory import Trajectory
from omg_graph.review.edits import Edit
from omg_graph.state import Batch, RecordingRef, Reviewing

TYPES = (ArrayRef, Batch, Edit, ModalitySpec, RecordingRef, Reviewing, Trajectory)

SMALL = 512
"""Bytes from which on compressing pays."""

_COMPRESSED = "+zlib"


def checkpoint_serializer() -> JsonPlusSerializer:
    """For a checkpointer of your own: ``SqliteSaver(connection, serde=checkpoint_serializer())``.

    LangGraph's default reads back any type whatever, with a warning for each, and takes three times the
    room. What the default wrote can be read.
    """
    return _Compressing(allowed_msgpack_modules=[(kind.__module__, kind.__name__) for kind in TYPES])


class _Compressing(JsonPlusSerializer):
    """SQLite keeps the whole state once for each node, and most of it is the names of fields."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        return (kind, data) if len(data) < SMALL else (kind + _COMPRESSED, zlib.compress(data))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, content = data
        if kind.endswith(_COMPRESSED):
            kind, content = kind.removesuffix(_COMPRESSED), zlib.decompress(content)
        return super().loads_typed((kind, content))
