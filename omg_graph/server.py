"""What LangGraph's server shows to others: the three graphs, bounded, and the arrays that they refer to."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.runnables import RunnableConfig
from pydantic import BaseModel, ConfigDict, Field
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from omg_graph.errors import ConfigError, OmgError
from omg_graph.files import DataFolder
from omg_graph.graph import build_graph
from omg_graph.inputs import Graph
from omg_graph.knowledge.graph import build_knowledge_base_graph
from omg_graph.model.folder import load_model
from omg_graph.model.planners import PlannerOptions, make_planner
from omg_graph.record.artifacts import ArrayRef, DiskArtifactStore, describe
from omg_graph.retriever.index import cache_folder
from omg_graph.telemetry import export_spans, keep_content_home
from omg_graph.training.graph import build_training_graph

ADDRESS = "LANGGRAPH_API_URL"
"""Where LangGraph's server says that it can be reached."""

ROUTE = "/artifacts"


class ServerSettings(BaseModel):
    """One server's model and folders."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_folder: Path = Field(description="OMG_DATA_FOLDER: the one folder that requests may name files in.")
    model: Path | None = Field(default=None, description="OMG_MODEL: a model folder; else the embedded one.")
    artifacts: Path = Field(description="OMG_ARTIFACTS: where arrays are kept.")
    artifact_days: float | None = Field(
        default=None,
        gt=0,
        description="OMG_ARTIFACT_DAYS: arrays no run has made for so many days are deleted as the server "
        "starts; none ever if it isn't set.",
    )
    planner_model: str | None = Field(
        default=None, description="OMG_PLANNER_MODEL: a chat model that runs may ask to plan."
    )
    address: str = Field(default="", description="What stands before the path of a served array.")

    @classmethod
    def read(cls, data_folder: Path, environment: Mapping[str, str] = os.environ) -> ServerSettings:
        """The settings of this process.

        Args:
            data_folder: The data folder where the environment names none.
            environment: Where the variables are looked up.

        Raises:
            ConfigError: if OMG_ARTIFACT_DAYS is no number of days.
        """
        model = environment.get("OMG_MODEL")
        return cls(
            data_folder=Path(environment.get("OMG_DATA_FOLDER") or data_folder),
            model=Path(model) if model else None,
            artifacts=Path(environment.get("OMG_ARTIFACTS") or cache_folder() / "artifacts"),
            artifact_days=_days(environment.get("OMG_ARTIFACT_DAYS")),
            planner_model=environment.get("OMG_PLANNER_MODEL") or None,
            address=environment.get(ADDRESS, "").rstrip("/"),
        )

    def store(self) -> DiskArtifactStore:
        """The arrays, on disk as threads are: they outlive the process."""
        return DiskArtifactStore(self.artifacts, address=f"{self.address}{ROUTE}")


def _days(given: str | None) -> float | None:
    if not given:
        return None
    try:
        days = float(given)
    except ValueError:
        days = 0.0
    if not 0 < days < math.inf:
        raise ConfigError(
            f"OMG_ARTIFACT_DAYS: expected a number of days, got {given!r}: give one, or unset it"
        )
    return days


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


class RequestError(ValueError):
    """What a caller can mend.

    LangGraph's server passes on the words of a few kinds of errors, ``ValueError`` among them; of all
    others it says "An internal error occurred".
    """


def served(graph: Graph, folder: DataFolder) -> Graph:
    """The graph, which from now on raises ``RequestError`` for what its caller can mend.

    Args:
        graph: Whose paths are bound to the folder.
        folder: Its place on this machine is kept from error messages.
    """

    class Served(type(graph)):  # type: ignore[misc]
        """A compiled graph whose errors reach its caller."""

        def stream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Iterator[Any]:
            """Run, step by step."""
            try:
                with folder.unnamed():
                    yield from super().stream(input, config, **options)
            except OmgError as error:
                raise RequestError(str(error)) from error

        async def astream(
            self, input: Any, config: RunnableConfig | None = None, **options: Any
        ) -> AsyncIterator[Any]:
            """The same from an event loop."""
            try:
                with folder.unnamed():
                    async for chunk in super().astream(input, config, **options):
                        yield chunk
            except OmgError as error:
                raise RequestError(str(error)) from error

    graph.__class__ = Served
    return graph


MOST_NUMBERS = 1 << 20
"""Numbers that are written out as JSON; a larger array is fetched as a file."""

FOREVER = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
"""An array is named by its content, so it never changes."""


def build_app(store: DiskArtifactStore) -> Starlette:
    """The app that ``http.app`` of ``langgraph.json`` names.

    ``GET /artifacts/<sha256>`` tells of an array, its numbers included; ``GET /artifacts/<sha256>.npy`` is
    the array as a file. Nothing but what lies in the store is served: a name that isn't the hash of an
    array there is 404, whatever else it may be.
    """

    # no async: LangGraph's server watches for work in its event loop, and these read files
    def numbers(request: Request) -> Response:
        ref = _find(store, request.path_params["sha256"])
        if ref is None:
            return _refused(404, "no such array: run the sample again")
        size = int(np.prod(ref.shape))
        if size > MOST_NUMBERS:
            return _refused(413, f"{size} numbers are too many to write out: fetch {ROUTE}/{ref.sha256}.npy")
        try:
            values = store.get(ref)
        except OmgError as error:
            return _refused(404, str(error).replace(f"{store.folder}", "the store"))
        document = describe(values, ref.uri).model_dump(mode="json") | {"values": _plain(values)}
        return Response(json.dumps(document), media_type="application/json", headers=FOREVER)

    def file(request: Request) -> Response:
        sha256 = request.path_params["sha256"]
        path = store.path(sha256)
        if path is None:
            return _refused(404, "no such array: run the sample again")
        return FileResponse(
            path, media_type="application/octet-stream", filename=f"{sha256}.npy", headers=FOREVER
        )

    return Starlette(
        routes=[Route(f"{ROUTE}/{{sha256}}.npy", file), Route(f"{ROUTE}/{{sha256}}", numbers)],
        middleware=[Middleware(PrivateNetworkPreflight)],
    )


def _find(store: DiskArtifactStore, sha256: str) -> ArrayRef | None:
    """What there is to know of an array from its file's head alone."""
    path = store.path(sha256)
    if path is None:
        return None
    try:
        head = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError):
        return None
    return ArrayRef(
        uri=f"{store.address or ''}/{sha256}", shape=head.shape, dtype=str(head.dtype), sha256=sha256
    )


def _plain(values: Any) -> Any:
    """Nested lists, with null where a number is none that JSON knows."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        plain: Any = np.where(np.isfinite(values), values.astype(object), None)
        return plain.tolist()
    return values.tolist()


def _refused(status: int, why: str) -> Response:
    return JSONResponse({"detail": why}, status_code=status)


ASKED = b"access-control-request-private-network"
ALLOWED = (b"access-control-allow-private-network", b"true")
PERMISSION = "ALLOW_PRIVATE_NETWORK"
"""LangGraph's variable: ``langgraph dev`` sets it to ``true``."""


class PrivateNetworkPreflight:
    """Let the preflight of a page on the public internet, as Studio is, pass on to the rules for origins.

    A browser asks for the private network in a header of its own. LangGraph's server means to answer it,
    with middleware around the one for origins; but that, from Starlette 1.0 on, refuses the header with 400
    before. So the question is taken out of the request and the answer put into the response, where the
    server's operator allows that at all and the origin is one of those allowed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; a preflight without its question."""
        asked = scope["type"] == "http" and scope["method"] == "OPTIONS" and _asks(scope)
        if not asked or os.environ.get(PERMISSION, "").lower() != "true":
            await self.app(scope, receive, send)
            return
        kept = [(name, value) for name, value in scope["headers"] if name.lower() != ASKED]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [pair for pair in message["headers"] if pair[0].lower() != ALLOWED[0]]
                granted = [ALLOWED] if message["status"] == 200 else []
                message = {**message, "headers": [*others, *granted]}
            await send(message)

        await self.app({**scope, "headers": kept}, receive, answer)


def _asks(scope: Scope) -> bool:
    return any(name.lower() == ASKED and value == b"true" for name, value in scope["headers"])
