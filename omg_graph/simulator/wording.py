"""Every sentence that can be said, with p(sentence | content) exact."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from omg_graph.simulator.content import Content, Contents, Float64Array
from omg_graph.simulator.recipe import EntityPhrase, SentenceRecipe, sentence_recipe

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Sentences:
    """All distinct sentences and how likely each content makes them."""

    texts: tuple[str, ...]
    probabilities: Float64Array
    """p(sentence | content), (contents, sentences), rows sum to 1."""


def enumerate_sentences(contents: Contents) -> Sentences:
    """Lists the sentences in a fixed order; the same words from several contents are one sentence."""
    recipe = sentence_recipe()
    # a detail is never put into words: contents that differ in it alone are worded alike
    worded = {content: _sentences_of(recipe, content) for content in map(_spoken, contents.items)}
    rows = [worded[_spoken(content)] for content in contents.items]
    column = {text: i for i, text in enumerate(dict.fromkeys(text for row in rows for text in row))}
    probabilities = np.zeros((len(rows), len(column)))
    for k, row in enumerate(rows):
        for text, probability in row.items():
            probabilities[k, column[text]] = probability
    return Sentences(tuple(column), probabilities)


def _spoken(content: Content) -> Content:
    return replace(content, detail=None)


def _sentences_of(recipe: SentenceRecipe, content: Content) -> dict[str, float]:
    found: defaultdict[str, float] = defaultdict(float)
    named = _normalised(dict.fromkeys(recipe.entities[content.entity], 1.0))
    vague = _normalised(dict.fromkeys(recipe.vague, 1.0))
    wording = recipe.actions[content.action]
    phrases = _normalised({text: by.get(content.degree, 0.0) for text, by in wording.phrases.items()})
    lines = _normalised(
        {
            line.say: line.degrees.get(content.degree, 0.0)
            for line in recipe.open_lines
            if content.action in line.actions
        }
    )
    open_share = recipe.open_share if lines else 0.0
    patterns = {line: open_share * p for line, p in lines.items()}
    for frame in wording.frames:
        for phrase, p in phrases.items():
            patterns[frame.replace("{phrase}", phrase)] = (1 - open_share) * p / len(wording.frames)
    for share, names in ((1 - recipe.vague_share, named), (recipe.vague_share, vague)):
        for name, p_name in names.items():
            for pattern, p_pattern in patterns.items():
                found[_fill(pattern, name)] += share * p_name * p_pattern
    return dict(found)


def _normalised(weights: dict[_Key, float]) -> dict[_Key, float]:
    total = sum(weights.values())
    return {key: weight / total for key, weight in weights.items() if weight > 0}


def _fill(pattern: str, name: EntityPhrase) -> str:
    return pattern.format(
        entity=name.say,
        Entity=name.say[0].upper() + name.say[1:],
        was="were" if name.plural else "was",
    )
