"""Schemas whose words come from the labels: the names of classes, or the degrees of sentiment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omg_graph.data.dataset import Labels
from omg_graph.errors import SchemaError
from omg_graph.planner.schema import MAX_VALUE_LENGTH, MAX_VALUE_WORDS, Field, Schema
from omg_graph.planner.schema_files import AFFECT, load_schema

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
        raise SchemaError("a schema of classes needs at least one class name, and none came")
    if len(set(class_names)) != len(class_names):
        raise SchemaError(f"class names are expected to differ, {list(class_names)} came")
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


def _numbered(number: int, taken: set[str]) -> str:
    value = f"class {number}"
    while value in taken:
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

    None in all where labels can't tell it: there are none, the schema has no target, or classes came for
    degrees or numbers for classes.
    """
    if labels is None or schema.target is None or (labels.kind == "classes") != (schema.degrees is None):
        return None
    names = labels.class_names
    return [
        None if not np.isfinite(value) else schema.value_of(names[int(value)] if names else float(value))
        for value in labels.values
    ]
