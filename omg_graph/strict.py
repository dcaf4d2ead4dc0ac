"""Input that a graph doesn't know, refused by name: LangGraph itself drops such keys without a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.graph import START
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, ValidationError

from omg_graph.errors import ConfigError
from omg_graph.files import DataFolder

Checked = TypeVar("Checked", bound=BaseModel)


def refuse_unknown_input(graph: CompiledStateGraph[Any, Any, Any, Any], schema: type[BaseModel]) -> None:
    """Have a compiled graph check its input against ``schema``, before its first node.

    As a node of another graph it is given that graph's whole state, and takes from it what it knows. What
    isn't given takes its default, or the next run of a thread would go on with the input of the last one.

    Raises:
        ConfigError: when the graph is run, if the input has an unknown key or a value of the wrong kind.
    """

    def check(given: Any, config: RunnableConfig) -> Any:
        inside_another = "|" in config.get("configurable", {}).get("checkpoint_ns", "")
        if isinstance(given, dict) and not inside_another:
            checked = checked_input(given, schema)
            return {name: getattr(checked, name) for name in schema.model_fields}
        return given

    graph.nodes[START] = graph.nodes[START].copy({"bound": RunnableLambda(check)})


def checked_input(given: dict[str, Any], schema: type[Checked]) -> Checked:
    """Input as its schema.

    Raises:
        ConfigError: if it has an unknown key or a value of the wrong kind.
    """
    try:
        return schema.model_validate(given)
    except ValidationError as error:
        raise ConfigError(_told(error, schema)) from error


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


def _told(error: ValidationError, schema: type[BaseModel]) -> str:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"input: some of {', '.join(schema.model_fields)} were expected, {place!r} came"
    came = "" if first["type"] == "missing" else f" (came: {first['input']!r:.80})"
    return f"input: {place}: {' '.join(first['msg'].split())}{came}"
