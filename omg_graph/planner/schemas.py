"""Schemas that come along, a user's own as YAML, and those whose words come from the labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from omg_graph.data.dataset import Labels
from omg_graph.errors import SchemaError
from omg_graph.planner.schema import MAX_VALUE_LENGTH, MAX_VALUE_WORDS, Field, Location, Schema

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
    return f"{place}: {error['msg']}, got {error['input']!r}"


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


CLASS = "Class"
SENTIMENT = "Sentiment"


def class_values(class_names: Sequence[str]) -> dict[str, str]:
    """A plan's value for each class, and the data's own name behind it, in the order of the classes.

    A value is the name in lower-case with single spaces. Where two names would become one they keep their
    case, and if that isn't enough, or a name is empty or too long for a plan, the class is called by its
    number.

    Raises:
        SchemaError: if there are no classes or a name stands twice.
    """
    if not class_names:
        raise SchemaError("a schema of classes: expected class names, got none: give the labels names")
    if len(set(class_names)) != len(class_names):
        raise SchemaError(f"expected class names that differ, got {list(class_names)}: rename them")
    spaced = [" ".join(name.split()) for name in class_names]
    lowered = [name.lower() for name in spaced]
    values: dict[str, str] = {}
    for number, name in enumerate(class_names):
        value = lowered[number]
        if lowered.count(value) > 1:
            value = spaced[number]
        too_long = len(value) > MAX_VALUE_LENGTH or len(value.split()) > MAX_VALUE_WORDS
        if not value or too_long or spaced.count(value) > 1 or value in values:
            value = _numbered(number, {*lowered, *spaced, *values})
        values[value] = name
    return values


def _numbered(number: int, used: set[str]) -> str:
    value = f"class {number}"
    while value in used:
        value += " again"
    return value


def class_schema(class_names: Sequence[str], leading: Sequence[Field] = ()) -> Schema:
    """A schema for class-labelled data: its target takes the names of the classes.

    Args:
        class_names: the data's own, in order.
        leading: fields that come before the class, e.g. Entity and Action where there is text to read.

    Raises:
        SchemaError: if there are no classes or a name stands twice.
    """
    values = class_values(class_names)
    target = Field(
        name=CLASS, description="Which of the classes the sample belongs to.", values=tuple(values)
    )
    slots = [f"{{{field.name}}}" for field in (*leading, target)]
    first = slots[0] if leading else CLASS.lower()
    return Schema(
        name="classes",
        description="A plan that says which class a sample belongs to.",
        fields=(*leading, target),
        text_form=f"{first}: {', '.join(slots[1:] if leading else slots)}",
        target=CLASS,
        class_names=values,
    )


def degree_schema(scale: float = 1.0) -> Schema:
    """A schema of sentiment alone, in the seven degrees of the affect schema.

    Args:
        scale: what the degrees -3 to 3 are multiplied by to be in the label's units: 1/3 for labels in
            [-1, 1], as CH-SIMS has.
    """
    affect = load_schema(AFFECT)
    (sentiment,) = (field for field in affect.fields if field.name == SENTIMENT)
    return Schema(
        name="degrees",
        description="A plan that says how positive or negative a sample is.",
        fields=(sentiment,),
        text_form=f"{{{SENTIMENT}}} sentiment",
        target=SENTIMENT,
        degrees=affect.degrees,
    ).scaled(scale)


def reading_schema() -> Schema:
    """A schema of what a text is about and what its speaker does, with no target."""
    affect = load_schema(AFFECT)
    fields = tuple(field for field in affect.fields if field.name != SENTIMENT)
    return Schema(
        name="reading",
        description="A plan that says what a remark is about and what its speaker does.",
        fields=fields,
        text_form=": ".join(f"{{{field.name}}}" for field in fields),
    )


def target_values(schema: Schema, labels: Labels | None) -> list[str | None] | None:
    """The target's value that each sample's label calls for; None where a sample has no label.

    None for all where labels can't tell it: there are none, the schema has no target, or they are classes for
    degrees or numbers for classes.
    """
    if labels is None or schema.target is None or (labels.kind == "classes") != (schema.degrees is None):
        return None
    names = labels.class_names
    return [
        None if not np.isfinite(value) else schema.value_of(names[int(value)] if names else float(value))
        for value in labels.values
    ]
