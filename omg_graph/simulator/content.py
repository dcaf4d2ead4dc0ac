"""What a clip can say, as a finite list with a prior: entity, action and the sentiment's degree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from omg_graph.data.dataset import IntArray
from omg_graph.errors import ConfigError
from omg_graph.simulator.recipe import ContentRecipe, content_recipe

Float64Array = npt.NDArray[np.float64]

DEGREES = np.arange(-3, 4)
"""The seven degrees of sentiment, strongly negative to strongly positive."""


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
    recipe = content_recipe()
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
            f"{', '.join(names) or 'none'} came: change the setting '{what}'"
        )
    return names
