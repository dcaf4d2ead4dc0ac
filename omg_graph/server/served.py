"""A graph as LangGraph's server runs it, whose errors say to its caller what they say to anyone else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from omg_graph.errors import OmgError
from omg_graph.files import DataFolder
from omg_graph.intake import ReconstructionGraph


class RequestError(ValueError):
    """What a caller can mend.

    LangGraph's server passes on the words of a few kinds of errors, ``ValueError`` among them; of all
    others it says "An internal error occurred".
    """


class ServedGraph(ReconstructionGraph):
    """A compiled graph that raises ``RequestError`` for what its caller can mend."""

    folder: DataFolder

    @classmethod
    def around(cls, compiled: CompiledStateGraph[Any, Any, Any, Any], folder: DataFolder) -> Self:
        """The same graph, with the intake that it has.

        Args:
            compiled: Whose paths are bound to the folder.
            folder: Its place on this machine is kept from error messages.
        """
        made = cls.of(compiled, getattr(compiled, "intake", _as_it_is))
        made.folder = folder
        return made

    def stream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Iterator[Any]:
        """Run, step by step."""
        try:
            with self.folder.unnamed():
                yield from super().stream(input, config, **options)
        except OmgError as error:
            raise RequestError(str(error)) from error

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        """The same from an event loop."""
        try:
            with self.folder.unnamed():
                async for chunk in super().astream(input, config, **options):
                    yield chunk
        except OmgError as error:
            raise RequestError(str(error)) from error


def _as_it_is(given: Any, _: bool) -> Any:
    return given
