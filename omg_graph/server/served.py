"""A graph as LangGraph's server runs it, whose errors say to its caller what they say to anyone else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.runnables import RunnableConfig

from omg_graph.errors import OmgError
from omg_graph.files import DataFolder
from omg_graph.inputs import Graph


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
