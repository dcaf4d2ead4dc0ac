"""Input that a graph doesn't know, refused by name: LangGraph itself drops such keys without a word."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, ValidationError

from omg_graph.errors import ConfigError


def refuse_unknown_input(graph: CompiledStateGraph[Any, Any, Any, Any], schema: type[BaseModel]) -> None:
    """Have a compiled graph check its input against ``schema``, before its first node.

    As a node of another graph it is given that graph's whole state, and takes from it what it knows.

    Raises:
        ConfigError: when the graph is run, if the input has an unknown key or a value of the wrong kind.
    """

    def check(given: Any, config: RunnableConfig) -> Any:
        inside_another = "|" in config.get("configurable", {}).get("checkpoint_ns", "")
        if isinstance(given, dict) and not inside_another:
            try:
                schema.model_validate(given)
            except ValidationError as error:
                raise ConfigError(_told(error, schema)) from error
        return given

    graph.nodes[START] = graph.nodes[START].copy({"bound": RunnableLambda(check)})


def _told(error: ValidationError, schema: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"input: some of {', '.join(schema.model_fields)} were expected, {place!r} came"
    came = "" if first["type"] == "missing" else f" (came: {first['input']!r:.80})"
    return f"input: {place}: {' '.join(first['msg'].split())}{came}"
