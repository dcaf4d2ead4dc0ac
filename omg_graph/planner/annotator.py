"""Plans for training data without an LLM: rules over word lists (``prompts/annotator_en.yaml``)."""

from __future__ import annotations

import dataclasses
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from omg_graph.errors import DataError, SchemaError
from omg_graph.planner.schema import Field, Plan, Schema

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

    _phrases: dict[tuple[str, ...], Any] = dataclasses.field(default_factory=dict)
    _stems: dict[str, Any] = dataclasses.field(default_factory=dict)
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


ENTITY = "Entity"
ACTION = "Action"

GENERIC_ENTITY = "whole"
"""Means the work as such: used only where nothing more specific is named."""

JUDGING_VALENCE = 0.9
"""From this valence on, a remark without another cue praises; from minus this on, it criticises."""

MIN_KNOWN_SHARE = 0.2
"""A text of which fewer words are function words of the language isn't in that language."""

MIN_JUDGED_WORDS = 5
"""Shorter texts say too little to tell their language, unless their script does."""

MAX_UNREAD_SHARE = 0.3
"""With more texts than this that can't be read, the corpus is refused."""


class UnreadableTextError(DataError):
    """Transcripts in a language that the annotator has no word lists for, or none at all."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}: use --annotator labels")
        self.reason = reason


class LexicalAnnotator:
    """Writes a plan for each text and label, by rules.

    - Entity: the entity with the most cues in the text, the first of them on a tie; "whole" only if nothing
      else has a cue; "something" if there is none.
    - Action: warns, recommends, compares or hesitates by their cues, in this order; else praises or
      criticises by the text's valence; else describes. The label isn't looked at, so an action says what
      the words say.
    - The target: the value nearest to the label; without a label, and with degrees, the value nearest to
      the text's valence.
    A text that is None, or that the annotator can't read, is "something" that somebody "describes".
    """

    def __init__(self, schema: Schema, lexicon: Lexicon | None = None) -> None:
        """Make an annotator for a schema whose fields are Entity, Action and a target, or some of them.

        Raises:
            SchemaError: if there is a field that no rule fills.
        """
        self.schema = schema
        self.lexicon = lexicon or english()
        known = {ENTITY: self.lexicon.entity_values, ACTION: self.lexicon.action_values}
        for field in schema.fields:
            if field.name == schema.target:
                continue
            if field.name not in known:
                raise SchemaError(
                    f"the lexical annotator fills {ENTITY}, {ACTION} and the target, not {field.name!r}: "
                    f"make it the target of schema {schema.name!r}, or leave it out"
                )
            self._check_values(field, known[field.name])

    def _check_values(self, field: Field, known: tuple[str, ...]) -> None:
        values = field.values or ()
        fallback = known[-1]
        odd = [value for value in values if value not in known]
        if odd or fallback not in values:
            fault = f"{odd[0]!r} is not one of them" if odd else f"{fallback!r} is not among the schema's"
            raise SchemaError(
                f"the lexical annotator's values of {field.name} are {', '.join(known)}; {fault}: "
                "change the schema's values"
            )

    def unread(self, raw_text: Sequence[str | None]) -> npt.NDArray[np.bool_]:
        """Which texts are in another language or script, (samples,); None counts as read."""
        return np.array([text is not None and self._unreadable(text) for text in raw_text], dtype=np.bool_)

    def check_language(self, raw_text: Sequence[str | None]) -> None:
        """Refuse a corpus in another language.

        Raises:
            UnreadableTextError: if too many of the texts can't be read.
        """
        texts = [text for text in raw_text if text is not None and text.strip()]
        if not texts:
            raise UnreadableTextError(
                f"the lexical annotator reads {self.lexicon.language} text, and there is none"
            )
        share = float(self.unread(texts).mean())
        if self._recognised(texts) < MIN_KNOWN_SHARE:
            share = 1.0  # texts too short to judge one by one, and none of their words is known
        if share > MAX_UNREAD_SHARE:
            raise UnreadableTextError(
                f"the lexical annotator reads {self.lexicon.language} text, and could not read {share:.0%} "
                f"of the {len(texts)} texts here"
            )

    def _recognised(self, texts: Sequence[str]) -> float:
        """The share of all words that are on any of the language's lists."""
        words = [word for text in texts for word in words_of(text)]
        return self.lexicon.known_share(words) + self.lexicon.cue_share(words)

    def annotate(
        self, raw_text: Sequence[str | None], labels: Sequence[float] | Sequence[str | None] | None = None
    ) -> list[Plan | None]:
        """A plan for each sample; None where neither label nor words give its target.

        Args:
            raw_text: the transcripts, None where there is none.
            labels: numbers for a target with degrees (NaN: none), the data's class names for a target of
                classes (None: none).

        Raises:
            DataError: if there isn't a label for each text.
        """
        if labels is not None and len(labels) != len(raw_text):
            raise DataError(f"expected a label for each of {len(raw_text)} texts, got {len(labels)}")
        given = [None] * len(raw_text) if labels is None else list(labels)
        unread = self.unread(raw_text)
        return [
            self._plan(None if lost else text, label)
            for text, label, lost in zip(raw_text, given, unread, strict=True)
        ]

    def entity(self, words: Sequence[str]) -> str:
        """What the words are about."""
        cues = [value for _, _, value in self.lexicon.entities.find(words) if self._offers(ENTITY, value)]
        particular = [value for value in cues if value != GENERIC_ENTITY] or cues
        # Of a Counter's entries with the same count the first seen comes first.
        return Counter(particular).most_common(1)[0][0] if particular else self.lexicon.fallback_entity

    def action(self, words: Sequence[str]) -> str:
        """What the speaker does, by the words alone."""
        cued = {value for _, _, value in self.lexicon.actions.find(words)}
        for value in ("warns", "recommends", "compares"):
            if value in cued and self._offers(ACTION, value):
                return value
        valence = self.lexicon.valence(words)
        # Lukewarm words are often only a manner of speaking: a clear judgement goes before them.
        if "hesitates" in cued and abs(valence) < 2 * JUDGING_VALENCE and self._offers(ACTION, "hesitates"):
            return "hesitates"
        if valence >= JUDGING_VALENCE and self._offers(ACTION, "praises"):
            return "praises"
        if valence <= -JUDGING_VALENCE and self._offers(ACTION, "criticises"):
            return "criticises"
        return self.lexicon.fallback_action

    def _offers(self, field_name: str, value: str) -> bool:
        """Whether the schema has this field and lets it take this value."""
        return any(field.name == field_name and value in (field.values or ()) for field in self.schema.fields)

    def read(self, raw_text: Sequence[str | None]) -> list[dict[str, str]]:
        """What the texts alone tell, field by field; a target that the words don't tell is left out."""
        unread = self.unread(raw_text)
        return [
            self._values(None if lost else text, None) for text, lost in zip(raw_text, unread, strict=True)
        ]

    def _plan(self, text: str | None, label: float | str | None) -> Plan | None:
        values = self._values(text, label)
        return tuple(values.values()) if len(values) == len(self.schema.fields) else None

    def _values(self, text: str | None, label: float | str | None) -> dict[str, str]:
        words = [] if text is None else words_of(text)
        values = {}
        for field in self.schema.fields:
            if field.name == self.schema.target:
                value = self._target(words, label)
            else:
                value = self.entity(words) if field.name == ENTITY else self.action(words)
            if value is not None:
                values[field.name] = value
        return values

    def _target(self, words: Sequence[str], label: float | str | None) -> str | None:
        degrees = self.schema.degrees
        if degrees is None:
            return self.schema.value_of(str(label)) if label is not None else None
        if label is not None and math.isfinite(float(label)):
            return self.schema.value_of(float(label))
        if not words:
            return None
        # The word lists' valence goes to 3; the label's units may not.
        return self.schema.nearest_value(self.lexicon.valence(words) * max(degrees.values()) / 3)

    def _unreadable(self, text: str) -> bool:
        letters = [character for character in text if character.isalpha()]
        if not letters:
            return False
        latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
        if latin < 0.7 * len(letters):
            return True
        words = words_of(text)
        return len(words) >= MIN_JUDGED_WORDS and self.lexicon.known_share(words) < MIN_KNOWN_SHARE
