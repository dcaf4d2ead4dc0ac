"""Figures with intervals by resampling whole groups, and paired differences between methods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from omg_graph.errors import DataError
from omg_graph.evaluation.tables import SampleTable, TableMetric, conditions_in_order, metrics_of
from omg_graph.metrics.labels import Numbers
from omg_graph.seeding import derived_seed

RESAMPLES = 2000
CONFIDENCE = 0.95
FEW_GROUPS = 20
"""Below so many groups an interval is rough."""
AT_ONCE = 250
"""Resamples in one matrix product, so that memory doesn't grow with the samples."""


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval; NaN where it is undefined."""

    value: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether zero can't be ruled out; so too where nothing is known."""
        return not (self.low > 0 or self.high < 0)

    def as_json(self) -> dict[str, float | None]:
        """With None for what is undefined."""
        named = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if np.isnan(number) else number for name, number in named.items()}


@dataclass(frozen=True)
class Resamples:
    """How often each group comes in each resample."""

    unit_of: dict[str, int]
    """Sample id to the number of its group."""
    counts: npt.NDArray[np.int32]
    """(resamples + 1, groups); the first row is the sample itself."""
    by_group: bool
    """False where no group has two samples: samples are resampled."""

    @classmethod
    def of(
        cls, ids: Sequence[str], groups: Sequence[str], count: int = RESAMPLES, seed: int = 0
    ) -> Resamples:
        """Draw groups with replacement, as many as there are.

        Args:
            ids: of all samples that take part in anything; each may come more than once.
            groups: theirs, in the same order.
            count: resamples.
            seed: decides them, with the number of groups.

        Raises:
            DataError: if there is no sample.
        """
        group_of = dict(zip(ids, groups, strict=True))
        if not group_of:
            raise DataError("expected samples for an interval, got none")
        units = dict.fromkeys(sorted(set(group_of.values())))
        by_group = len(units) < len(group_of)
        if not by_group:
            group_of = {sample: sample for sample in group_of}
            units = dict.fromkeys(sorted(group_of))
        number = {unit: place for place, unit in enumerate(units)}
        random = np.random.default_rng(derived_seed("bootstrap", seed))
        drawn = random.multinomial(len(units), np.full(len(units), 1.0 / len(units)), size=count)
        counts = np.concatenate([np.ones((1, len(units)), np.int64), drawn]).astype(np.int32)
        return cls({sample: number[group] for sample, group in group_of.items()}, counts, by_group)

    @property
    def units(self) -> int:
        """How many groups (or samples) are drawn from."""
        return int(self.counts.shape[1])

    @property
    def rough(self) -> bool:
        """Whether there are too few groups for more than a rough interval."""
        return self.units < FEW_GROUPS

    @cached_property
    def note(self) -> str:
        """What an interval rests on, in a few words."""
        what = "groups" if self.by_group else "samples (there are no groups)"
        rough = f"; with fewer than {FEW_GROUPS} they are rough" if self.rough else ""
        return f"95 % intervals from {len(self.counts) - 1} resamples of {self.units} {what}{rough}"

    def values(self, metric: TableMetric, table: SampleTable) -> Numbers:
        """(resamples + 1,): the metric of one table, recomputed for each."""
        parts = metric.parts(table)
        sums = np.zeros((self.units, parts.shape[1]))
        np.add.at(sums, [self.unit_of[sample] for sample in table.ids], parts)
        blocks = [
            metric.value(self.counts[start : start + AT_ONCE].astype(np.float64) @ sums)
            for start in range(0, len(self.counts), AT_ONCE)
        ]
        values = np.concatenate(blocks)
        if self.units == 1:  # resampling a single group says nothing about others
            values[1:] = np.nan
        return values

    def by_condition(self, metric: TableMetric, tables: Sequence[SampleTable]) -> dict[str, Numbers]:
        """Condition to (resamples + 1,), averaged over seeds."""
        return {
            name: average([self.values(metric, table) for table in tables if table.condition == name])
            for name in conditions_in_order(tables)
        }


def average(values: Sequence[Numbers]) -> Numbers:
    """(resamples + 1,): the mean of those that are defined, resample by resample."""
    stacked = np.stack(values)
    known = ~np.isnan(stacked)
    count = known.sum(axis=0)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def interval(values: Numbers) -> Interval:
    """The first value, with the middle 95 % of the others."""
    others = values[1:][~np.isnan(values[1:])]
    if not len(others):
        return Interval(float(values[0]), float("nan"), float("nan"))
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(others, [tail, 100.0 - tail])
    return Interval(float(values[0]), float(low), float(high))


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
        raise DataError(f"{names}: expected the same conditions, only {where} has {_place(place)}")
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
        resamples: shared by all comparisons; drawn here by default.

    Raises:
        DataError: if the two can't be paired.
    """
    check_pairing(first, second)
    drawn = resamples_of([first, second]) if resamples is None else resamples
    out: list[Difference] = []
    for metric in metrics_of([*first.tables, *second.tables]):
        ours, theirs = (drawn.by_condition(metric, results.tables) for results in (first, second))
        out += paired(metric, ours, theirs)
    return out


def paired(metric: TableMetric, ours: ByCondition, theirs: ByCondition) -> list[Difference]:
    """By one metric; conditions in which it is undefined for either method are left out.

    Args:
        metric: the metric.
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
            metric.name,
            name,
            float(first[name][0]),
            float(second[name][0]),
            interval(gap),
            metric.lower_is_better,
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
            f"{names}: expected the same metrics, got {ours.family} and {theirs.family}: "
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
                f"{names}: expected the same truths and groups, those of {sample!r} differ: "
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


@dataclass(frozen=True)
class Summary:
    """Every method's metrics, averaged over seeds, condition by condition and averaged over these."""

    conditions: tuple[str, ...]
    methods: tuple[str, ...]
    """The model first."""
    metrics: tuple[str, ...]
    lower_is_better: frozenset[str]
    figures: dict[tuple[str, str, str], Interval]
    """(method, metric, condition or ``average``) to figure; absent where undefined."""
    differences: dict[str, list[Difference]]
    """Floor to the model less the floor."""
    note: str
    """What intervals rest on."""
    rough: bool

    def as_json(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        return {
            "note": self.note,
            "rough": self.rough,
            "figures": [
                {"method": method, "metric": metric, "condition": condition, **figure.as_json()}
                for (method, metric, condition), figure in self.figures.items()
            ],
            "differences": [
                {"method": self.methods[0], "against": floor, **difference.as_json()}
                for floor, differences in self.differences.items()
                for difference in differences
            ],
        }

    def averaged(self, method: str, metric: str) -> Interval | None:
        """The mean over conditions; None where undefined."""
        return self.figures.get((method, metric, AVERAGE))

    def gain(self, floor: str, metric: str) -> Difference | None:
        """The averaged difference between the model and a floor."""
        found = (d for d in self.differences.get(floor, ()) if (d.metric, d.condition) == (metric, AVERAGE))
        return next(found, None)


def summarise(tables: Sequence[SampleTable]) -> Summary:
    """Put intervals on everything, with one set of resamples.

    Args:
        tables: of all methods, conditions and seeds, the model's first.
    """
    by_method = methods_of(tables)
    names, metrics = list(by_method), metrics_of(tables)
    resamples = Resamples.of(
        [sample for table in tables for sample in table.ids],
        [group for table in tables for group in table.groups],
    )
    figures: dict[tuple[str, str, str], Interval] = {}
    differences: dict[str, list[Difference]] = {name: [] for name in names[1:]}
    for metric in metrics:
        values = {name: resamples.by_condition(metric, group) for name, group in by_method.items()}
        for name, rows in values.items():
            figures |= _figures(name, metric, rows)
        for name in names[1:]:
            differences[name] += paired(metric, values[names[0]], values[name])
    return Summary(
        conditions=tuple(conditions_in_order(tables)),
        methods=tuple(names),
        metrics=tuple(metric.name for metric in metrics),
        lower_is_better=frozenset(s.name for s in metrics if s.lower_is_better),
        figures=figures,
        differences=differences,
        note=resamples.note,
        rough=resamples.rough,
    )


def _figures(method: str, metric: TableMetric, rows: ByCondition) -> dict[tuple[str, str, str], Interval]:
    defined = {name: values for name, values in rows.items() if not np.isnan(values[0])}
    if not defined:
        return {}
    averaged = {AVERAGE: average(list(defined.values()))}
    return {(method, metric.name, name): interval(values) for name, values in (averaged | defined).items()}
