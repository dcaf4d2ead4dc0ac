"""A setting's figures over its seeds: how far from the exact posterior, with intervals over whole groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from omg_graph.evaluation.bootstrap import RESAMPLES, Interval, Resamples, average, interval
from omg_graph.metrics.labelled import Numbers
from omg_graph.samples.dataset import BoolArray
from omg_graph.study.runs import EXACT, EXACT_TOLD, TOLD, RunResult
from omg_graph.study.variants import MODEL, VARIANTS

Values = Callable[[str], Numbers]
"""The name of a method to a metric's value in each resample, (resamples + 1,)."""

METRICS = {
    "nmse": "squared error",
    "energy": "energy score",
    "error_ratio": "squared error ÷ exact",
    "energy_ratio": "energy score ÷ exact",
    "degree_ratio": "degree accuracy ÷ Bayes",
    "sign_ratio": "sign accuracy ÷ Bayes",
}
"""What is told of every method; the ratios are what the goals speak of."""
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
EVERYONE, UNSEEN = "all clips", "unseen contents"


@dataclass(frozen=True)
class SettingFigures:
    """What came out of one setting."""

    name: str
    seeds: tuple[int, ...]
    training_clips: int
    test_clips: int
    note: str
    """What the intervals rest on."""
    methods: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    """Subset to method to metric, averaged over patterns and seeds."""
    by_pattern: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    """Pattern to method to metric, all clips, averaged over seeds."""
    gains: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    """Subset to variant to a ratio: the variant's less the model's; above zero where the model is better."""
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
    subsets = [EVERYONE, UNSEEN] if any(any(run.unseen) for run in runs) else [EVERYONE]
    patterns, names = list(first.patterns), _in_order(first)
    made = SettingFigures(
        first.setting,
        tuple(run.seed for run in runs),
        first.training_clips,
        len(first.ids),
        drawn.note,
        seconds=round(sum(run.seconds for run in runs), 1),
    )
    for subset in subsets:
        values = {
            name: {metric: table.averaged(patterns, subset, metric, name) for metric in METRICS}
            for name in names
        }
        made.methods[subset] = {
            name: {metric: interval(series) for metric, series in of_name.items()}
            for name, of_name in values.items()
        }
        made.gains[subset] = {
            variant.name: {
                metric: interval(values[variant.name][metric] - values[MODEL.name][metric])
                for metric in GAINED
            }
            for variant in VARIANTS
            if variant is not MODEL and not variant.taught and variant.name in names
        }
    for pattern in patterns:
        made.by_pattern[pattern] = {
            name: {metric: interval(table.averaged([pattern], EVERYONE, metric, name)) for metric in METRICS}
            for name in names
        }
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
    return EXACT_TOLD if method == EXACT_TOLD or method.endswith(TOLD) else EXACT


@dataclass(frozen=True)
class _Table:
    """The runs' clips, summed over the groups of each resample."""

    runs: Sequence[RunResult]
    drawn: Resamples

    def averaged(self, patterns: Sequence[str], subset: str, metric: str, method: str) -> Numbers:
        """(resamples + 1,): the metric, averaged over patterns and seeds."""
        above, below = PARTS[metric]
        series = []
        for run in self.runs:
            rows = np.array(run.unseen) if subset == UNSEEN else np.ones(len(run.ids), dtype=np.bool_)
            for pattern in patterns:
                methods = run.patterns[pattern].methods
                own = methods[method]
                other = methods[reference(method)] if metric.endswith("ratio") else own
                ones = [1.0] * len(run.ids)
                series.append(self._ratio(run, own[above], ones if below is None else other[below], rows))
        return average(series)

    def followed(self, patterns: Sequence[str], method: str, kind: str) -> Numbers:
        """(resamples + 1,): the share followed, over the clips of all patterns, averaged over seeds."""
        series = []
        for run in self.runs:
            found = [run.patterns[pattern].swaps[method][kind] for pattern in patterns]
            along, wanted = (
                np.sum([part[name] for part in found], axis=0).tolist() for name in ("along", "wanted")
            )
            series.append(self._ratio(run, along, wanted, np.ones(len(run.ids), dtype=np.bool_)))
        return average(series)

    def _ratio(
        self, run: RunResult, above: Sequence[float], below: Sequence[float], rows: BoolArray
    ) -> Numbers:
        units = [self.drawn.unit_of[sample] for sample in run.ids]
        sums = np.zeros((self.drawn.units, 2))
        np.add.at(sums, units, np.stack([above, below], axis=1) * rows[:, None])
        over, under = (self.drawn.counts.astype(np.float64) @ sums).T
        ratio = np.full(len(over), np.nan)
        np.divide(over, under, out=ratio, where=under > 0)
        return ratio


def _in_order(run: RunResult) -> list[str]:
    """The exact posterior first, then the model and its variants, then the rest."""
    there: Mapping[str, object] = next(iter(run.patterns.values())).methods
    wanted = [EXACT, *(variant.name for variant in VARIANTS if variant.name in there)]
    return [*wanted, *(name for name in there if name not in wanted)]
