"""The routes beside LangGraph's own: arrays that a run's state refers to, in full."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from omg_graph.errors import OmgError
from omg_graph.record.artifacts import ArrayRef, DiskArtifactStore, describe
from omg_graph.server.preflight import PrivateNetworkPreflight
from omg_graph.server.settings import ROUTE

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
        told = describe(values, ref.uri).model_dump(mode="json") | {"values": _plain(values)}
        return Response(json.dumps(told), media_type="application/json", headers=FOREVER)

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
