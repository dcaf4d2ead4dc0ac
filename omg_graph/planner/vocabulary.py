"""The student's words, and the schema as a grammar over them: which token may come next, at every point."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from omg_graph.errors import ModelError, PlanError, SchemaError
from omg_graph.planner.schema import Plan, Schema

PAD = "<pad>"
UNKNOWN = "<unknown>"
END = "<end>"


@dataclass(frozen=True)
class EncodedPlan:
    """A plan as tokens: for each field its scaffold, the words of its value, and the terminator."""

    tokens: tuple[int, ...]
    levels: tuple[int, ...]
    """The field that each token's log-probability counts for; -1 for scaffolding, which counts for none."""


class Vocabulary:
    """Words to token ids: the words of a schema's values, one scaffold a field, and a terminator."""

    def __init__(self, schema: Schema, words: Sequence[str] = ()) -> None:
        """Collect the words of a schema, and those that its free text may use.

        Args:
            schema: the plans' schema.
            words: words for free text, e.g. those of the training plans; ignored if there is no such field.

        Raises:
            SchemaError: if the schema has free text and there are no words for it.
        """
        self.schema = schema
        known: dict[str, None] = {}
        for entry in schema.fields:
            for value in entry.values or ():
                known.update(dict.fromkeys(value.split()))
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
        self._ids = {token: index for index, token in enumerate(self.tokens)}
        self._first_word = 3 + len(scaffolds)
        # A word spelt like a special token would otherwise take its place.
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
    def word_ids(self) -> tuple[int, ...]:
        """Every token that is a word."""
        return tuple(range(self._first_word, len(self.tokens)))

    def words_of(self, value: str) -> tuple[int, ...]:
        """The tokens of a value, without its terminator; words that aren't known become one token."""
        return tuple(self._words.get(word, 1) for word in value.split())

    def knows(self, plan: Sequence[str]) -> bool:
        """Whether every word of a plan is one of these."""
        return all(word in self._words for value in plan for word in value.split())

    def text_of(self, tokens: Sequence[int]) -> str:
        """The value that tokens spell."""
        return " ".join(self.tokens[token] for token in tokens)

    def encode(self, plan: Sequence[str]) -> EncodedPlan:
        """A plan as tokens.

        Raises:
            PlanError: if the plan violates the schema.
        """
        wrong = self.schema.violations(plan)
        if wrong:
            raise PlanError(f"plan {tuple(plan)!r} violates schema {self.schema.name!r}: {'; '.join(wrong)}")
        tokens: list[int] = []
        levels: list[int] = []
        for level, value in enumerate(plan):
            words = self.words_of(value)
            tokens += [self.scaffold(level), *words, self.end]
            levels += [-1] + [level] * (len(words) + 1)
        return EncodedPlan(tuple(tokens), tuple(levels))

    def to_json(self) -> str:
        """As JSON, beside a model's weights."""
        return json.dumps({"tokens": self.tokens}, indent=1, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, schema: Schema) -> Vocabulary:
        """What ``to_json`` wrote, for the same schema.

        Raises:
            ModelError: if it doesn't belong to this schema.
        """
        try:
            tokens = [str(token) for token in json.loads(text)["tokens"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError("the planner's vocabulary is damaged: train the model again") from error
        vocabulary = cls(schema, tokens[3 + len(schema.fields) :])
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
                self._roots[level, None] = self._trie(entry.values)
            else:
                for before, values in entry.within.items():
                    self._roots[level, before] = self._trie(values)

    def root(self, level: int, plan: Plan) -> GrammarState:
        """The state at the start of field ``level``, after the values ``plan``."""
        entry = self.vocabulary.schema.fields[level]
        return self._roots[level, None if entry.within is None else plan[level - 1]]

    def _trie(self, values: Sequence[str]) -> GrammarState:
        spelt = [self.vocabulary.words_of(value) for value in values]
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
