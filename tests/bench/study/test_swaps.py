from __future__ import annotations

import numpy as np
import pytest

from omg_graph.bench.study import measuring
from omg_graph.bench.study.exact import exact_posterior
from omg_graph.bench.study.swaps import followed, opposite_contents, other_clips
from omg_graph.bench.study.world import World


def share(found: object) -> float:
    return float(found.along.sum() / found.wanted.sum())  # type: ignore[attr-defined]


def test_zero_is_ignored_and_one_is_followed(worlds: dict[str, World]) -> None:
    world = worlds["modes"]
    rng = np.random.default_rng(0)
    before, after, noise = rng.standard_normal((3, 5, 12))
    rows = np.array([0, 2, 3, 4, 7])
    means = [after, before]
    assert share(followed(world, 8, rows, [after, before], means)) == pytest.approx(1.0)
    assert share(followed(world, 8, rows, [noise, noise], means)) == 0.0
    half = before + 0.5 * (after - before)
    assert share(followed(world, 8, rows, [half, before], means)) == pytest.approx(0.5)
    assert share(followed(world, 8, rows, [before, after], means)) == pytest.approx(-1.0)
    apart = followed(world, 8, rows, [after, before], means)
    assert set(np.flatnonzero(apart.wanted)) == set(rows)


def test_what_is_at_a_right_angle_to_the_wanted_way_does_not_count(worlds: dict[str, World]) -> None:
    world = worlds["modes"]
    sd = world.simulator.moments["vision"][1]
    wanted, sideways = np.zeros((2, 1, 12))
    wanted[0, 0], sideways[0, 1] = sd[0], 5 * sd[1]
    nothing = np.zeros((1, 12))
    found = followed(world, 1, np.array([0]), [wanted + sideways, nothing], [wanted, nothing])
    assert share(found) == pytest.approx(1.0)
    np.testing.assert_allclose(found.wanted, 1.0)


def test_everyone_gets_another_clips_evidence() -> None:
    ids = [f"clip{number}" for number in range(9)]
    donors = other_clips(ids)
    assert sorted(donors.tolist()) == list(range(9))
    assert (donors != np.arange(9)).all()
    np.testing.assert_array_equal(donors, other_clips(ids))


def test_opposites_are_of_either_sign_and_only_where_both_are_possible(worlds: dict[str, World]) -> None:
    world = worlds["modes"]
    exact = exact_posterior(world, measuring.show(world.test, ("text", "audio")))
    found = opposite_contents(world, exact)
    assert 0 < found.rows.sum() < len(found.rows)
    assert all(content.degree > 0 for content in found.positive)
    assert all(content.degree < 0 for content in found.negative)
    certain = exact.degrees[:, measuring.POSITIVE].sum(axis=1) > 0.999
    assert certain.any()
    assert not found.rows[certain].any()
