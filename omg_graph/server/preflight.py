"""What a browser asks before a page from elsewhere may call a server on this machine."""

from __future__ import annotations

import os

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
