"""Swap tests: another plan or other evidence at inference, and how far the output follows it.

A clip's output moves by d when its condition is swapped, and the exact mean given the observation moves by
d* when what the condition says takes the place of what the observation says. The share that was followed is

    sum <d, d*> / sum <d*, d*>,

over clips and standardised features: 0 where the condition is ignored, 1 where it is followed all the way,
negative where the output moves away from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from omg_graph.bench.study.exact import Exact, exact_posterior, informed_prior
from omg_graph.bench.study.measuring import NEGATIVE, POSITIVE, Seen, answer
from omg_graph.bench.study.settings import TARGET
from omg_graph.bench.study.world import World
from omg_graph.data.dataset import BoolArray, IntArray
from omg_graph.model.model import Model
from omg_graph.planner.schema import Plan
from omg_graph.seeding import derived_seed
from omg_graph.simulator import Content
from omg_graph.simulator.content import Float64Array

OPEN = 0.1
"""A clip leaves its sign open where the exact posterior gives either sign at least this much."""


@dataclass(frozen=True)
class Followed:
    """How far each clip's output followed a swap; zeros for clips that take no part."""

    along: Float64Array
    """(samples,): <d, d*>."""
    wanted: Float64Array
    """(samples,): <d*, d*>."""


@dataclass(frozen=True)
class Opposite:
    """The most probable content of either sign, for clips that leave the sign open."""

    rows: BoolArray
    """(samples,): which clips do."""
    positive: list[Content]
    negative: list[Content]


def opposite_contents(world: World, exact: Exact) -> Opposite:
    """What a clip most probably says if it is positive, and if it is negative."""
    sides = exact.degrees[:, POSITIVE].sum(axis=1), exact.degrees[:, NEGATIVE].sum(axis=1)
    degree = world.simulator.contents.degree
    best = [np.where(side[None, :], exact.weights, -1.0).argmax(axis=1) for side in (degree > 0, degree < 0)]
    items = world.simulator.contents.items
    return Opposite(
        np.minimum(*sides) >= OPEN, [items[k] for k in best[0].tolist()], [items[k] for k in best[1].tolist()]
    )


def swap_plans(world: World, model: Model, seen: Seen, exact: Exact) -> Followed:
    """The plan of the most probable positive content against that of the most probable negative one.

    Only clips take part whose observation leaves the sign open, so that either plan may be true; d* is the
    difference of the exact means given observation and plan.
    """
    found = opposite_contents(world, exact)
    chosen = np.flatnonzero(found.rows)
    part = seen.take(chosen)
    outputs, means = [], []
    for said in (found.positive, found.negative):
        items = [said[row] for row in chosen.tolist()]
        outputs.append(answer(model, part, plans=[plan_of(item) for item in items], draws=0).mean)
        given = exact_posterior(world, part.split, informed_prior(world, items)) if items else None
        means.append(outputs[-1] if given is None else given.mixture.mean())
    return followed(world, len(found.rows), chosen, outputs, means)


def swap_evidence(world: World, model: Model, seen: Seen, exact: Exact) -> Followed:
    """The evidence of another clip in the place of a clip's own.

    d* is the difference that it makes to the exact mean if the contents have the other clip's posterior
    weights, the observation staying as it is.
    """
    donors = other_clips(seen.split.ids)
    own = answer(model, seen, draws=0).mean
    evidence = {name: vectors[donors] for name, vectors in seen.evidence.items()}
    swapped = answer(model, seen, evidence=evidence, draws=0).mean
    means = [exact.mean_under(exact.weights[donors]), exact.mixture.mean()]
    everyone = np.arange(len(donors), dtype=np.int64)
    return followed(world, len(donors), everyone, [swapped, own], means)


def plan_of(content: Content) -> Plan:
    """What the annotator's schema says of a content."""
    return (content.entity, content.action, content.sentiment)


def other_clips(ids: Sequence[str]) -> IntArray:
    """(samples,): another clip for each clip, all of them in one random circle."""
    order = np.argsort(np.array([derived_seed("donors", sample_id) for sample_id in ids]), kind="stable")
    donors = np.empty(len(ids), dtype=np.int64)
    donors[order] = np.roll(order, 1)
    return donors


def followed(
    world: World, samples: int, rows: IntArray, outputs: list[Float64Array], means: list[Float64Array]
) -> Followed:
    """How far outputs moved along with the exact means.

    Args:
        world: for the units of the features.
        samples: how many clips there are.
        rows: which of them take part.
        outputs: with the swapped condition and without, (rows, features) each.
        means: the exact means likewise.
    """
    sd = world.simulator.moments[TARGET][1]
    moved, wanted = (outputs[0] - outputs[1]) / sd, (means[0] - means[1]) / sd
    along, squared = np.zeros(samples), np.zeros(samples)
    along[rows] = (moved * wanted).sum(axis=1)
    squared[rows] = (wanted**2).sum(axis=1)
    return Followed(along, squared)
