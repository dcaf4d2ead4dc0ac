"""A large language model's plans, token by token: their spelling, and values held to the schema or free."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from omg_graph.errors import ConfigError
from omg_graph.planner.schema import Schema
from omg_graph.planner.vocabulary import EncodedPlan

Tokens = tuple[int, ...]

QUOTE = '"'


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

        @lru_cache(maxsize=4096)
        def spelt(text: str) -> Tokens:
            return tuple(encode(text))

        self._spelt = spelt
        self._scaffolds = [
            spelt(f'{"{" if level == 0 else " "}"{name}": {QUOTE}')
            for level, name in enumerate(schema.field_names)
        ]
        self._terminators = [spelt(QUOTE + ("}" if level == last else ",")) for level in range(last + 1)]

    def scaffold(self, level: int) -> Tokens:
        """What stands before a field's value."""
        return self._scaffolds[level]

    def terminator(self, level: int) -> Tokens:
        """What ends a field's value."""
        return self._terminators[level]

    def value(self, text: str) -> Tokens:
        """A value as it stands between the quotes of a JSON string, without its terminator."""
        return self._spelt(json.dumps(text, ensure_ascii=False)[1:-1])

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


BoolArray = npt.NDArray[np.bool_]

LONGEST_WORD = 30
"""Letters of one word of free text under a grammar; a model without sense would never end one."""

FREE_TOKENS = 48
"""Tokens of a value that is written freely, beyond which it counts as unfinished."""


class FieldWriter(Protocol):
    """One value while it is written."""

    @property
    def value(self) -> str | None:
        """What was written, once it is finished."""
        ...

    def opening(self) -> list[int]:
        """Tokens that there is no choice about at the start."""
        ...

    def allowed(self) -> BoolArray:
        """Which tokens may come next, (vocabulary,)."""
        ...

    def write(self, token: int) -> list[int]:
        """Put a token down; what the model is to read: the token, and what follows without a choice."""
        ...


class GrammarDecoding:
    """Values under the schema's grammar by llguidance: nothing else can be written.

    A choice among values is a grammar of their tokens, each value spelt in the one way that it is scored by;
    free text is a grammar of letters, words and single spaces.
    """

    name = "held to the schema by llguidance"

    def __init__(self, spelling: Spelling, tokenizer: Any, vocabulary_size: int, end: int) -> None:
        """Prepare the grammars.

        Args:
            spelling: Of the schema's values.
            tokenizer: The language model's, from transformers.
            vocabulary_size: How many logits the model gives.
            end: The token that ends an answer.

        Raises:
            ImportError: if llguidance isn't installed.
            ConfigError: if it can't read the tokenizer.
        """
        from llguidance import LLMatcher
        from llguidance.hf import from_tokenizer

        self._spelling = spelling
        self._size = vocabulary_size
        try:
            self._tokenizer = from_tokenizer(tokenizer, n_vocab=vocabulary_size, eos_token=end)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"llguidance can't read the tokenizer ({str(error)[:100]}): take another checkpoint"
            ) from error
        self._matchers: dict[tuple[int, str | None], Any] = {}
        self._make = LLMatcher

    def start(self, level: int, before: Sequence[str]) -> FieldWriter:
        """A writer for field ``level``, behind the values ``before``."""
        field = self._spelling.schema.fields[level]
        key = (level, None if field.within is None else before[level - 1])
        if key not in self._matchers:
            grammar = self._make.grammar_from_lark(self._grammar(level, before))
            matcher = self._make(self._tokenizer, grammar)
            if matcher.is_error():
                raise ConfigError(
                    f"llguidance can't make a grammar of field {field.name} ({matcher.get_error()[:200]}): "
                    "rename its values"
                )
            self._matchers[key] = matcher
        ending = len(self._spelling.terminator(level))
        return _GrammarWriter(self._matchers[key].deep_copy(), self._tokenizer, self._size, ending)

    def _grammar(self, level: int, before: Sequence[str]) -> str:
        end = _token_sequence(self._spelling.terminator(level))
        values = self._spelling.schema.allowed(level, before)
        if values is None:
            more = (self._spelling.schema.fields[level].max_words or 1) - 1
            letter = r"[^\s\"\\\x00-\x1f\x7f-\x9f]"
            return f'start: word (" " word){{0,{more}}} {end}\nword: /{letter}{{1,{LONGEST_WORD}}}/\n'
        choices = " | ".join(_token_sequence(self._spelling.value(value)) for value in values)
        return f"start: value {end}\nvalue: {choices}\n"


def _token_sequence(tokens: Sequence[int]) -> str:
    return " ".join(f"<[{token}]>" for token in tokens)


class _GrammarWriter:
    """One value under a grammar."""

    def __init__(self, matcher: Any, tokenizer: Any, size: int, ending: int) -> None:
        self._matcher = matcher
        self._tokenizer = tokenizer
        self._size = size
        self._ending = ending
        self._written: list[int] = []

    @property
    def value(self) -> str | None:
        if not self._matcher.is_stopped():
            return None
        text = self._tokenizer.decode_str(self._written[: -self._ending])
        return str(json.loads(f'"{text}"'))

    def opening(self) -> list[int]:
        return self._forced()

    def allowed(self) -> BoolArray:
        import llguidance.numpy as guidance

        words = guidance.allocate_token_bitmask(1, self._size)
        guidance.fill_next_token_bitmask(self._matcher, words, 0)
        return np.unpackbits(words.view(np.uint8), bitorder="little")[: self._size].astype(np.bool_)

    def write(self, token: int) -> list[int]:
        self._matcher.consume_token(token)
        self._written.append(token)
        return [token, *self._forced()]

    def _forced(self) -> list[int]:
        if self._matcher.is_stopped():
            return []
        tokens = [int(token) for token in self._matcher.compute_ff_tokens()]
        self._matcher.consume_tokens(tokens)
        self._written += tokens
        return tokens


class FreeDecoding:
    """Values as the model pleases, up to the closing quote; the schema's check must tell what is wrong."""

    name = "written freely, checked against the schema afterwards"

    def __init__(
        self, spelling: Spelling, decode: Callable[[Sequence[int]], str], writable: BoolArray
    ) -> None:
        """Take the text of tokens from ``decode``; ``writable``: tokens that stand for text."""
        self._spelling = spelling
        self._decode = decode
        self._writable = writable

    def start(self, level: int, before: Sequence[str]) -> FieldWriter:  # noqa: ARG002 - whatever the schema allows
        """A writer for field ``level``."""
        return _FreeWriter(self._spelling, level, self._decode, self._writable)


class _FreeWriter:
    """One value that ends where the model puts a quote."""

    def __init__(
        self, spelling: Spelling, level: int, decode: Callable[[Sequence[int]], str], writable: BoolArray
    ) -> None:
        self._spelling = spelling
        self._level = level
        self._decode = decode
        self._writable = writable
        self._tokens: list[int] = []
        self.value: str | None = None

    def opening(self) -> list[int]:
        return []

    def allowed(self) -> BoolArray:
        return self._writable

    def write(self, token: int) -> list[int]:
        before = self._decode(self._tokens)
        self._tokens.append(token)
        text = self._decode(self._tokens)
        end = _closing_quote(text)
        if end is None and len(self._tokens) < FREE_TOKENS:
            return [token]
        self.value = _unescaped(text[:end])
        # a token may hold letters of the value, the quote and more: what is read on is spelt as it is scored
        rest = "" if end is None or end < len(before) else text[len(before) : end]
        kept = [token] if end is None else list(self._spelling.value(rest)) if rest else []
        return [*kept, *self._spelling.terminator(self._level)]


def _closing_quote(text: str) -> int | None:
    """The place of the first quote that no backslash stands before."""
    for place, sign in enumerate(text):
        if sign == QUOTE and (len(text[:place]) - len(text[:place].rstrip("\\"))) % 2 == 0:
            return place
    return None


def _unescaped(text: str) -> str:
    """A value as it was meant; as it stands, where it is no JSON."""
    try:
        value = json.loads(f'"{text}"', strict=False)
    except ValueError:
        return text
    return str(value).encode("utf-8", "replace").decode("utf-8")


def writable_tokens(size: int, known: int, special: Sequence[int]) -> BoolArray:
    """Tokens that stand for text: not the chat format's own, and none beyond the tokenizer's."""
    writable = np.zeros(size, dtype=np.bool_)
    writable[: min(size, known)] = True
    writable[[token for token in special if token < size]] = False
    return writable


Decoding = GrammarDecoding | FreeDecoding
"""Makes writers for the fields of a schema."""
