"""A plan that a person changes: values put in place of the planner's, held to the same schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omg_graph.errors import PlanError
from omg_graph.planner.schema import Plan, Schema


def edited_plan(schema: Schema, plan: Sequence[str], changes: Mapping[str, str]) -> Plan:
    """A plan with some of its values changed.

    White space and, where it leaves no doubt, upper and lower case are as the schema writes them.

    Args:
        schema: what the plan must obey, before and after.
        plan: the values to start from, one for each field.
        changes: field to value.

    Raises:
        PlanError: if there is no such field, or the plan breaks the schema as it is changed.
    """
    values = dict(zip(schema.field_names, plan, strict=True))
    for name, value in changes.items():
        field = _spelt(name, schema.field_names)
        if field is None:
            raise PlanError(f"one of the fields {', '.join(schema.field_names)} was expected, {name!r} came")
        values[field] = " ".join(value.split())
    edited: list[str] = []
    for level, field in enumerate(schema.field_names):
        allowed = schema.allowed(level, edited)
        known = values[field] if allowed is None else _spelt(values[field], allowed)
        if known is None:
            after = "" if schema.fields[level].within is None else f" after {edited[-1]!r}"
            raise PlanError(
                f"{field} can't be {values[field]!r}{after}: one of {', '.join(allowed or ())} was expected"
            )
        edited.append(known)
    wrong = schema.violations(edited)
    if wrong:
        raise PlanError("; ".join(wrong))
    return tuple(edited)


def _spelt(word: str, known: Sequence[str]) -> str | None:
    """The one of ``known`` that is meant; None where none is, or more than one may be."""
    if word in known:
        return word
    alike = [other for other in known if other.casefold() == word.casefold()]
    return alike[0] if len(alike) == 1 else None
