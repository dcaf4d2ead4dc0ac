"""Intervals against resampling by hand, and paired differences, refused where nothing can be paired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from omg_graph.errors import DataError
from omg_graph.evaluation.intervals import (
    AVERAGE,
    Difference,
    Interval,
    Resamples,
    Results,
    average,
    compare,
    interval,
)
from omg_graph.evaluation.tables import SampleTable, TableMetric, metrics_of
from omg_graph.metrics.labels import scores_of

TableOf = Callable[..., SampleTable]
CONDITIONS = (("text", None), ("rate 0.5", 0), ("rate 0.5", 1))


def by_name(table: SampleTable) -> dict[str, TableMetric]:
    return {metric.name: metric for metric in metrics_of([table])}


def taken(table: SampleTable, rows: np.ndarray) -> SampleTable:
    """Some rows of a table, in another order or several times."""
    changes = {name: getattr(table, name)[rows] for name in ("truth", "value", "label")}
    changes |= {name: getattr(table, name)[rows] for name in ("probability", "confidence")}
    return replace(
        table,
        ids=tuple(table.ids[row] for row in rows),
        groups=tuple(table.groups[row] for row in rows),
        observed=tuple(table.observed[row] for row in rows),
        errors={name: ratio.take(rows) for name, ratio in table.errors.items()},
        energy={name: scores[rows] for name, scores in table.energy.items()},
        coverage={name: ratio.take(rows) for name, ratio in table.coverage.items()},
        **changes,
    )


@pytest.mark.parametrize("family", ["mosi", "sims", "number", "classes"])
def test_every_metric_of_a_table_is_the_metric(table_of: TableOf, family: str) -> None:
    table = table_of(family)
    found = {name: metric.of(table) for name, metric in by_name(table).items()}
    expected = scores_of(table.labels, table.family) | {
        "nmse": np.mean([ratio.value for ratio in table.errors.values()]),  # type: ignore[arg-type]
        "energy_score": table.energy["audio"].mean(),
        "coverage90": table.coverage["audio"].value,
    }
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("family", ["mosi", "sims", "classes"])
def test_resamples_equal_recomputing_by_hand(table_of: TableOf, family: str) -> None:
    """For every metric: sums over groups, counted as often as drawn, are those of the samples drawn."""
    table = table_of(family)
    resamples = Resamples.of(table.ids, table.groups, count=20)
    names = sorted(set(table.groups))
    member = {name: np.flatnonzero(np.array(table.groups) == name) for name in names}
    for metric in by_name(table).values():
        for counts, value in zip(resamples.counts, resamples.values(metric, table), strict=True):
            chosen = [member[name] for name, count in zip(names, counts, strict=True) for _ in range(count)]
            by_hand = metric.of(taken(table, np.concatenate(chosen)))
            assert value == pytest.approx(by_hand), metric.name


def test_whole_groups_are_drawn_as_many_as_there_are(table_of: TableOf) -> None:
    table = table_of(groups=12)
    resamples = Resamples.of(table.ids, table.groups, count=100)
    assert resamples.by_group
    assert resamples.counts.shape == (101, 12)
    assert (resamples.counts[0] == 1).all()
    assert (resamples.counts.sum(axis=1) == 12).all()
    assert resamples.rough
    assert "rough" in resamples.note


def test_samples_are_drawn_where_there_are_no_groups(table_of: TableOf) -> None:
    table = table_of()
    resamples = Resamples.of(table.ids, table.ids, count=10)
    assert not resamples.by_group
    assert resamples.units == len(table)
    assert not resamples.rough


def test_one_group_gives_no_interval(table_of: TableOf) -> None:
    table = table_of(groups=1)
    resamples = Resamples.of(table.ids, table.groups, count=10)
    found = interval(resamples.values(by_name(table)["acc2"], table))
    assert not np.isnan(found.value)
    assert np.isnan(found.low)
    assert found.holds_zero


def test_the_order_of_samples_changes_nothing(table_of: TableOf) -> None:
    table = table_of()
    shuffled = taken(table, np.random.default_rng(3).permutation(len(table)))
    for metric in by_name(table).values():
        first, second = (Resamples.of(t.ids, t.groups, count=30).values(metric, t) for t in (table, shuffled))
        assert np.allclose(first, second)
    found = compare(Results("a", [table]), Results("b", [shuffled]))
    assert all(abs(row.difference.value) < 1e-12 for row in found)


def test_the_interval_of_a_mean_is_about_two_standard_errors(table_of: TableOf) -> None:
    table = table_of(rows=400, groups=400)
    found = interval(Resamples.of(table.ids, table.groups).values(by_name(table)["mae"], table))
    standard_error = np.abs(table.value - table.truth).std() / np.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)
    assert found.low < found.value < found.high


def test_undefined_resamples_are_left_out_of_an_average() -> None:
    found = average([np.array([1.0, np.nan, np.nan]), np.array([3.0, 5.0, np.nan])])
    assert found[:2].tolist() == [2.0, 5.0]
    assert np.isnan(found[2])


def test_zero_is_held_by_intervals_around_it_and_by_unknown_ones() -> None:
    for low, high in ((-0.1, 0.3), (0.0, 0.3), (np.nan, np.nan)):
        assert Interval(0.1, low, high).holds_zero
    assert not Interval(0.1, 0.05, 0.3).holds_zero
    assert not Interval(-0.1, -0.3, -0.05).holds_zero


@pytest.fixture
def results(table_of: TableOf) -> Callable[..., Results]:
    """Tables of two conditions, one of them with two masks."""

    def make(name: str, noise: float = 1.0, seed: int = 0, model_seed: int = 0) -> Results:
        tables = [
            table_of(noise=noise, seed=seed + 10 * number, condition=condition, mask_seed=mask_seed)
            for number, (condition, mask_seed) in enumerate(CONDITIONS)
        ]
        return Results(name, [replace(table, model_seed=model_seed) for table in tables])

    return make


def averaged(found: list[Difference], metric: str) -> Difference:
    return next(row for row in found if row.metric == metric and row.condition == AVERAGE)


def test_a_clear_difference_is_shown_the_right_way_round(results: Callable[..., Results]) -> None:
    good, bad = results("good", 0.3), results("bad", 3.0, seed=1)
    found, swapped = compare(good, bad), compare(bad, good)
    assert averaged(found, "acc7").verdict == averaged(found, "mae").verdict == "better"
    assert averaged(found, "mae").difference.value < 0
    assert averaged(swapped, "nmse").verdict == "worse"
    for row in found:
        (other,) = [r for r in swapped if (r.metric, r.condition) == (row.metric, row.condition)]
        assert row.difference.value == pytest.approx(-other.difference.value)


def test_the_same_results_show_no_difference(results: Callable[..., Results]) -> None:
    found = compare(results("a"), results("b"))
    assert {row.verdict for row in found} == {"no difference shown"}
    assert all(row.difference.value == 0 for row in found)


def test_seeds_are_averaged_before_conditions(results: Callable[..., Results]) -> None:
    first, second = results("a"), results("b", 2.0, seed=5)
    found = compare(first, second)

    def mae(of: Results) -> float:
        each = [float(np.abs(table.value - table.truth).mean()) for table in of.tables]
        return (each[0] + (each[1] + each[2]) / 2) / 2

    assert averaged(found, "mae").difference.value == pytest.approx(mae(first) - mae(second))
    assert {row.condition for row in found} == {AVERAGE, "text", "rate 0.5"}


def test_models_of_one_method_are_averaged(results: Callable[..., Results]) -> None:
    two = Results("a", [*results("a").tables, *results("a", seed=9, model_seed=1).tables])
    found = compare(two, results("b"))
    expected = np.mean([np.abs(t.value - t.truth).mean() for t in two.tables if t.condition == "text"])
    row = next(row for row in found if (row.metric, row.condition) == ("mae", "text"))
    assert row.first == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"truth": np.zeros(60)}, "truths"),
        ({"observed": (("audio",),) * 60}, "same masks"),
        ({"ids": tuple(f"w{row}" for row in range(60))}, "same samples"),
        ({"condition": "vision"}, "same conditions"),
        ({"mask_seed": 4}, "same conditions"),
        ({"family": "number"}, "same metrics"),
        ({"groups": tuple(f"g{row}" for row in range(60))}, "groups"),
    ],
)
def test_what_cannot_be_paired_is_refused(
    results: Callable[..., Results], change: dict[str, object], complaint: str
) -> None:
    first, *rest = results("b").tables
    other = Results("b", [replace(first, **change), *rest])  # type: ignore[arg-type]
    with pytest.raises(DataError, match=complaint) as refused:
        compare(results("a"), other)
    assert "\n" not in str(refused.value)
