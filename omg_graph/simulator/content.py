"""What a clip can say, as a finite list with a prior, and the sentences that say it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import BaseModel, ConfigDict

from omg_graph.data.dataset import IntArray
from omg_graph.errors import ConfigError

Float64Array = npt.NDArray[np.float64]

DEGREES = np.arange(-3, 4)
"""The seven degrees of sentiment, strongly negative to strongly positive."""


class Recipe(BaseModel):
    """A YAML file beside this one, or a part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@cache
def read_recipe(name: str) -> Any:
    """One of the YAML files beside this one."""
    return yaml.safe_load(files("omg_graph.simulator").joinpath(name).read_text(encoding="utf-8"))


class DegreeRecipe(Recipe):
    """One degree of sentiment."""

    word: str
    weight: float


class EntityRecipe(Recipe):
    """One entity that a clip can be about."""

    weight: float
    lean: float


class ContentRecipe(Recipe):
    """``content.yaml``: the prior over what a clip says."""

    degrees: dict[int, DegreeRecipe]
    actions: dict[str, dict[int, float]]
    entities: dict[str, EntityRecipe]


class EntityPhrase(Recipe):
    """A way to name an entity."""

    say: str
    plural: bool = False


class ActionWording(Recipe):
    """How an action is put: frames, and the phrases that fill them with their weight per degree."""

    frames: tuple[str, ...]
    phrases: dict[str, dict[int, float]]


class OpenLine(Recipe):
    """A line that can be said with several sentiments."""

    say: str
    actions: tuple[str, ...]
    degrees: dict[int, float]


class SentenceRecipe(Recipe):
    """``sentences.yaml``: the words."""

    vague_share: float
    open_share: float
    entities: dict[str, tuple[EntityPhrase, ...]]
    vague: tuple[EntityPhrase, ...]
    actions: dict[str, ActionWording]
    open_lines: tuple[OpenLine, ...]


@dataclass(frozen=True)
class Content:
    """One thing that a clip can say."""

    entity: str
    action: str
    degree: int
    sentiment: str
    """The degree in words."""
    detail: int | None = None
    """Which detail, from 0, where there are any: voice and face show it, words don't."""


@dataclass(frozen=True)
class Contents:
    """All contents of positive probability, and the prior over them."""

    items: tuple[Content, ...]
    prior: Float64Array
    """p(content), (contents,), sums to 1."""
    entities: tuple[str, ...]
    actions: tuple[str, ...]
    words: tuple[str, ...]
    """The seven sentiment words, in the order of ``DEGREES``."""
    details: int = 0
    """How many details there are."""

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def degree(self) -> IntArray:
        """(contents,), -3 to 3."""
        return np.array([item.degree for item in self.items], dtype=np.int64)

    @cached_property
    def entity_indicator(self) -> Float64Array:
        """(contents, entities), one-hot."""
        return _indicator([item.entity for item in self.items], self.entities)

    @cached_property
    def action_indicator(self) -> Float64Array:
        """(contents, actions), one-hot."""
        return _indicator([item.action for item in self.items], self.actions)

    @cached_property
    def detail_indicator(self) -> Float64Array:
        """(contents, details), one-hot; no columns where there are no details."""
        return np.array([[float(item.detail == i) for i in range(self.details)] for item in self.items])

    @cached_property
    def degree_indicator(self) -> Float64Array:
        """(contents, 7), one-hot."""
        return np.asarray(self.degree[:, None] == DEGREES[None, :], dtype=np.float64)


def _indicator(values: Iterable[str], names: tuple[str, ...]) -> Float64Array:
    return np.array([[float(value == name) for name in names] for value in values])


def enumerate_contents(
    entities: tuple[str, ...] | None = None, actions: tuple[str, ...] | None = None, details: int = 0
) -> Contents:
    """Lists the contents and their prior, p(degree) p(action | degree) p(entity | degree) p(detail).

    Args:
        entities: a subset of the recipe's; all of them when None.
        actions: likewise. A degree that none of them allows is left out.
        details: how many details; each is as likely as any other, whatever else is said. 0 for none.

    Raises:
        ConfigError: if a name is unknown or given twice, or none is given.
    """
    recipe = ContentRecipe.model_validate(read_recipe("content.yaml"))
    entities = _chosen("entities", entities, tuple(recipe.entities))
    actions = _chosen("actions", actions, tuple(recipe.actions))
    items, weights = [], []
    for degree in DEGREES.tolist():
        of_action = {name: recipe.actions[name].get(degree, 0.0) for name in actions}
        of_entity = {name: _entity_weight(recipe, name, degree) for name in entities}
        total = sum(of_action.values()) * sum(of_entity.values())
        for entity in entities:
            for action in actions:
                if of_action[action] > 0:
                    items.append(Content(entity, action, degree, recipe.degrees[degree].word))
                    weights.append(
                        recipe.degrees[degree].weight * of_action[action] * of_entity[entity] / total
                    )
    prior = np.array(weights)
    words = tuple(recipe.degrees[degree].word for degree in DEGREES.tolist())
    if details:
        items = [replace(item, detail=detail) for item in items for detail in range(details)]
        prior = np.repeat(prior, details)
    return Contents(tuple(items), prior / prior.sum(), entities, actions, words, details)


def _entity_weight(recipe: ContentRecipe, name: str, degree: int) -> float:
    entity = recipe.entities[name]
    return float(entity.weight * np.exp(entity.lean * degree / 3))


def _chosen(what: str, names: tuple[str, ...] | None, known: tuple[str, ...]) -> tuple[str, ...]:
    if names is None:
        return known
    if not names or len(set(names)) < len(names) or not set(names) <= set(known):
        raise ConfigError(
            f"the simulator's {what} must be different names among {', '.join(known)}; "
            f"got {', '.join(names) or 'none'}: change the setting '{what}'"
        )
    return names


_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class Sentences:
    """All distinct sentences and how likely each content makes them."""

    texts: tuple[str, ...]
    probabilities: Float64Array
    """p(sentence | content), (contents, sentences), rows sum to 1."""


def enumerate_sentences(contents: Contents) -> Sentences:
    """Lists the sentences in a fixed order; the same words from several contents are one sentence."""
    recipe = SentenceRecipe.model_validate(read_recipe("sentences.yaml"))
    # a detail is never worded: contents that differ in it alone have the same words
    spoken = [replace(content, detail=None) for content in contents.items]
    worded = {content: _sentences_of(recipe, content) for content in dict.fromkeys(spoken)}
    rows = [worded[content] for content in spoken]
    column = {text: i for i, text in enumerate(dict.fromkeys(text for row in rows for text in row))}
    probabilities = np.zeros((len(rows), len(column)))
    for k, row in enumerate(rows):
        probabilities[k, [column[text] for text in row]] = list(row.values())
    return Sentences(tuple(column), probabilities)


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
