"""The student's tokens, and the schema as a grammar over them: which token may come next, at every point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Bool
from torch import Tensor

from omg_graph.errors import ModelError, PlanError, SchemaError
from omg_graph.planner.schema import Plan, Schema

PAD = "<pad>"
UNKNOWN = "<unknown>"
END = "<end>"
MOST_KEPT = 100_000
"""Encoded plans that a vocabulary remembers: training asks for the same few again and again."""


@dataclass(frozen=True)
class EncodedPlan:
    """A plan as tokens: for each field its scaffold, the words of its value, and the terminator."""

    tokens: tuple[int, ...]
    levels: tuple[int, ...]
    """The field that each token's log-probability counts for; -1 for scaffolding, which counts for none."""


class Vocabulary:
    """Values and words to token ids: a token for each value that a field may take, or for each word of one.

    Where a value is one token, the likeliest token is the likeliest value. Fields of free text are spelt word
    by word. Beside these there are one scaffold a field, and a terminator.
    """

    def __init__(self, schema: Schema, words: Sequence[str] = (), *, whole_values: bool = True) -> None:
        """Collect the values of a schema, and the words that its free text may use.

        Args:
            schema: the plans' schema.
            words: words for free text, e.g. those of the training plans; ignored if there is no such field.
            whole_values: whether a value is one token, however many words it has; else each word is one.

        Raises:
            SchemaError: if the schema has free text and there are no words for it.
        """
        self.schema = schema
        self.whole_values = whole_values
        known: dict[str, None] = {}
        for entry in schema.fields:
            for value in entry.values or ():
                known.update(dict.fromkeys([value] if whole_values else value.split()))
        free = any(entry.values is None for entry in schema.fields)
        if free:
            spoken = sorted(word for text in words for word in text.split())
            known.update(dict.fromkeys(spoken))
            if not spoken:
                raise SchemaError(
                    f"schema {schema.name!r} has free text: give the student the words that it may use"
                )
        scaffolds = [f"<{name}>" for name in schema.field_names]
        self.tokens: tuple[str, ...] = (PAD, UNKNOWN, END, *scaffolds, *known)
        self._first_word = 3 + len(scaffolds)
        # A word spelt like a special token would otherwise take its place.
        self._encoded: dict[tuple[str, ...], EncodedPlan] = {}
        self._words = {token: index + self._first_word for index, token in enumerate(known)}

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def pad(self) -> int:
        """Fills rows up to the longest; masked everywhere."""
        return 0

    @property
    def end(self) -> int:
        """Ends a value."""
        return 2

    def scaffold(self, level: int) -> int:
        """Stands before the value of field ``level``."""
        return 3 + level

    @property
    def words(self) -> tuple[str, ...]:
        """Every token that is a single word, and so may stand in free text."""
        return tuple(token for token in self.tokens[self._first_word :] if len(token.split()) == 1)

    @property
    def word_ids(self) -> tuple[int, ...]:
        """Their tokens."""
        return tuple(self._words[word] for word in self.words)

    def words_of(self, level: int, value: str) -> tuple[int, ...]:
        """The tokens of a value of field ``level``, without its terminator; one for each unknown word."""
        return tuple(self._words.get(part, 1) for part in self._parts(level, value))

    def _parts(self, level: int, value: str) -> list[str]:
        fixed = self.schema.fields[level].values is not None
        return [value] if fixed and self.whole_values else value.split()

    def knows(self, plan: Sequence[str]) -> bool:
        """Whether every word of a plan is one of these."""
        return all(
            part in self._words for level, value in enumerate(plan) for part in self._parts(level, value)
        )

    def text_of(self, tokens: Sequence[int]) -> str:
        """The value that tokens spell."""
        return " ".join(self.tokens[token] for token in tokens)

    def encode(self, plan: Sequence[str]) -> EncodedPlan:
        """A plan as tokens.

        Raises:
            PlanError: if the plan violates the schema.
        """
        if (known := self._encoded.get(tuple(plan))) is not None:
            return known
        wrong = self.schema.violations(plan)
        if wrong:
            raise PlanError(f"plan {tuple(plan)!r} violates schema {self.schema.name!r}: {'; '.join(wrong)}")
        tokens: list[int] = []
        levels: list[int] = []
        for level, value in enumerate(plan):
            words = self.words_of(level, value)
            tokens += [self.scaffold(level), *words, self.end]
            levels += [-1] + [level] * (len(words) + 1)
        encoded = EncodedPlan(tuple(tokens), tuple(levels))
        if len(self._encoded) < MOST_KEPT:
            self._encoded[tuple(plan)] = encoded
        return encoded

    def to_json(self) -> str:
        """As JSON, beside a model's weights."""
        told = {"tokens": self.tokens, "whole_values": self.whole_values}
        return json.dumps(told, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, schema: Schema) -> Vocabulary:
        """What ``to_json`` wrote, for the same schema.

        Raises:
            ModelError: if it doesn't belong to this schema.
        """
        try:
            told = json.loads(text)
            tokens = [str(token) for token in told["tokens"]]
            whole_values = bool(told.get("whole_values", False))  # earlier students spell values out
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError("the planner's vocabulary is damaged: train the model again") from error
        words = [token for token in tokens[3 + len(schema.fields) :] if len(token.split()) == 1]
        vocabulary = cls(schema, words, whole_values=whole_values)
        if list(vocabulary.tokens) != tokens:
            raise ModelError(
                f"the planner's vocabulary was expected to hold the words of schema {schema.name!r}, "
                "and holds others: take both from the same model folder"
            )
        return vocabulary


@dataclass(eq=False)
class GrammarState:
    """A point in a plan: the tokens that may come next, and where each of them leads."""

    index: int
    allowed: tuple[int, ...]
    children: dict[int, GrammarState] = field(default_factory=dict)
    otherwise: GrammarState | None = None
    """Where every word leads in free text, so that it needs no branch for each."""

    def after(self, token: int) -> GrammarState:
        """The state after a word that is allowed here."""
        following = self.children.get(token, self.otherwise)
        if following is None:
            raise PlanError(f"token {token} is not allowed at this point of the plan")
        return following


class Grammar:
    """Every plan that a schema allows, as a trie over tokens for each field.

    Decoding under it can't produce a plan that violates the schema.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.states: list[GrammarState] = []
        self._roots: dict[tuple[int, str | None], GrammarState] = {}
        schema = vocabulary.schema
        for level, entry in enumerate(schema.fields):
            if entry.values is None:
                self._roots[level, None] = self._free_text(entry.max_words or 1)
            elif entry.within is None:
                self._roots[level, None] = self._trie(level, entry.values)
            else:
                for before, values in entry.within.items():
                    self._roots[level, before] = self._trie(level, values)

    @cached_property
    def allowed(self) -> Bool[Tensor, "states vocabulary"]:
        """The tokens that may come next in each state."""
        allowed = torch.zeros(len(self.states), len(self.vocabulary), dtype=torch.bool)
        for state in self.states:
            allowed[state.index, list(state.allowed)] = True
        return allowed

    def root(self, level: int, plan: Plan) -> GrammarState:
        """The state at the start of field ``level``, after the values ``plan``."""
        entry = self.vocabulary.schema.fields[level]
        return self._roots[level, None if entry.within is None else plan[level - 1]]

    def _trie(self, level: int, values: Sequence[str]) -> GrammarState:
        spelt = [self.vocabulary.words_of(level, value) for value in values]
        return self._branch(spelt, 0)

    def _branch(self, spelt: Sequence[tuple[int, ...]], depth: int) -> GrammarState:
        branches: dict[int, list[tuple[int, ...]]] = {}
        for words in spelt:
            if len(words) > depth:
                branches.setdefault(words[depth], []).append(words)
        complete = any(len(words) == depth for words in spelt)
        state = self._new((*branches, *((self.vocabulary.end,) if complete else ())))
        for token, members in branches.items():
            state.children[token] = self._branch(members, depth + 1)
        return state

    def _free_text(self, max_words: int) -> GrammarState:
        vocabulary = self.vocabulary
        last = self._new((vocabulary.end,))
        for left in range(1, max_words + 1):
            stop = (vocabulary.end,) if left < max_words else ()
            before = self._new((*vocabulary.word_ids, *stop))
            before.otherwise = last
            last = before
        return last

    def _new(self, allowed: tuple[int, ...]) -> GrammarState:
        state = GrammarState(len(self.states), allowed)
        self.states.append(state)
        return state
