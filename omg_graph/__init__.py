"""OMG-Agent: reconstruct the missing modalities of multimodal samples by a workflow you can inspect."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omg_graph.api import reconstruct as reconstruct
    from omg_graph.errors import OmgError as OmgError
    from omg_graph.forks import afork_run as afork_run
    from omg_graph.forks import afork_thread as afork_thread
    from omg_graph.forks import fork_run as fork_run
    from omg_graph.forks import fork_thread as fork_thread
    from omg_graph.graph import build_graph as build_graph
    from omg_graph.knowledge.graph import build_knowledge_base_graph as build_knowledge_base_graph
    from omg_graph.model.folder import load_model as load_model
    from omg_graph.model.model import Model as Model
    from omg_graph.record.artifacts import DiskArtifactStore as DiskArtifactStore
    from omg_graph.record.artifacts import MemoryArtifactStore as MemoryArtifactStore
    from omg_graph.record.trajectory import Trajectory as Trajectory
    from omg_graph.review.review import ReviewAnswer as ReviewAnswer
    from omg_graph.review.review import ReviewRequest as ReviewRequest
    from omg_graph.state import Settings as Settings
    from omg_graph.state import checkpoint_serializer as checkpoint_serializer
    from omg_graph.tool import as_tool as as_tool
    from omg_graph.training.graph import build_training_graph as build_training_graph

_HOMES = {
    "DiskArtifactStore": "omg_graph.record.artifacts",
    "MemoryArtifactStore": "omg_graph.record.artifacts",
    "Model": "omg_graph.model.model",
    "OmgError": "omg_graph.errors",
    "ReviewAnswer": "omg_graph.review.review",
    "ReviewRequest": "omg_graph.review.review",
    "Settings": "omg_graph.state",
    "Trajectory": "omg_graph.record.trajectory",
    "afork_run": "omg_graph.forks",
    "afork_thread": "omg_graph.forks",
    "as_tool": "omg_graph.tool",
    "build_graph": "omg_graph.graph",
    "build_knowledge_base_graph": "omg_graph.knowledge.graph",
    "build_training_graph": "omg_graph.training.graph",
    "checkpoint_serializer": "omg_graph.state",
    "fork_run": "omg_graph.forks",
    "fork_thread": "omg_graph.forks",
    "load_model": "omg_graph.model.folder",
    "reconstruct": "omg_graph.api",
}

__all__ = [  # noqa: PLE0604 - names come from the table above, so that nothing is said twice
    *sorted(_HOMES)
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: ``omg --help`` must not load torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
