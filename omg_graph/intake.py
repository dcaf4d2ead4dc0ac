"""Samples written out in the input go into the artifact store before LangGraph keeps the input anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Self

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from omg_graph.state import ReconstructionInput, ReconstructionOutput, ReconstructionState, Settings

Intake = Callable[[Any, bool], Any]
"""Input as it came, and whether it is another graph's state, to input as the graph keeps it."""


class ReconstructionGraph(
    CompiledStateGraph[ReconstructionState, Settings, ReconstructionInput, ReconstructionOutput]
):
    """A compiled graph that takes the arrays out of its input.

    LangGraph writes the input into the first checkpoint, and into traces, before any node runs: a sample of
    a megabyte, as JSON, would be there twice.
    """

    intake: Intake

    @classmethod
    def of(cls, compiled: CompiledStateGraph[Any, Any, Any, Any], intake: Intake) -> Self:
        """The same graph with an intake."""
        made = cls.__new__(cls)
        vars(made).update(vars(compiled), intake=intake)
        return made

    def copy(self, update: dict[str, Any] | None = None) -> Self:
        """The same graph with some attributes replaced, as LangGraph's server does with its checkpointer."""
        made = type(self).__new__(type(self))
        vars(made).update(vars(self), **(update or {}))
        return made

    def stream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Iterator[Any]:
        """Run, step by step; ``invoke`` comes through here too."""
        yield from super().stream(self.intake(input, _as_a_node(config)), config, **options)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        """The same from an event loop, which is left free while samples are read."""
        taken = await asyncio.to_thread(self.intake, input, _as_a_node(config))
        async for chunk in super().astream(taken, config, **options):
            yield chunk


def _as_a_node(config: RunnableConfig | None) -> bool:
    return bool((config or {}).get("configurable", {}).get("checkpoint_ns"))
