"""Components by name: entry points of the installed packages, this package's own among them.

Beside the components of a model: ``omg_graph.commands``, functions that become commands of ``omg``;
``omg_graph.floors``, a :class:`omg_graph.evaluation.floors.FloorSet` for each name of ``--floors``; and
``omg_graph.reports``, of which ``planner`` measures the planner of a model that was just trained, and
``paper`` holds the figures for ``omg evaluate --beside-paper``.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from omg_graph.errors import ConfigError

COMMANDS = "omg_graph.commands"
FLOORS = "omg_graph.floors"
REPORTS = "omg_graph.reports"

OWN = {
    "omg_graph.codecs": {
        "vector": "omg_graph.codecs.codec:VectorCodec",
        "sequence": "omg_graph.codecs.sequence:SequenceCodec",
        "image": "omg_graph.codecs.image:ImageCodec",
        "sound": "omg_graph.codecs.sound:SoundCodec",
    },
    "omg_graph.planners": {
        "chat": "omg_graph.model.planners:chat_planner",
        "distilled": "omg_graph.model.planners:distilled_planner",
        "qwen-omni": "omg_graph.model.planners:qwen_omni_planner",
    },
    "omg_graph.stored_planners": {"distilled": "omg_graph.planner.student:StudentPlanner"},
    "omg_graph.retrievers": {"chroma": "omg_graph.retriever.retriever:ChromaRetriever"},
    "omg_graph.predictors": {"head": "omg_graph.predictor.task:TaskHead"},
    "omg_graph.priors": {
        "evidence": "omg_graph.priors.prior:EvidencePrior",
        "gaussian": "omg_graph.priors.gaussian:GaussianConditional",
        "planned": "omg_graph.priors.planned:PlannedConditional",
        "kernel": "omg_graph.priors.kernel_fitting:KernelPrior",
    },
}
"""Registered in pyproject.toml too; listed here so that a checkout with older metadata works."""


def registered(group: str) -> dict[str, EntryPoint]:
    """The components of every installed package, by name; no other package takes the name of our own."""
    own = (EntryPoint(name, value, group) for name, value in OWN.get(group, {}).items())
    return {entry.name: entry for entry in (*entry_points(group=group), *own)}


def component(group: str, name: str) -> Any:
    """The component that is registered under a name.

    Raises:
        ConfigError: if there is none, or its package can't be imported.
    """
    known = registered(group)
    if name not in known:
        names = ", ".join(sorted(known))
        raise ConfigError(
            f"{group}: expected one of {names}, got {name!r}: install the package that registers it"
        )
    try:
        return known[name].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{group}: {known[name].value} can't be imported ({type(error).__name__}): install the package "
            f"that registers {name!r} again"
        ) from error
