from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omg_graph.bench.study import measuring
from omg_graph.bench.study.exact import (
    Exact,
    exact_posterior,
    informed_prior,
    learn_details,
    likeliest_plans,
    prior_of_parts,
)
from omg_graph.bench.study.swaps import plan_of
from omg_graph.bench.study.world import World
from omg_graph.simulator import content_posterior


@pytest.mark.parametrize("name", ["modes", "rare-details", "compositions"])
def test_its_mean_has_the_least_error_of_all_that_are_tried(worlds: dict[str, World], name: str) -> None:
    """Taking the mean of another prior, or of no observation at all, is worse on clips of the world's own."""
    world = worlds[name]
    simulator = world.simulator
    drawn = simulator.sample(300, 1, seed=5)
    shown = measuring.show(drawn.split, ("audio",))
    exact = exact_posterior(world, shown)
    mean, sd = simulator.moments["vision"]

    def error(estimate: np.ndarray) -> float:
        return float((((estimate - drawn.split.arrays["vision"]) / sd) ** 2).mean())

    best = error(exact.mixture.mean())
    assert best < error(np.broadcast_to(mean, (len(drawn.split), len(mean))))
    assert best < error(exact.mean_under(np.roll(exact.weights, 1, axis=0)))
    uniform = np.full_like(exact.weights, 1 / exact.weights.shape[1])
    assert best < error(exact.mean_under(uniform))


def test_a_plan_rules_out_all_that_it_contradicts_and_leaves_details_open(worlds: dict[str, World]) -> None:
    world = worlds["rare-details"]
    items = world.simulator.contents.items
    truth = [items[k] for k in world.contents.tolist()]
    shown = measuring.show(world.test, ("audio",))
    knowing = exact_posterior(world, shown, informed_prior(world, truth))
    for row, content in enumerate(truth):
        likely = [items[k] for k in np.flatnonzero(knowing.weights[row] > 1e-12)]
        assert {(item.entity, item.action, item.degree) for item in likely} == {
            (content.entity, content.action, content.degree)
        }
    # between details the plan changes nothing
    free = content_posterior(world.simulator, shown).weights
    given = informed_prior(world, truth) > 0
    kept = np.where(given, free, 0.0)
    np.testing.assert_allclose(knowing.weights, kept / kept.sum(axis=1, keepdims=True), atol=1e-12)


def test_knowing_the_plan_makes_the_exact_mean_better(worlds: dict[str, World]) -> None:
    world = worlds["modes"]
    drawn = world.simulator.sample(300, 1, seed=6)
    shown = measuring.show(drawn.split, ("audio",))
    said = [world.simulator.content(k) for k in drawn.contents.tolist()]
    truth = drawn.split.arrays["vision"]
    sd = world.simulator.moments["vision"][1]
    blind = exact_posterior(world, shown).mixture.mean()
    knowing = exact_posterior(world, shown, informed_prior(world, said)).mixture.mean()
    errors = [(((estimate - truth) / sd) ** 2).mean() for estimate in (knowing, blind)]
    assert errors[0] < 0.7 * errors[1]


def test_a_point_estimate_is_wrong_between_the_modes(worlds: dict[str, World]) -> None:
    """Where the voice leaves the sign open, the mean is far less likely than what most probably is there."""
    world = worlds["modes"]
    shown = measuring.show(world.simulator.sample(200, 1, seed=7).split, ("audio",))
    exact = exact_posterior(world, shown)
    positive = exact.degrees[:, measuring.POSITIVE].sum(axis=1)
    row = int(np.abs(positive - 0.5).argmin())
    means, weights = exact.mixture.means(row), exact.weights[row]
    root = np.linalg.cholesky(exact.mixture.covariance(row))

    def log_density(place: np.ndarray) -> float:
        away = np.linalg.solve(root, (means - place).T)
        return float(np.log(weights @ np.exp(-0.5 * (away**2).sum(axis=0))))

    assert log_density(exact.mixture.mean()[row]) < log_density(means[weights.argmax()]) - 1


def test_the_parts_prior_is_the_product_of_how_often_parts_come(worlds: dict[str, World]) -> None:
    world = worlds["compositions"]
    items, prior = world.simulator.contents.items, prior_of_parts(world)
    clips = [items[k] for k in world.trained.tolist()]
    weights = [
        (1 + sum(clip.entity == item.entity for clip in clips))
        * (1 + sum(clip.action == item.action for clip in clips))
        * (1 + sum(clip.degree == item.degree for clip in clips))
        for item in items
    ]
    np.testing.assert_allclose(prior, np.array(weights) / sum(weights))
    unseen = world.setting.unseen_contents(items)
    assert 0 < prior[unseen].sum() < 1  # contents that no training clip has count as any other


def test_knowing_parts_alone_costs_something(worlds: dict[str, World]) -> None:
    world = worlds["compositions"]
    drawn = world.simulator.sample(400, 1, seed=8)
    shown = measuring.show(drawn.split, ("text",))
    sd = world.simulator.moments["vision"][1]
    errors = [
        (
            (
                ((exact_posterior(world, shown, prior).mixture.mean() - drawn.split.arrays["vision"]) / sd)
                ** 2
            ).mean()
        )
        for prior in (None, prior_of_parts(world))
    ]
    assert errors[0] < errors[1]


def test_bayes_rule_takes_each_field_for_itself(worlds: dict[str, World]) -> None:
    world = worlds["compositions"]
    contents = world.simulator.contents
    mixture = exact_posterior(world, measuring.show(world.test, ("text",))).mixture
    rows = np.arange(len(world.contents))
    sure = np.zeros_like(mixture.weights)
    sure[rows, world.contents] = 1.0
    truth = [plan_of(contents.items[k]) for k in world.contents.tolist()]
    assert likeliest_plans(world, Exact(replace(mixture, weights=sure), np.zeros((0, 7)))) == truth
    # the story is praised, or criticised, or something else is said of the music: the most probable content
    # is none with the most probable entity
    split = np.zeros_like(mixture.weights)
    for weight, entity, action in (
        (0.3, "story", "praises"),
        (0.3, "story", "criticises"),
        (0.4, "music", "describes"),
    ):
        split[
            :, next(k for k, i in enumerate(contents.items) if (i.entity, i.action) == (entity, action))
        ] = weight
    plans = likeliest_plans(world, Exact(replace(mixture, weights=split), np.zeros((0, 7))))
    assert {plan[:2] for plan in plans} == {("story", "describes")}


def test_details_are_learned_from_the_entries_that_have_them(hashed_world: World) -> None:
    """With more clips of each detail their patterns come closer, and nothing else is changed."""
    world = hashed_world
    known, true = learn_details(world).channels["vision"], world.simulator.channels["vision"]
    contents = world.simulator.contents
    count = sum(contents.detail_indicator[part.contents].sum(axis=0) for part in world.entries)
    off = ((known.content_means - true.content_means) / true.noise_sd) ** 2
    by_detail = contents.detail_indicator.T @ off.mean(axis=1) / contents.detail_indicator.sum(axis=0)
    assert by_detail[count >= 8].mean() < 0.6 * by_detail[count <= 2].mean()
    assert by_detail[count >= 8].mean() < 0.5
    # between contents of one detail the differences are the world's own
    same = [k for k, item in enumerate(contents.items) if item.detail == 5]
    np.testing.assert_allclose(
        known.content_means[same] - known.content_means[same[0]],
        true.content_means[same] - true.content_means[same[0]],
        atol=1e-9,
    )
