"""Plans as a large language model spells them: one JSON object, in pieces that share no token."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache

from omg_graph.planner.schema import Schema
from omg_graph.planner.vocabulary import EncodedPlan

Tokens = tuple[int, ...]

QUOTE = '"'


def escaped(value: str) -> str:
    """A value as it stands between the quotes of a JSON string."""
    return json.dumps(value, ensure_ascii=False)[1:-1]


class Spelling:
    """How the plans of a schema are spelt: scaffold, value, terminator, field after field.

    ``{"Entity": "`` | ``story`` | ``",`` | `` "Action": "`` | ``praises`` | ``"}``. Each piece is turned into
    tokens by itself, so that a value is the same tokens wherever it stands, and no token is half a value and
    half what comes behind it. The terminator is the closing quote with the sign after it, which leaves
    nothing to choose and which tokenizers write as one token with the quote.
    """

    def __init__(self, schema: Schema, encode: Callable[[str], Sequence[int]]) -> None:
        """Take the tokens of texts from ``encode``."""
        self.schema = schema
        last = len(schema.fields) - 1
        self._scaffolds = tuple(
            tuple(encode(f'{"{" if level == 0 else " "}"{name}": {QUOTE}'))
            for level, name in enumerate(schema.field_names)
        )
        self._terminators = tuple(
            tuple(encode(QUOTE + ("}" if level == last else ","))) for level in range(last + 1)
        )

        @lru_cache(maxsize=4096)
        def spelt(value: str) -> Tokens:
            return tuple(encode(escaped(value)))

        self._spelt = spelt

    def scaffold(self, level: int) -> Tokens:
        """What stands before a field's value."""
        return self._scaffolds[level]

    def terminator(self, level: int) -> Tokens:
        """What ends a field's value."""
        return self._terminators[level]

    def value(self, text: str) -> Tokens:
        """A value, without its terminator."""
        return self._spelt(text)

    def encode(self, plan: Sequence[str]) -> EncodedPlan:
        """A plan, valid or not, behind the first field's scaffold."""
        tokens: list[int] = []
        levels: list[int] = []
        for level, value in enumerate(plan):
            scaffold = self.scaffold(level) if level else ()
            counted = (*self.value(value), *self.terminator(level))
            tokens += [*scaffold, *counted]
            levels += [-1] * len(scaffold) + [level] * len(counted)
        return EncodedPlan(tuple(tokens), tuple(levels))
