"""The student's tokens, and the schema as a grammar over them: which token may come next."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from omg_graph.errors import ModelError, SchemaError
from omg_graph.planner.schema import Plan, Schema

PAD = "<pad>"
UNKNOWN = "<unknown>"
END = "<end>"
MOST_KEPT = 100_000
"""Encoded plans that a vocabulary remembers: training asks for the same few again and again."""


@dataclass(frozen=True)
class EncodedPlan:
    """A plan as tokens: for each field its scaffold, the tokens of its value, and the terminator."""

    tokens: tuple[int, ...]
    levels: tuple[int, ...]
    """The field that each token's log-probability counts for; -1 for scaffolding, which counts for none."""


class Vocabulary:
    """One token for each value that a field may take, and one for each word of free text.

    As a value is one token, the likeliest token is the likeliest value. Beside these there are one scaffold
    a field, and a terminator.
    """

    pad = 0
    """Fills rows up to the longest; it counts for no field."""
    unknown = 1
    end = 2
    """Ends a value."""

    def __init__(self, schema: Schema, words: Sequence[str] = ()) -> None:
        """Collect the values of a schema, and the words that its free text may use.

        Args:
            schema: the plans' schema.
            words: words for free text, e.g. those of the training plans; ignored if there is no such field.

        Raises:
            SchemaError: if the schema has free text and there are no words for it.
        """
        self.schema = schema
        known = dict.fromkeys(value for field in schema.fields for value in field.values or ())
        if any(field.values is None for field in schema.fields):
            spoken = sorted(word for text in words for word in text.split())
            if not spoken:
                raise SchemaError(
                    f"schema {schema.name!r} has free text: give the student the words that it may use"
                )
            known.update(dict.fromkeys(spoken))
        special = (PAD, UNKNOWN, END, *(f"<{name}>" for name in schema.field_names))
        self.tokens: tuple[str, ...] = (*special, *known)
        # numbered from here on, so that a word spelt like a special token doesn't take its place
        self._ids = {word: number for number, word in enumerate(known, start=len(special))}
        self.words = tuple(word for word in known if len(word.split()) == 1)
        """Every token that is a single word, and so may stand in free text."""
        self._word_ids = tuple(self._ids[word] for word in self.words)
        self._encoded: dict[Plan, EncodedPlan] = {}

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def longest_plan(self) -> int:
        """The most tokens of a plan."""
        return sum((field.max_words or 1) + 2 for field in self.schema.fields)

    def scaffold(self, level: int) -> int:
        """Stands before the value of field ``level``."""
        return self.end + 1 + level

    def tokens_of(self, level: int, value: str) -> tuple[int, ...]:
        """The tokens of a value of field ``level``, without its terminator; one for each unknown word."""
        return tuple(self._ids.get(part, self.unknown) for part in self._parts(level, value))

    def _parts(self, level: int, value: str) -> list[str]:
        return value.split() if self.schema.fields[level].values is None else [value]

    def knows(self, plan: Sequence[str]) -> bool:
        """Whether every word of a plan is one of these."""
        return all(self.unknown not in self.tokens_of(level, value) for level, value in enumerate(plan))

    def text_of(self, tokens: Sequence[int]) -> str:
        """The value that tokens spell."""
        return " ".join(self.tokens[token] for token in tokens)

    def following(self, plan: Plan, written: Sequence[int] = ()) -> tuple[int, ...]:
        """The tokens that may come next: decoding by them can't break the schema.

        Args:
            plan: The values that are finished.
            written: The tokens of the value after them, as far as they are written.
        """
        values = self.schema.allowed(len(plan), plan)
        ending = (self.end,) if written else ()
        if values is not None:
            return ending or tuple(self._ids[value] for value in values)
        most = self.schema.fields[len(plan)].max_words or 1
        return (*(self._word_ids if len(written) < most else ()), *ending)

    def encode(self, plan: Sequence[str]) -> EncodedPlan:
        """A plan as tokens.

        Raises:
            PlanError: if the plan violates the schema.
        """
        plan = tuple(plan)
        if (known := self._encoded.get(plan)) is not None:
            return known
        self.schema.check(plan)
        encoded = self.encode_values(plan)
        if len(self._encoded) < MOST_KEPT:
            self._encoded[plan] = encoded
        return encoded

    def encode_values(self, plan: Sequence[str]) -> EncodedPlan:
        """The first values of a plan as tokens, whatever they are."""
        tokens: list[int] = []
        levels: list[int] = []
        for level, value in enumerate(plan):
            parts = self.tokens_of(level, value)
            tokens += [self.scaffold(level), *parts, self.end]
            levels += [-1] + [level] * (len(parts) + 1)
        return EncodedPlan(tuple(tokens), tuple(levels))

    def to_json(self) -> str:
        """As JSON, beside a model's weights."""
        return json.dumps({"tokens": self.tokens, "whole_values": True}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, schema: Schema) -> Vocabulary:
        """What ``to_json`` wrote, for the same schema.

        Raises:
            ModelError: if it is damaged, from before version 0.1.0, or belongs to another schema.
        """
        try:
            content = json.loads(text)
            tokens = [str(token) for token in content["tokens"]]
            if content["whole_values"] is not True:
                raise ValueError("values of several tokens")
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError("the planner's vocabulary is damaged: train the model again") from error
        words = [token for token in tokens[3 + len(schema.fields) :] if len(token.split()) == 1]
        vocabulary = cls(schema, words)
        if list(vocabulary.tokens) != tokens:
            raise ModelError(
                f"expected a planner's vocabulary with the words of schema {schema.name!r}, got others: take "
                "both from the same model folder"
            )
        return vocabulary
