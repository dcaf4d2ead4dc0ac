"""Intervals by resampling whole groups: one set of resamples for every condition, seed and method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from omg_graph.errors import DataError
from omg_graph.evaluation.statistics import Statistic
from omg_graph.evaluation.tables import SampleTable, conditions_in_order
from omg_graph.metrics.labelled import Numbers
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
            raise DataError("samples were expected for an interval, none came")
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

    def values(self, statistic: Statistic, table: SampleTable) -> Numbers:
        """(resamples + 1,): the metric of one table, recomputed for each."""
        parts = statistic.parts(table)
        sums = np.zeros((self.units, parts.shape[1]))
        np.add.at(sums, [self.unit_of[sample] for sample in table.ids], parts)
        blocks = [
            statistic.value(self.counts[start : start + AT_ONCE].astype(np.float64) @ sums)
            for start in range(0, len(self.counts), AT_ONCE)
        ]
        values = np.concatenate(blocks)
        if self.units == 1:  # resampling a single group says nothing about others
            values[1:] = np.nan
        return values

    def by_condition(self, statistic: Statistic, tables: Sequence[SampleTable]) -> dict[str, Numbers]:
        """Condition to (resamples + 1,), averaged over seeds."""
        return {
            name: average([self.values(statistic, table) for table in tables if table.condition == name])
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
