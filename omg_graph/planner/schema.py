"""What a plan may say: its fields in order, the values each may take, and the text that g embeds (Eq. 4)."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from string import Formatter

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from omg_graph.errors import PlanError, SchemaError, first_fault
from omg_graph.record.trajectory import CandidatePlan, Constraint, PlanOrigin

Plan = tuple[str, ...]
"""One value for each field of a schema, in its order."""

Location = tuple[str | int, ...]
"""Where in a schema something stands, e.g. ``("fields", 2, "values", 0)``."""

MAX_VALUE_WORDS = 12
MAX_VALUE_LENGTH = 120
MAX_FREE_WORDS = 32

_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Field(BaseModel):
    """One constraint of a plan: either a choice among values or a few words of free text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    """What the field means, written for an LLM that fills it in."""
    values: tuple[str, ...] | None = None
    """The values allowed: short phrases, lower-case unless the data's own names differ in case only."""
    meanings: dict[str, str] = {}
    """What a value means, for those that need saying."""
    within: dict[str, tuple[str, ...]] | None = None
    """Which values may follow which value of the field before; None where all may (coarse to fine)."""
    max_words: int | None = None
    """For free text: the most words, counted by white space."""


class Schema(BaseModel):
    """The template that a plan obeys: S = {c_1, ..., c_L}, one constraint for each field (section 3.3).

    Raises:
        pydantic.ValidationError: if it makes no sense; ``load_schema`` turns it into a SchemaError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str = ""
    fields: tuple[Field, ...]
    text_form: str
    """The text of a plan, g's input, e.g. ``"{Entity}: {Action}, {Sentiment}"``."""
    target: str | None = None
    """The field that carries the label, if one does."""
    degrees: dict[str, float] | None = None
    """For a numeric target: the number that each of its values stands for, in the label's units."""
    class_names: dict[str, str] | None = None
    """For a class target: the data's own name of the class that each value stands for."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Schema:
        for location, complaint in _complaints(self):
            raise PydanticCustomError("schema", "{complaint}", {"complaint": complaint, "location": location})
        return self

    @property
    def field_names(self) -> tuple[str, ...]:
        """The fields' names, in order."""
        return tuple(field.name for field in self.fields)

    @property
    def target_index(self) -> int | None:
        """The place of the target among the fields; None where there is no target."""
        return None if self.target is None else self.field_names.index(self.target)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything in it: two schemas with the same fingerprint mean the same plans."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def allowed(self, level: int, previous: Sequence[str]) -> tuple[str, ...] | None:
        """The values that field ``level`` may take after the values ``previous``; None for free text."""
        field = self.fields[level]
        if field.within is None or level == 0:
            return field.values
        return field.within.get(previous[level - 1], ())

    def violations(self, constraints: Sequence[str]) -> tuple[str, ...]:
        """What is wrong with a plan, a phrase each: I_schema of Eq. 5 is infinite unless this is empty."""
        if len(constraints) != len(self.fields):
            return (f"expected {len(self.fields)} constraints, got {len(constraints)}",)
        found = []
        for level, (field, value) in enumerate(zip(self.fields, constraints, strict=True)):
            allowed = self.allowed(level, constraints[:level])
            if allowed is None:
                words = len(value.split())
                if not 1 <= words <= (field.max_words or 0) or " ".join(value.split()) != value:
                    found.append(
                        f"{field.name} takes 1 to {field.max_words} words on one line, not {value!r}"
                    )
            elif value not in allowed:
                found.append(f"{field.name} can't be {value!r}" + _after(field, constraints, level))
        return tuple(found)

    def check(self, plan: Sequence[str]) -> None:
        """Refuse a plan that breaks the schema.

        Raises:
            PlanError: if it does.
        """
        wrong = self.violations(plan)
        if wrong:
            raise PlanError(f"plan {tuple(plan)!r} violates schema {self.name!r}: {'; '.join(wrong)}")

    def text(self, constraints: Sequence[str]) -> str:
        """The text of a plan that g embeds: c_S = g(S) (Eq. 4).

        Raises:
            PlanError: if there isn't one constraint for each field.
        """
        self._check_count(constraints)
        return self.text_form.format(**dict(zip(self.field_names, constraints, strict=True)))

    def constraint_texts(self, constraints: Sequence[str]) -> tuple[str, ...]:
        """Each constraint by itself, named by its field: ``("Entity: story", "Action: praises")``.

        Raises:
            PlanError: if there isn't one constraint for each field.
        """
        self._check_count(constraints)
        return tuple(f"{name}: {value}" for name, value in zip(self.field_names, constraints, strict=True))

    def candidate(
        self,
        values: Sequence[str],
        log_probabilities: Sequence[float] | None = None,
        token_counts: Sequence[int] | None = None,
        *,
        greedy: bool = False,
        origin: PlanOrigin | None = None,
    ) -> CandidatePlan:
        """A plan as planners propose it; it may break the schema, and then says how.

        Args:
            values: One for each field, in order.
            log_probabilities: log pi(c_l | X, c_<l) of each value's tokens and its terminator, in nats (the
                first term of Eq. 5); None where nobody can tell.
            token_counts: How many tokens each of them sums over.
            greedy: Whether it is the likeliest plan, token by token.
            origin: Where it comes from, if there is more to say than the planner's name.

        Raises:
            PlanError: if there isn't one log-probability and one count for each value.
        """
        logs = (None,) * len(values) if log_probabilities is None else log_probabilities
        counts = (0,) * len(values) if token_counts is None else token_counts
        if not len(values) == len(logs) == len(counts):
            raise PlanError(
                f"expected a log-probability and a token count for each of {len(values)} values, got "
                f"{len(logs)} and {len(counts)}: give one of each"
            )
        names = self.field_names
        violations = self.violations(values)
        total = None if log_probabilities is None else float(sum(log_probabilities))
        return CandidatePlan(
            text="; ".join(values) if violations else self.text(values),
            constraints=tuple(
                Constraint(
                    field=names[place] if place < len(names) else f"field {place + 1}",
                    value=value,
                    log_probability=log_probability,
                    tokens=tokens,
                )
                for place, (value, log_probability, tokens) in enumerate(
                    zip(values, logs, counts, strict=True)
                )
            ),
            log_probability=total,
            log_probability_per_token=None if total is None else total / max(1, sum(counts)),
            greedy=greedy,
            violations=violations,
            origin=origin,
        )

    def nearest_value(self, number: float) -> str:
        """The target's value whose degree is nearest to ``number``.

        Half-way it rounds as ``np.round`` does with the seven degrees of ACC7: towards the even distance
        from the middle degree.

        Raises:
            PlanError: if the schema has no numeric target.
        """
        if self.degrees is None:
            raise PlanError(f"schema {self.name!r} has no numeric target, so no word for {number}")
        ordered = sorted(self.degrees.items(), key=lambda item: item[1])
        distances = [abs(degree - number) for _, degree in ordered]
        nearest = min(distances)
        tied = [index for index, distance in enumerate(distances) if math.isclose(distance, nearest)]
        middle = (len(ordered) - 1) // 2
        return ordered[min(tied, key=lambda index: (index - middle) % 2)][0]

    def value_of(self, label: float | str) -> str:
        """The target's value for a label: the nearest degree's, or the one that stands for a class.

        Raises:
            PlanError: if it is a number and the schema has no numeric target.
        """
        if not isinstance(label, str):
            return self.nearest_value(label)
        named = {name: value for value, name in (self.class_names or {}).items()}
        return named.get(label, label)

    def scaled(self, factor: float) -> Schema:
        """The same words for labels in other units: every degree times ``factor``."""
        if self.degrees is None:
            return self
        return Schema.model_validate(
            self.model_dump() | {"degrees": {word: degree * factor for word, degree in self.degrees.items()}}
        )

    def to_json(self) -> str:
        """As JSON, fields in order, for a model's folder."""
        return json.dumps(self.model_dump(mode="json", exclude_defaults=True), indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Schema:
        """What ``to_json`` wrote.

        Raises:
            SchemaError: if it isn't a schema, or one that makes no sense.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise SchemaError(f"expected a schema in JSON; at fault is {first_fault(error)}") from error

    def _check_count(self, constraints: Sequence[str]) -> None:
        if len(constraints) != len(self.fields):
            raise PlanError(
                f"schema {self.name!r}: expected {len(self.fields)} constraints "
                f"({', '.join(self.field_names)}), got {len(constraints)}"
            )


def _after(field: Field, constraints: Sequence[str], level: int) -> str:
    if field.within is None or level == 0:
        return ""
    return f" after {constraints[level - 1]!r}"


def _complaints(schema: Schema) -> Iterator[tuple[Location, str]]:
    """What makes no sense in a schema whose types are right, and where."""
    if not schema.name.strip():
        yield ("name",), "a schema needs a name"
    if not schema.fields:
        yield ("fields",), "a schema needs at least one field"
    names: list[str] = []
    for level, field in enumerate(schema.fields):
        if not _FIELD_NAME.fullmatch(field.name):
            yield (
                ("fields", level, "name"),
                f"a field's name is letters, digits and underscores, not {field.name!r}",
            )
        if field.name in names:
            yield ("fields", level, "name"), f"two fields are called {field.name!r}"
        names.append(field.name)
        yield from _field_complaints(field, level, schema.fields[level - 1] if level else None)
    yield from _text_form_complaints(schema.text_form, names)
    yield from _target_complaints(schema)


def _field_complaints(field: Field, level: int, before: Field | None) -> Iterator[tuple[Location, str]]:
    here: Location = ("fields", level)
    if (field.values is None) == (field.max_words is None):
        yield here, f"field {field.name!r} needs either values or max_words, and not both"
    if field.max_words is not None and not 1 <= field.max_words <= MAX_FREE_WORDS:
        yield (
            (*here, "max_words"),
            f"max_words goes from 1 to {MAX_FREE_WORDS}, not {field.max_words}",
        )
    if field.values is not None:
        if not field.values:
            yield (*here, "values"), f"field {field.name!r} has no values"
        seen: set[str] = set()
        for index, value in enumerate(field.values):
            there = (*here, "values", index)
            if not value or " ".join(value.split()) != value:
                yield there, f"a value is words with single spaces between them, not {value!r}"
            if len(value) > MAX_VALUE_LENGTH or len(value.split()) > MAX_VALUE_WORDS:
                yield there, f"a value has at most {MAX_VALUE_WORDS} words, {value[:40]!r}... is longer"
            if value in seen:
                yield there, f"field {field.name!r} has the value {value!r} twice"
            seen.add(value)
    for value in field.meanings:
        if field.values is None or value not in field.values:
            yield (*here, "meanings", value), f"a meaning is given for {value!r}, which is not a value"
    if field.within is not None:
        yield from _within_complaints(field, level, before)


def _within_complaints(field: Field, level: int, before: Field | None) -> Iterator[tuple[Location, str]]:
    there: Location = ("fields", level, "within")
    if before is None or before.values is None or field.values is None or field.within is None:
        yield there, "within needs values, and a field with values before this one"
        return
    if set(field.within) != set(before.values):
        yield there, f"within needs an entry for each value of {before.name!r}, and for nothing else"
    for value, allowed in field.within.items():
        unknown = [word for word in allowed if word not in field.values]
        if not allowed or unknown or len(set(allowed)) != len(allowed):
            yield (
                (*there, value),
                f"expected after {value!r} one or more of the values of {field.name!r}, got {list(allowed)}",
            )


def _text_form_complaints(text_form: str, names: list[str]) -> Iterator[tuple[Location, str]]:
    there: Location = ("text_form",)
    try:
        parts = [part for part in Formatter().parse(text_form) if part[1] is not None]
    except ValueError as error:
        yield there, f"text_form can't be read ({error}); write {{Field}} for a field's value"
        return
    used = [str(name) for _, name, _, _ in parts]
    for (_, _, spec, conversion), name in zip(parts, used, strict=True):
        if name not in names:
            yield there, f"text_form names {name!r}, which is not a field ({', '.join(names)})"
        elif spec or conversion:
            yield there, f"text_form takes {{{name}}} with nothing added"
    unused = [name for name in names if name not in used]
    if unused:
        yield there, f"text_form leaves out {', '.join(unused)}: nothing after the plan would see it"


def _target_complaints(schema: Schema) -> Iterator[tuple[Location, str]]:
    carried = [name for name in ("degrees", "class_names") if getattr(schema, name) is not None]
    if schema.target is None:
        for name in carried:
            yield (name,), f"{name} needs a target: the name of the field that carries the label"
        return
    by_name = {field.name: field for field in schema.fields}
    if schema.target not in by_name or by_name[schema.target].values is None:
        yield ("target",), f"the target is a field with values, not {schema.target!r}"
        return
    if len(carried) > 1:
        yield ("degrees",), "a target has degrees (numbers) or class_names (classes), not both"
    values = set(by_name[schema.target].values or ())
    for name in carried:
        meanings: dict[str, object] = getattr(schema, name)
        if set(meanings) != values:
            odd = ", ".join(sorted(map(repr, set(meanings) ^ values)))
            yield (name,), f"{name} has an entry for each value of {schema.target!r}; at fault: {odd}"
        elif len(set(meanings.values())) != len(meanings):
            yield (name,), f"{name} gives two values of {schema.target!r} the same meaning"
    if schema.degrees is not None:
        for word, degree in schema.degrees.items():
            if not math.isfinite(degree):
                yield ("degrees", word), f"a degree is a finite number, not {degree}"


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
            raise PlanError(f"expected one of the fields {', '.join(schema.field_names)}, got {name!r}")
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
    same = [other for other in known if other.casefold() == word.casefold()]
    return same[0] if len(same) == 1 else None
