"""A setting's figures over its seeds: how far from the exact posterior, with intervals over whole groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from omg_graph.bench.study.runs import EXACT, EXACT_GIVEN_PLAN, GIVEN_PLAN, RunResult
from omg_graph.bench.study.variants import MODEL, VARIANTS
from omg_graph.data.dataset import BoolArray
from omg_graph.evaluation.intervals import RESAMPLES, Interval, Resamples, average, interval
from omg_graph.metrics.labels import Numbers
from omg_graph.simulator.content import Float64Array

METRICS = {
    "nmse": "squared error",
    "energy": "energy score",
    "error_ratio": "squared error ÷ exact",
    "energy_ratio": "energy score ÷ exact",
    "degree_ratio": "degree accuracy ÷ Bayes",
    "sign_ratio": "sign accuracy ÷ Bayes",
}
"""What is shown of every method; the ratios are what the goals speak of."""
PARTS = {
    "nmse": ("squared_error", "squared_deviation"),
    "energy": ("energy", None),
    "error_ratio": ("squared_error", "squared_error"),
    "energy_ratio": ("energy", "energy"),
    "degree_ratio": ("degree_accuracy", "degree_accuracy"),
    "sign_ratio": ("sign_accuracy", "sign_accuracy"),
}
"""Metric to a sum over clips and what divides it: the exact posterior's for a ratio, None for a mean."""
GAINED = ("error_ratio", "energy_ratio")
EVERYONE, KNOWN, UNSEEN = "all clips", "known contents", "unseen contents"


@dataclass(frozen=True)
class Figures:
    """What came out on some of the clips under some of the patterns, averaged over patterns and seeds."""

    methods: dict[str, dict[str, Interval]]
    """Method to metric."""
    gains: dict[str, dict[str, Interval]]
    """Variant to a ratio: the variant's less the model's; above zero where the model is better."""
    plans: dict[str, dict[str, Interval]]
    """Who plans, Bayes's rule or the model, to a field to how often it is right."""


@dataclass(frozen=True)
class SettingFigures:
    """What came out of one setting."""

    name: str
    seeds: tuple[int, ...]
    training_clips: int
    test_clips: int
    note: str
    """What the intervals rest on."""
    subsets: dict[str, Figures] = field(default_factory=dict)
    """All clips, those of known contents and those of unseen ones, under all patterns."""
    by_pattern: dict[str, dict[str, Figures]] = field(default_factory=dict)
    """Pattern to subset."""
    followed: dict[str, dict[str, Interval]] = field(default_factory=dict)
    """Variant to ``plan`` or ``evidence``: the share of the way that its output follows a swap."""
    seconds: float = 0.0
    """Of all runs together."""


def figures(runs: Sequence[RunResult], resamples: int = RESAMPLES) -> SettingFigures:
    """Puts a setting's runs together, one for each seed.

    Intervals resample groups, the same for all seeds, patterns and methods.
    """
    first = runs[0]
    drawn = Resamples.of(first.ids, first.groups, resamples)
    table = _Table(runs, drawn)
    subsets = [EVERYONE, KNOWN, UNSEEN] if any(any(run.unseen) for run in runs) else [EVERYONE]
    patterns = list(first.patterns)
    made = SettingFigures(
        first.setting,
        tuple(run.seed for run in runs),
        first.training_clips,
        len(first.ids),
        drawn.note,
        seconds=round(sum(run.seconds for run in runs), 1),
    )
    made.subsets.update({subset: table.figures(patterns, subset) for subset in subsets})
    for pattern in patterns:
        made.by_pattern[pattern] = {subset: table.figures([pattern], subset) for subset in subsets}
    swapped = {name: list(of_name) for name, of_name in first.patterns[patterns[0]].swaps.items()}
    for name, kinds in swapped.items():
        made.followed[name] = {kind: interval(table.followed(patterns, name, kind)) for kind in kinds}
    return made


def verdict(gain: Interval) -> str:
    """What a difference in error of a variant and the model says of what the variant lacks."""
    if gain.holds_zero:
        return "no difference shown"
    return "helps" if gain.value > 0 else "hurts"


def reference(method: str) -> str:
    """The exact posterior that knows what the method knows."""
    return EXACT_GIVEN_PLAN if method == EXACT_GIVEN_PLAN or method.endswith(GIVEN_PLAN) else EXACT


@dataclass(frozen=True)
class _Table:
    """The runs' clips, summed over the groups of each resample."""

    runs: Sequence[RunResult]
    drawn: Resamples

    def figures(self, patterns: Sequence[str], subset: str) -> Figures:
        """All figures of some patterns and clips."""
        first = self.runs[0]
        names, planners = _in_order(first), first.patterns[patterns[0]].plans
        values = {
            name: {metric: self._averaged(patterns, subset, metric, name) for metric in METRICS}
            for name in names
        }
        return Figures(
            {
                name: {metric: interval(series) for metric, series in row.items()}
                for name, row in values.items()
            },
            {
                variant.name: {
                    metric: interval(values[variant.name][metric] - values[MODEL.name][metric])
                    for metric in GAINED
                }
                for variant in VARIANTS
                if variant is not MODEL and not variant.taught and variant.name in names
            },
            {
                name: {part: interval(self._right(patterns, subset, name, part)) for part in fields}
                for name, fields in planners.items()
            },
        )

    def followed(self, patterns: Sequence[str], method: str, kind: str) -> Numbers:
        """(resamples + 1,): the share followed, over the clips of all patterns, averaged over seeds."""
        series = []
        for run in self.runs:
            found = [run.patterns[pattern].swaps[method][kind] for pattern in patterns]
            along, wanted = (
                np.sum([part[name] for part in found], axis=0).tolist() for name in ("along", "wanted")
            )
            series.append(self._ratio(run, along, wanted, EVERYONE))
        return average(series)

    def _averaged(self, patterns: Sequence[str], subset: str, metric: str, method: str) -> Numbers:
        """(resamples + 1,): the metric, averaged over patterns and seeds."""
        above, below = PARTS[metric]
        series = []
        for run in self.runs:
            for pattern in patterns:
                methods = run.patterns[pattern].methods
                own = methods[method]
                other = methods[reference(method)] if metric.endswith("ratio") else own
                ones = [1.0] * len(run.ids)
                series.append(self._ratio(run, own[above], ones if below is None else other[below], subset))
        return average(series)

    def _right(self, patterns: Sequence[str], subset: str, planner: str, part: str) -> Numbers:
        """(resamples + 1,): how often a field of the plans is right, averaged over patterns and seeds."""
        return average(
            [
                self._ratio(run, run.patterns[pattern].plans[planner][part], [1.0] * len(run.ids), subset)
                for run in self.runs
                for pattern in patterns
            ]
        )

    def _ratio(self, run: RunResult, above: Sequence[float], below: Sequence[float], subset: str) -> Numbers:
        units = [self.drawn.unit_of[sample] for sample in run.ids]
        sums = np.zeros((self.drawn.units, 2))
        np.add.at(sums, units, np.stack([above, below], axis=1) * _rows(run, subset)[:, None])
        over, under = (self._counts @ sums).T
        ratio = np.full(len(over), np.nan)
        np.divide(over, under, out=ratio, where=under > 0)
        return ratio

    @cached_property
    def _counts(self) -> Float64Array:
        return self.drawn.counts.astype(np.float64)


def _rows(run: RunResult, subset: str) -> BoolArray:
    """(clips,): which of them belong to a subset."""
    unseen = np.array(run.unseen, dtype=np.bool_)
    return {EVERYONE: np.ones_like(unseen), KNOWN: ~unseen, UNSEEN: unseen}[subset]


def _in_order(run: RunResult) -> list[str]:
    """The exact posterior first, then the model and its variants, then the rest."""
    there: Mapping[str, object] = next(iter(run.patterns.values())).methods
    wanted = [EXACT, *(variant.name for variant in VARIANTS if variant.name in there)]
    return [*wanted, *(name for name in there if name not in wanted)]
