"""Missing patterns and folds for training."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_graph.data.patterns import pattern_pool
from omg_graph.training.folds import group_folds


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 6), st.integers(1, 40))
def test_patterns_show_some_of_what_is_there(seed: int, rows: int, modalities: int, limit: int) -> None:
    observed = np.random.default_rng(seed).random((rows, modalities)) < 0.6
    observed[:, 0] |= ~observed.any(axis=1)
    pool = pattern_pool(observed, tuple(map(str, range(rows))), limit, seed)
    assert pool.visible.any(axis=1).all()
    assert not (pool.visible & ~observed[pool.rows]).any()
    for row, has in enumerate(observed):
        mine = pool.visible[pool.starts[row] : pool.starts[row + 1]]
        assert len({pattern.tobytes() for pattern in mine}) == len(mine) == min(limit, 2 ** has.sum() - 1)
        assert (pool.rows[pool.starts[row] : pool.starts[row + 1]] == row).all()


def test_a_row_s_patterns_are_its_own() -> None:
    """They depend on (seed, id), not on the rows beside it."""
    observed = np.ones((3, 8), dtype=np.bool_)
    whole = pattern_pool(observed, ("a", "b", "c"), 5, seed=1)
    alone = pattern_pool(observed[:1], ("b",), 5, seed=1)
    np.testing.assert_array_equal(whole.visible[5:10], alone.visible)
    assert (pattern_pool(observed[:1], ("b",), 5, seed=2).visible != alone.visible).any()


def test_an_epoch_takes_every_row_once_with_patterns_drawn_anew() -> None:
    pool = pattern_pool(np.ones((20, 3), dtype=np.bool_), tuple(map(str, range(20))), 7, seed=0)
    first, second = pool.draw(0, 0), pool.draw(0, 1)
    for drawn in (first, second):
        assert sorted(pool.rows[drawn]) == list(range(20))
    assert (np.sort(first) != np.sort(second)).any()
    np.testing.assert_array_equal(pool.draw(0, 1), second)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=60), st.integers(2, 6))
def test_groups_stay_whole(names: list[str], count: int) -> None:
    folds = group_folds(tuple(names), count, seed=3)
    assert folds.min() >= 0
    assert folds.max() < count
    if len(set(names)) > 1:
        assert all(len(set(folds[np.array(names) == name])) == 1 for name in names)
        assert len(set(folds.tolist())) == min(count, len(set(names)))


def test_one_group_is_split_by_row() -> None:
    folds = group_folds(("a",) * 10, 5, seed=0)
    assert np.bincount(folds).tolist() == [2] * 5


def test_folds_are_even() -> None:
    groups = tuple(f"g{number}" for number in range(30) for _ in range(1 + number % 5))
    counts = np.bincount(group_folds(groups, 5, seed=1))
    assert counts.max() - counts.min() <= 5
    assert counts.sum() == len(groups)


@pytest.mark.parametrize("size", [19, 20, 25])
def test_many_modalities(size: int) -> None:
    pool = pattern_pool(np.ones((1, size), dtype=np.bool_), ("a",), 30, seed=0)
    assert len(pool) == 30
    shown = pool.visible.sum(axis=1)
    assert shown.min() < size / 3 < 2 * size / 3 < shown.max()


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_spaced_pairs_meet_every_pattern(modalities: int) -> None:
    """Whatever the spacing: one that divides the patterns of a row would find the same one in every row."""
    pool = pattern_pool(np.ones((210, modalities), dtype=np.bool_), tuple(map(str, range(210))), 24, seed=0)
    everything = np.arange(len(pool), dtype=np.int64)
    for wanted in (len(pool), len(pool) // 3, len(pool) // 5, len(pool) // 7):
        chosen = pool.spaced(everything, wanted)
        assert len(chosen) <= len(pool)
        assert len(np.unique(pool.visible[chosen], axis=0)) == 2**modalities - 1
    np.testing.assert_array_equal(pool.spaced(everything, 10 * len(pool)), everything)


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.7])
def test_patterns_that_realise_a_missing_rate(rate: float) -> None:
    random = np.random.default_rng(3)
    observed = random.random((400, 6)) > 0.1
    observed[:, 0] = True
    pool = pattern_pool(observed, tuple(map(str, range(400))), 24, 0).at_rate(rate)
    assert pool.missing_rate == pytest.approx(rate, abs=1e-6)
    drawn = np.concatenate([pool.draw(0, epoch) for epoch in range(20)])
    assert (pool.rows[drawn].reshape(20, -1) != np.arange(400)).any()  # in random order
    assert all(sorted(pool.rows[pool.draw(0, epoch)]) == list(range(400)) for epoch in range(3))
    assert 1 - pool.visible[drawn].mean() == pytest.approx(rate, abs=0.01)


def test_slots_are_dropped_as_if_each_were_by_itself() -> None:
    """With all patterns at hand the chances are those of independent drops that leave something."""
    pool = pattern_pool(np.ones((1, 3), bool), ("a",), 24, 0).at_rate(0.5)
    assert pool.chances is not None
    hidden = 3 - pool.visible.sum(axis=1)
    odds = pool.chances[hidden == 1][0] / pool.chances[hidden == 0][0]
    assert pool.chances[hidden == 2] == pytest.approx(np.full(3, pool.chances[hidden == 0][0] * odds**2))
    assert pool.chances.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("rate", "reached"), [(0.0, 0.0), (0.9, 2 / 3), (1.0, 2 / 3)])
def test_a_rate_out_of_reach_is_the_nearest(rate: float, reached: float) -> None:
    pool = pattern_pool(np.ones((5, 3), bool), tuple("abcde"), 24, 0).at_rate(rate)
    assert pool.missing_rate == pytest.approx(reached, abs=1e-6)
    assert len(pool.draw(0, 0)) == 5
