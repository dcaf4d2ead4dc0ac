"""What the exact posterior makes of test clips: mean, draws and label, given what is observed and more."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from omg_graph.bench.study.settings import TARGET
from omg_graph.bench.study.world import World
from omg_graph.data.dataset import IntArray, Split
from omg_graph.planner.schema import Plan
from omg_graph.simulator import AffectSimulator, Content, GaussianMixture, content_posterior, missing_mixture
from omg_graph.simulator.content import Float64Array


@dataclass(frozen=True)
class Exact:
    """The exact posterior of one pattern's test clips."""

    mixture: GaussianMixture
    degrees: Float64Array
    """(samples, 7): p(degree | observed), from strongly negative to strongly positive."""

    @property
    def weights(self) -> Float64Array:
        """(samples, contents): p(content | observed)."""
        return self.mixture.weights

    def mean_under(self, weights: Float64Array) -> Float64Array:
        """(samples, features): the mean if the contents had these weights, the observation as it is."""
        return replace(self.mixture, weights=weights).mean()


def exact_posterior(
    world: World,
    shown: Split,
    prior: Float64Array | None = None,
    simulator: AffectSimulator | None = None,
) -> Exact:
    """p(content | observed) and the mixture that it weighs.

    Args:
        world: whose test clips these are.
        shown: the clips as they are observed.
        prior: p(content) as somebody knows it, (contents,), or of each clip, (samples, contents); the
            world's own, which test clips are drawn from, if None.
        simulator: the world as somebody knows it; as it is if None.
    """
    simulator = simulator or world.simulator
    mixture = missing_mixture(simulator, shown, TARGET, prior=prior)
    degrees = content_posterior(simulator, shown, prior).degree_probabilities()
    return Exact(mixture, degrees)


def learn_details(world: World) -> AffectSimulator:
    """The same world with the sound and look of details learned from clips, and all else known.

    Every detail's pattern is the posterior mean of its deviations in the clips of the knowledge base, whose
    contents are known too: with n clips of it, their sum over n plus the ratio of the variance within to that
    of the patterns. What is left of its uncertainty isn't counted.
    """
    simulator, contents = world.simulator, world.simulator.contents
    known = copy(simulator)
    said = np.concatenate([part.contents for part in world.entries])
    seen = contents.detail_indicator[said]
    spoken = _without_details(contents.items)
    of_spoken = np.eye(spoken.max() + 1)[spoken]
    share = (contents.prior[:, None] * of_spoken).sum(axis=0)
    known.channels = {}
    for name, channel in simulator.channels.items():
        # what a content says without its detail, and how far each detail is from that
        base = of_spoken @ ((contents.prior[:, None] * of_spoken).T @ channel.content_means / share[:, None])
        pattern_variance = contents.prior @ (channel.content_means - base) ** 2
        within = (
            (channel.speaker_loadings**2).sum(axis=1)
            + (channel.recording_loadings**2).sum(axis=1)
            + channel.noise_sd**2
        )
        clips = np.concatenate([part.split.arrays[name] for part in world.entries]).astype(np.float64)
        learned = seen.T @ (clips - base[said]) / (seen.sum(axis=0)[:, None] + within / pattern_variance)
        known.channels[name] = replace(channel, content_means=base + contents.detail_indicator @ learned)
    return known


def prior_of_parts(world: World) -> Float64Array:
    """(contents,): the prior as far as training clips tell it of contents that none of them has.

    The product of how often entity, action and degree come in them, each counted once more than it does, as
    if they were independent.
    """
    contents = world.simulator.contents
    product = np.ones(len(contents))
    for indicator in (contents.entity_indicator, contents.action_indicator, contents.degree_indicator):
        product *= indicator @ (indicator[world.trained].sum(axis=0) + 1)
    return np.asarray(product / product.sum())


def likeliest_plans(world: World, exact: Exact) -> list[Plan]:
    """Bayes's rule, field by field: the entity, action and degree that are each the most probable."""
    contents = world.simulator.contents
    fields = (
        (contents.entity_indicator, contents.entities),
        (contents.action_indicator, contents.actions),
        (contents.degree_indicator, contents.words),
    )
    chosen = [
        [names[place] for place in (exact.weights @ indicator).argmax(axis=1).tolist()]
        for indicator, names in fields
    ]
    return list(zip(*chosen, strict=True))


def informed_prior(world: World, said: list[Content]) -> Float64Array:
    """(samples, contents): the prior of someone who knows entity, action and degree, and no detail."""
    items = world.simulator.contents.items
    numbers = _without_details((*items, *said))
    same = numbers[None, : len(items)] == numbers[len(items) :, None]
    return np.where(same, world.simulator.contents.prior[None, :], 0.0)


def _without_details(items: Sequence[Content]) -> IntArray:
    """(contents,): a number for what each of them says besides its detail."""
    places: dict[Content, int] = {}
    return np.array([places.setdefault(replace(item, detail=None), len(places)) for item in items])
