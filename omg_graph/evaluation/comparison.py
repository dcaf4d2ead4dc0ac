"""Paired differences between methods on the same samples under the same masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omg_graph.errors import DataError
from omg_graph.evaluation.bootstrap import Interval, Resamples, average, interval
from omg_graph.evaluation.statistics import Statistic, statistics_of
from omg_graph.evaluation.tables import SampleTable
from omg_graph.metrics.labelled import Numbers

AVERAGE = "average"
"""What results call the mean over all conditions."""


ByCondition = dict[str, Numbers]


@dataclass(frozen=True)
class Results:
    """One method's tables, under a name that tells it apart."""

    name: str
    tables: Sequence[SampleTable]


@dataclass(frozen=True)
class Difference:
    """One method less another, by one metric."""

    metric: str
    condition: str
    """A condition's name, or ``average``."""
    first: float
    second: float
    difference: Interval
    lower_is_better: bool

    @property
    def verdict(self) -> str:
        """In plain words."""
        if self.difference.holds_zero:
            return "no difference shown"
        return "better" if (self.difference.value < 0) == self.lower_is_better else "worse"

    def as_json(self) -> dict[str, Any]:
        """A row of results; None for what is undefined."""
        named = self.difference.as_json()
        return {
            "metric": self.metric,
            "condition": self.condition,
            "first": _known(self.first),
            "second": _known(self.second),
            "difference": named["value"],
            "low": named["low"],
            "high": named["high"],
            "verdict": self.verdict,
        }


def check_pairing(first: Results, second: Results) -> None:
    """Refuse results that were not measured on the same samples, masks and truths.

    Raises:
        DataError: with the first thing that differs.
    """
    ours, theirs = _by_place(first), _by_place(second)
    names = f"{first.name} and {second.name}"
    for place in ours.keys() ^ theirs.keys():
        where = first.name if place in ours else second.name
        raise DataError(f"{names}: the same conditions were expected, only {where} has {_place(place)}")
    for place, table in ours.items():
        for other in theirs[place]:
            _check_tables(table[0], other, names)
        for other in table[1:]:
            _check_tables(table[0], other, names)


def compare(first: Results, second: Results, resamples: Resamples | None = None) -> list[Difference]:
    """Paired differences, first less second: averaged over conditions, then condition by condition.

    One set of resamples serves both methods, every condition and every seed; metrics are recomputed for
    each, averaged over seeds and then over conditions.

    Args:
        first: a method's tables.
        second: another's, on the same samples and masks.
        resamples: drawn for all comparisons together; drawn anew by default.

    Raises:
        DataError: if the two can't be paired.
    """
    check_pairing(first, second)
    drawn = resamples_of([first, second]) if resamples is None else resamples
    out: list[Difference] = []
    for statistic in statistics_of([*first.tables, *second.tables]):
        ours, theirs = (drawn.by_condition(statistic, results.tables) for results in (first, second))
        out += paired(statistic, ours, theirs)
    return out


def paired(statistic: Statistic, ours: ByCondition, theirs: ByCondition) -> list[Difference]:
    """By one metric; conditions in which it is undefined for either method are left out.

    Args:
        statistic: the metric.
        ours: condition to (resamples + 1,), what ``Resamples.by_condition`` gives for the first method.
        theirs: the same for the second, by the same resamples.
    """
    defined = [name for name in ours if not (np.isnan(ours[name][0]) or np.isnan(theirs[name][0]))]
    if not defined:
        return []
    first = {AVERAGE: average([ours[name] for name in defined])} | {name: ours[name] for name in defined}
    second = {AVERAGE: average([theirs[name] for name in defined])} | {name: theirs[name] for name in defined}
    gaps = {name: ours[name] - theirs[name] for name in defined}
    gaps = {AVERAGE: average(list(gaps.values()))} | gaps
    return [
        Difference(
            statistic.name,
            name,
            float(first[name][0]),
            float(second[name][0]),
            interval(gap),
            statistic.lower_is_better,
        )
        for name, gap in gaps.items()
    ]


def resamples_of(results: Sequence[Results]) -> Resamples:
    """One set for everything that is to be compared."""
    tables = [table for result in results for table in result.tables]
    ids = [sample for table in tables for sample in table.ids]
    groups = [group for table in tables for group in table.groups]
    return Resamples.of(ids, groups)


def methods_of(tables: Sequence[SampleTable]) -> dict[str, list[SampleTable]]:
    """Method to its tables, in the order they come."""
    found: dict[str, list[SampleTable]] = {}
    for table in tables:
        found.setdefault(table.method, []).append(table)
    return found


Place = tuple[str, int | None]


def _by_place(results: Results) -> dict[Place, list[SampleTable]]:
    found: dict[Place, list[SampleTable]] = {}
    for table in results.tables:
        found.setdefault(table.place, []).append(table)
    return found


def _place(place: Place) -> str:
    condition, seed = place
    return repr(condition) if seed is None else f"{condition!r} with mask seed {seed}"


def _check_tables(ours: SampleTable, theirs: SampleTable, names: str) -> None:
    where = _place(ours.place)
    if ours.family != theirs.family:
        raise DataError(
            f"{names}: the same metrics were expected, {ours.family} and {theirs.family} came: "
            "evaluate one of them anew with --metrics"
        )
    mine = {sample: row for row, sample in enumerate(ours.ids)}
    other = {sample: row for row, sample in enumerate(theirs.ids)}
    strange = sorted(mine.keys() ^ other.keys())
    if strange:
        raise DataError(
            f"{names}: the same samples were expected under {where}, {len(strange)} are in one of them "
            f"alone, {strange[0]!r} among them: evaluate both on the same split"
        )
    for sample, row in mine.items():
        place = other[sample]
        if set(ours.observed[row]) != set(theirs.observed[place]):
            raise DataError(
                f"{names}: the same masks were expected under {where}, sample {sample!r} shows "
                f"{'+'.join(ours.observed[row])} in one and {'+'.join(theirs.observed[place])} in the other: "
                "evaluate one with the other's masks (--protocol file --masks)"
            )
        if ours.groups[row] != theirs.groups[place] or not _same_truth(ours, row, theirs, place):
            raise DataError(
                f"{names}: the same truths and groups were expected, those of {sample!r} differ: "
                "evaluate both on the same file"
            )


def _same_truth(ours: SampleTable, row: int, theirs: SampleTable, place: int) -> bool:
    mine, other = ours.truth[row], theirs.truth[place]
    if np.isnan(mine) or np.isnan(other):
        return bool(np.isnan(mine) and np.isnan(other))
    if ours.family == "classes":
        return ours.names[int(mine)] == theirs.names[int(other)]
    return bool(np.isclose(mine, other, rtol=1e-6, atol=1e-9))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
