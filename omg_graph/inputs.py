"""A graph's input, checked and made small before LangGraph keeps it anywhere.

LangGraph drops keys that it doesn't know without a word, and writes the input into the first checkpoint, and
into traces, before any node runs: a sample of a megabyte, as JSON, would be there twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, ValidationError

from omg_graph.errors import ConfigError
from omg_graph.files import DataFolder

Checked = TypeVar("Checked", bound=BaseModel)
Graph = CompiledStateGraph[Any, Any, Any, Any]
Intake = Callable[[Any, bool], Any]
"""(input, whether it is the state of a graph around this one) to input as the graph keeps it."""


def set_intake(graph: Graph, intake: Intake) -> None:
    """Have a compiled graph take its input through ``intake``, however it is called.

    The graph becomes an instance of a subclass, so that copies of it (LangGraph's server makes some) do the
    same.
    """

    class WithIntake(type(graph)):  # type: ignore[misc]
        """A compiled graph that checks its input."""

        def stream(self, input: Any, config: RunnableConfig | None = None, **options: Any) -> Iterator[Any]:
            """Run, step by step; ``invoke`` comes through here too."""
            yield from super().stream(intake(input, _as_a_node(config)), config, **options)

        async def astream(
            self, input: Any, config: RunnableConfig | None = None, **options: Any
        ) -> AsyncIterator[Any]:
            """The same from an event loop, which is left free while samples are read."""
            kept = await asyncio.to_thread(intake, input, _as_a_node(config))
            async for chunk in super().astream(kept, config, **options):
                yield chunk

    graph.__class__ = WithIntake


def refuse_unknown_input(graph: Graph, schema: type[BaseModel]) -> None:
    """Have a compiled graph check its input against ``schema``, before its first node.

    Raises:
        ConfigError: when the graph is run, if the input has an unknown key or a value of the wrong kind.
    """
    set_intake(graph, lambda given, nested: complete_input(given, schema, nested=nested))


def complete_input(given: Any, schema: type[BaseModel], *, nested: bool) -> Any:
    """Input with every field that its schema has.

    What isn't given takes its default, or the next run of a thread would go on with the input of the last
    one. As a node of another graph it is given that graph's whole state, and takes from it what it knows.

    Raises:
        ConfigError: if it has an unknown key or a value of the wrong kind.
    """
    if nested or not isinstance(given, (dict, schema)):  # a resumed run is given None, or a command
        return given
    checked = checked_input(given, schema) if isinstance(given, dict) else given
    return {name: getattr(checked, name) for name in schema.model_fields}


def _as_a_node(config: RunnableConfig | None) -> bool:
    return bool((config or {}).get("configurable", {}).get("checkpoint_ns"))


def checked_input(given: dict[str, Any], schema: type[Checked]) -> Checked:
    """Input as its schema.

    Raises:
        ConfigError: if it has an unknown key or a value of the wrong kind.
    """
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise ConfigError(_message(error, schema)) from error


def confined(request: Checked, folder: DataFolder | None, paths: Sequence[str]) -> Checked:
    """A request whose paths lie in the one folder that they may lie in; unchanged if there is no such bound.

    Args:
        request: What a caller asks for.
        folder: Where its files may lie.
        paths: The fields that hold a path, or several.

    Raises:
        DataError: if one of them lies elsewhere.
    """
    if folder is None:
        return request
    found: dict[str, Any] = {}
    for name in paths:
        given = getattr(request, name)
        if isinstance(given, list):
            found[name] = [str(folder.find(path, name)) for path in given]
        elif given is not None:
            found[name] = str(folder.find(given, name))
    return request.model_copy(update=found)


def _message(error: ValidationError, schema: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"input: expected some of {', '.join(schema.model_fields)}, got {place!r}: leave it out"
    got = "" if first["type"] == "missing" else f" (got {first['input']!r:.80})"
    return f"input: {place}: {' '.join(first['msg'].split())}{got}"
