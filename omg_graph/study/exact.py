"""What the exact posterior makes of test clips: mean, draws and label, given what is observed and more."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from omg_graph.samples.dataset import IntArray, Split
from omg_graph.simulator import AffectSimulator, Content, GaussianMixture, content_posterior, missing_mixture
from omg_graph.simulator.content import Float64Array
from omg_graph.study.settings import TARGET
from omg_graph.study.world import World


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
        prior: of each clip, where more is known than what it was drawn from, (samples, contents).
        simulator: the world as somebody knows it; as it is if None.
    """
    known, simulator = world.test_prior if prior is None else prior, simulator or world.simulator
    mixture = missing_mixture(simulator, shown, TARGET, prior=known)
    degrees = content_posterior(simulator, shown, known).degree_probabilities()
    return Exact(mixture, degrees)


def learn_details(world: World) -> AffectSimulator:
    """The same world as someone knows it who was told all of it but how details sound and look.

    Every detail's pattern is the posterior mean of its deviations in the clips of the knowledge base, whose
    contents are told too: with n clips of it, their sum over n plus the ratio of the variance within to that
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


def told(world: World, said: list[Content]) -> Float64Array:
    """(samples, contents): the prior of someone who knows entity, action and degree, and no detail."""
    items = world.simulator.contents.items
    numbers = _without_details((*items, *said))
    same = numbers[None, : len(items)] == numbers[len(items) :, None]
    return np.where(same, world.test_prior[None, :], 0.0)


def _without_details(items: Sequence[Content]) -> IntArray:
    """(contents,): a number for what each of them says besides its detail."""
    places: dict[Content, int] = {}
    return np.array([places.setdefault(replace(item, detail=None), len(places)) for item in items])
