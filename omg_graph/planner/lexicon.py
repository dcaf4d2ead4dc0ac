"""Word lists that read a remark: cues of entities and actions, valence, and the language itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

_WORD = re.compile(r"[^\W_]+")
_APOSTROPHES = str.maketrans("", "", "'’‘`´")

NEGATION_REACH = 3
"""How many words before a word of valence are searched for a negator."""

NEGATION_FACTOR = -0.5
"""What a negator makes of a valence: "not good" is bad, but less so than "bad"."""


def words_of(text: str) -> list[str]:
    """The words of a text: lower-case, without apostrophes and punctuation, whatever its case was."""
    return _WORD.findall(text.lower().translate(_APOSTROPHES))


@dataclass
class PhraseTable:
    """Phrases to what they stand for, found in a list of words; a star stands for any ending of a word."""

    _phrases: dict[tuple[str, ...], Any] = field(default_factory=dict)
    _stems: dict[str, Any] = field(default_factory=dict)
    _longest: int = 1

    @classmethod
    def of(cls, phrases: Mapping[Any, Iterable[str]]) -> PhraseTable:
        """A table of the phrases under each meaning; the first meaning to list a phrase keeps it."""
        table = cls()
        for meaning, members in phrases.items():
            for phrase in members:
                if phrase.endswith("*"):
                    table._stems.setdefault(phrase[:-1], meaning)
                else:
                    words = tuple(phrase.split())
                    table._phrases.setdefault(words, meaning)
                    table._longest = max(table._longest, len(words))
        return table

    def find(self, words: Sequence[str]) -> list[tuple[int, int, Any]]:
        """Start, length and meaning of every phrase in ``words``, the longest where they overlap."""
        found = []
        place = 0
        while place < len(words):
            length, meaning = self._at(words, place)
            if length:
                found.append((place, length, meaning))
            place += max(1, length)
        return found

    def _at(self, words: Sequence[str], place: int) -> tuple[int, Any]:
        for length in range(min(self._longest, len(words) - place), 0, -1):
            meaning = self._phrases.get(tuple(words[place : place + length]))
            if meaning is not None:
                return length, meaning
        word = words[place]
        for end in range(len(word), 2, -1):
            meaning = self._stems.get(word[:end])
            if meaning is not None:
                return 1, meaning
        return 0, None


@dataclass(frozen=True)
class Lexicon:
    """What a language's word lists say about a text."""

    language: str
    entities: PhraseTable
    actions: PhraseTable
    entity_values: tuple[str, ...]
    action_values: tuple[str, ...]
    fallback_entity: str
    fallback_action: str
    _valence: PhraseTable
    _negators: frozenset[str]
    _intensifiers: PhraseTable
    _function_words: frozenset[str]

    def valence(self, words: Sequence[str]) -> float:
        """How positive the words are, about -3 to 3; 0 where none has a valence.

        The sum over words of valence, each turned round by a negator before it and scaled by an intensifier
        just before it, divided by the root of their number, and clipped.
        """
        found = self._valence.find(words)
        total = 0.0
        for start, _, strength in found:
            reach = words[max(0, start - NEGATION_REACH) : start]
            value = float(strength)
            for place, span, factor in self._intensifiers.find(reach):
                if place + span == len(reach):
                    value *= factor
            negated = any(word in self._negators for word in reach)
            total += value * (NEGATION_FACTOR if negated else 1.0)
        return max(-3.0, min(3.0, total / math.sqrt(max(1, len(found)))))

    def known_share(self, words: Sequence[str]) -> float:
        """The share of words that hold sentences of this language together."""
        return sum(word in self._function_words for word in words) / max(1, len(words))

    def cue_share(self, words: Sequence[str]) -> float:
        """The share of words that are cues of an entity, an action or a valence."""
        tables = (self.entities, self.actions, self._valence)
        cued = {
            place
            for table in tables
            for start, length, _ in table.find(words)
            for place in range(start, start + length)
        }
        return sum(words[place] not in self._function_words for place in cued) / max(1, len(words))


def _pairs(entries: Mapping[Any, Iterable[str]]) -> dict[float, list[str]]:
    return {float(value): list(phrases) for value, phrases in entries.items()}


@cache
def english() -> Lexicon:
    """The word lists of ``prompts/annotator_en.yaml``."""
    source = files("omg_graph.prompts").joinpath("annotator_en.yaml").read_text(encoding="utf-8")
    # Every scalar stays the word it is: YAML would read "no" and "on" as booleans.
    lists = yaml.BaseLoader(source).get_single_data()
    return Lexicon(
        language=lists["language"],
        entities=PhraseTable.of(lists["entities"]),
        actions=PhraseTable.of(lists["actions"]),
        entity_values=(*lists["entities"], lists["fallbacks"]["entity"]),
        action_values=("praises", "criticises", *lists["actions"], lists["fallbacks"]["action"]),
        fallback_entity=lists["fallbacks"]["entity"],
        fallback_action=lists["fallbacks"]["action"],
        _valence=PhraseTable.of(_pairs(lists["valence"])),
        _negators=frozenset(lists["negators"]),
        _intensifiers=PhraseTable.of(_pairs(lists["intensifiers"])),
        _function_words=frozenset(lists["function_words"]),
    )
