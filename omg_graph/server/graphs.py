"""The three graphs as a server offers them: with every path bound to its data folder."""

from __future__ import annotations

import logging

from omg_graph.files import DataFolder
from omg_graph.graph import build_graph
from omg_graph.inputs import Graph
from omg_graph.knowledge.graph import build_knowledge_base_graph
from omg_graph.model.folder import load_model
from omg_graph.model.planners import PlannerOptions, make_planner
from omg_graph.retriever.index import cache_folder
from omg_graph.server.served import served
from omg_graph.server.settings import ServerSettings
from omg_graph.telemetry import export_spans, keep_content_home
from omg_graph.training.graph import build_training_graph

_log = logging.getLogger(__name__)


def reconstruction(settings: ServerSettings) -> Graph:
    """The reconstruction graph on the operator's model.

    Raises:
        DataError: if the data folder isn't there.
        ModelError: if the model isn't a whole one.
    """
    keep_content_home()
    export_spans()
    model = load_model(settings.model)
    model.retriever  # noqa: B018 - opened now, so that the first request needn't wait for its index
    planners = {}
    if settings.planner_model is not None:
        options = PlannerOptions(model=settings.planner_model, cache=cache_folder() / "plans")
        planners["chat"] = make_planner("chat", model, options)
    store = settings.store()
    if settings.artifact_days is not None:
        count, size = store.prune(settings.artifact_days)
        _log.info("arrays older than %g days: %d deleted, %.1f MB", settings.artifact_days, count, size / 1e6)
    graph = build_graph(model, artifacts=store, data_folder=settings.data_folder, planners=planners)
    return served(graph, DataFolder(settings.data_folder))


def training(settings: ServerSettings) -> Graph:
    """The training graph.

    Raises:
        DataError: if the data folder isn't there.
    """
    graph = build_training_graph(data_folder=settings.data_folder)
    return served(graph, DataFolder(settings.data_folder))


def knowledge_base(settings: ServerSettings) -> Graph:
    """The graph that builds knowledge bases.

    Raises:
        DataError: if the data folder isn't there.
    """
    graph = build_knowledge_base_graph(default_model=settings.model, data_folder=settings.data_folder)
    return served(graph, DataFolder(settings.data_folder))
