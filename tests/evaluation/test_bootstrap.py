"""Statistics against the metrics themselves, and intervals against resampling by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omg_graph.evaluation.intervals import Interval, Resamples, average, interval
from omg_graph.evaluation.statistics import Statistic, statistics_of
from omg_graph.evaluation.tables import SampleTable
from omg_graph.metrics.features import PooledRatio
from omg_graph.metrics.labels import score


def table_of(family: str, rows: int = 60, seed: int = 0, groups: int = 12, **changes: object) -> SampleTable:
    random = np.random.default_rng(seed)
    classes = family == "classes"
    reach = 1.0 if family == "sims" else 3.0
    truth = (
        random.integers(0, 4, rows).astype(float) if classes else random.uniform(-reach, reach, rows).round(1)
    )
    if not classes:
        truth[:5] = 0.0
    guess = np.where(random.random(rows) < 0.6, truth, random.integers(0, 4, rows))
    value = np.full(rows, np.nan) if classes else truth + random.normal(0, 1.5, rows)
    made = SampleTable(
        method="omg",
        family=family,
        protocol="fixed",
        condition="text",
        rate=None,
        mask_seed=None,
        model_seed=0,
        ids=tuple(f"clip-{row}" for row in range(rows)),
        groups=tuple(f"video-{row % groups}" for row in range(rows)),
        observed=(("text",),) * rows,
        truth=truth,
        value=value,
        label=guess if classes else np.full(rows, np.nan),
        probability=random.uniform(0.01, 1.0, rows),
        names=("ant", "bee", "cat", "dog") if classes else (),
        errors={
            name: PooledRatio(random.uniform(0, 2, rows), random.uniform(0.5, 2, rows))
            for name in ("audio", "vision")
        },
        energy={"audio": random.uniform(1, 2, rows)},
        coverage={"audio": PooledRatio(random.integers(0, 5, rows).astype(float), np.full(rows, 5.0))},
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def by_name(table: SampleTable) -> dict[str, Statistic]:
    return {statistic.name: statistic for statistic in statistics_of([table])}


def metrics_of(table: SampleTable, rows: np.ndarray) -> dict[str, float | None]:
    family = table.family
    if family == "classes":
        found = score("classes", table.truth[rows], label=table.label[rows])
    else:
        found = score(family, table.truth[rows], value=table.value[rows])  # type: ignore[arg-type]
    return {name: value for name, value in found.items() if name not in ("ece", "nll")}


@pytest.mark.parametrize("family", ["mosi", "sims", "number", "classes"])
def test_every_statistic_is_the_metric(family: str) -> None:
    table = table_of(family)
    statistics, rows = by_name(table), np.arange(len(table))
    expected = metrics_of(table, rows)
    assert set(expected) <= set(statistics)
    for name, value in expected.items():
        assert statistics[name].of(table) == pytest.approx(value), name
    ratios = [ratio.value for ratio in table.errors.values()]
    assert statistics["nmse"].of(table) == pytest.approx(np.mean(ratios))  # type: ignore[arg-type]
    assert statistics["energy_score"].of(table) == pytest.approx(table.energy["audio"].mean())
    assert statistics["coverage90"].of(table) == pytest.approx(table.coverage["audio"].value)
    assert statistics["nll"].of(table) == pytest.approx(-np.log(table.probability).mean())


@pytest.mark.parametrize("family", ["mosi", "sims", "classes"])
def test_resamples_equal_recomputing_by_hand(family: str) -> None:
    table = table_of(family)
    resamples = Resamples.of(table.ids, table.groups, count=40)
    names = sorted(set(table.groups))
    member = {name: np.flatnonzero(np.array(table.groups) == name) for name in names}
    for statistic in by_name(table).values():
        if statistic.name not in metrics_of(table, np.arange(len(table))):
            continue
        values = resamples.values(statistic, table)
        for counts, value in zip(resamples.counts, values, strict=True):
            chosen = [member[name] for name, count in zip(names, counts, strict=True) for _ in range(count)]
            by_hand = metrics_of(table, np.concatenate(chosen))[statistic.name]
            assert value == pytest.approx(by_hand), statistic.name


def test_whole_groups_are_drawn_as_many_as_there_are() -> None:
    table = table_of("mosi", rows=60, groups=12)
    resamples = Resamples.of(table.ids, table.groups, count=100)
    assert resamples.by_group
    assert resamples.counts.shape == (101, 12)
    assert (resamples.counts[0] == 1).all()
    assert (resamples.counts.sum(axis=1) == 12).all()
    assert resamples.rough
    assert "rough" in resamples.note


def test_samples_are_drawn_where_there_are_no_groups() -> None:
    table = table_of("mosi")
    resamples = Resamples.of(table.ids, table.ids, count=10)
    assert not resamples.by_group
    assert resamples.units == len(table)
    assert not resamples.rough


def test_one_group_gives_no_interval() -> None:
    table = table_of("mosi", groups=1)
    resamples = Resamples.of(table.ids, table.groups, count=10)
    found = interval(resamples.values(by_name(table)["acc2"], table))
    assert not np.isnan(found.value)
    assert np.isnan(found.low)
    assert found.holds_zero


def test_order_changes_nothing() -> None:
    table = table_of("mosi")
    order = np.random.default_rng(3).permutation(len(table))
    shuffled = replace(
        table,
        ids=tuple(table.ids[row] for row in order),
        groups=tuple(table.groups[row] for row in order),
        truth=table.truth[order],
        value=table.value[order],
        errors={},
        energy={},
        coverage={},
    )
    statistic = by_name(table)["acc2"]
    first = Resamples.of(table.ids, table.groups, count=30).values(statistic, table)
    second = Resamples.of(shuffled.ids, shuffled.groups, count=30).values(statistic, shuffled)
    assert np.allclose(first, second)


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    table = table_of("mosi", rows=400, groups=400)
    statistic = by_name(table)["mae"]
    found = interval(Resamples.of(table.ids, table.groups).values(statistic, table))
    standard_error = np.abs(table.value - table.truth).std() / np.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    assert found.low < found.value < found.high


def test_samples_without_a_label_count_in_no_label_metric() -> None:
    table = table_of("mosi")
    hidden = table.truth.copy()
    hidden[:20] = np.nan
    part = replace(table, truth=hidden)
    expected = metrics_of(table, np.arange(20, len(table)))
    assert by_name(part)["acc7"].of(part) == pytest.approx(expected["acc7"])


def test_a_constant_has_no_correlation() -> None:
    table = table_of("mosi")
    constant = replace(table, value=np.full(len(table), 0.7))
    assert np.isnan(by_name(table)["corr"].of(constant))


def test_f1_is_weighted_by_the_truth() -> None:
    # Nine negative, one positive truth, all called negative: MMSA's F1 weighs by the truth's nine to one.
    truth, value = np.array([-1.0] * 9 + [1.0]), np.full(10, -1.0)
    table = table_of("mosi", rows=10, truth=truth, value=value, errors={}, energy={}, coverage={})
    negative = 2 * 9 / (9 + 10)
    assert by_name(table)["f1"].of(table) == pytest.approx(0.9 * negative)


def test_undefined_resamples_are_left_out_of_an_average() -> None:
    found = average([np.array([1.0, np.nan, np.nan]), np.array([3.0, 5.0, np.nan])])
    assert found[:2].tolist() == [2.0, 5.0]
    assert np.isnan(found[2])


def test_zero_is_held_by_intervals_around_it_and_by_unknown_ones() -> None:
    assert Interval(0.1, -0.1, 0.3).holds_zero
    assert Interval(0.1, 0.0, 0.3).holds_zero
    assert Interval(0.1, np.nan, np.nan).holds_zero
    assert not Interval(0.1, 0.05, 0.3).holds_zero
    assert not Interval(-0.1, -0.3, -0.05).holds_zero
