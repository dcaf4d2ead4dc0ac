"""Schemas as YAML files: the ones that come along in ``prompts/schemas`` and a user's own."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from omg_graph.errors import SchemaError
from omg_graph.planner.schema import Location, Schema

AFFECT = "affect"
"""The default schema: [Entity, Action, Sentiment]."""


def schema_names() -> tuple[str, ...]:
    """The schemas that come along, by name."""
    folder = files("omg_graph.prompts").joinpath("schemas")
    return tuple(sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def load_schema(path_or_name: str | Path) -> Schema:
    """A schema that comes along, by name, or one from a YAML file.

    Raises:
        SchemaError: if there is no such schema, or it makes no sense; names the file and the line at fault.
    """
    name = str(path_or_name)
    if name in schema_names():
        source = files("omg_graph.prompts").joinpath("schemas", f"{name}.yaml")
        return parse_schema(source.read_text(encoding="utf-8"), f"prompts/schemas/{name}.yaml")
    try:
        text = Path(path_or_name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8 text"
        raise SchemaError(
            f"a schema is a YAML file or one of {', '.join(schema_names())}; {name} can't be read: {reason}"
        ) from error
    return parse_schema(text, name)


def parse_schema(text: str, source: str) -> Schema:
    """A schema from YAML text; ``source`` is the name of the file that errors speak of.

    Raises:
        SchemaError: if it makes no sense; names the source and the line at fault.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise SchemaError(
                f"{source}, line 1: a schema is a mapping with name, fields and text_form; "
                "see prompts/README.md"
            )
        for twice in _repeated_keys(node):
            raise SchemaError(
                f"{source}, line {twice.start_mark.line + 1}: {twice.value!r} stands there twice; "
                "remove one of them"
            )
        content = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SchemaError(f"{source}, line {line}: this is not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise SchemaError(f"{source}, line 1: this is not YAML: {error}") from error
    finally:
        loader.dispose()
    try:
        return Schema.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        context = first.get("ctx", {})
        location: Location = context.get("location", first["loc"])
        raise SchemaError(f"{source}, line {_line(node, location)}: {_reason(first)}") from error


def _reason(error: ErrorDetails) -> str:
    """A pydantic error as a phrase, with the remedy for what YAML does to bare words and numbers."""
    if error["type"] == "schema":
        return error["msg"]
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{place} is not a setting of a schema; see prompts/README.md for those that are"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["type"] == "string_type":
        return f"{place} is words; YAML reads {error['input']!r} here, so put it in quotes"
    return f"{place}: {error['msg']}, {error['input']!r} came"


def _line(node: yaml.Node, location: Location) -> int:
    """The line of the deepest part of ``location`` that the file has."""
    line = node.start_mark.line + 1
    for part in location:
        child: yaml.Node | None = None
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    child, line = value, key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = node.value[part]
            line = child.start_mark.line + 1
        if child is None:
            break
        node = child
    return line


def _repeated_keys(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    """Keys that a mapping holds twice: YAML would take the last without a word."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key
                seen.add(key.value)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _repeated_keys(child)
