"""The figures of an evaluation with their intervals, and what the model gains over each floor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omg_graph.evaluation.bootstrap import Interval, Resamples, average, interval
from omg_graph.evaluation.comparison import AVERAGE, ByCondition, Difference, methods_of, paired
from omg_graph.evaluation.statistics import Statistic, statistics_of
from omg_graph.evaluation.tables import SampleTable, conditions_in_order


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
    names, statistics = list(by_method), statistics_of(tables)
    resamples = Resamples.of(
        [sample for table in tables for sample in table.ids],
        [group for table in tables for group in table.groups],
    )
    figures: dict[tuple[str, str, str], Interval] = {}
    differences: dict[str, list[Difference]] = {name: [] for name in names[1:]}
    for statistic in statistics:
        values = {name: resamples.by_condition(statistic, group) for name, group in by_method.items()}
        for name, rows in values.items():
            figures |= _figures(name, statistic, rows)
        for name in names[1:]:
            differences[name] += paired(statistic, values[names[0]], values[name])
    return Summary(
        conditions=tuple(conditions_in_order(tables)),
        methods=tuple(names),
        metrics=tuple(statistic.name for statistic in statistics),
        lower_is_better=frozenset(s.name for s in statistics if s.lower_is_better),
        figures=figures,
        differences=differences,
        note=resamples.note,
        rough=resamples.rough,
    )


def _figures(method: str, statistic: Statistic, rows: ByCondition) -> dict[tuple[str, str, str], Interval]:
    defined = {name: values for name, values in rows.items() if not np.isnan(values[0])}
    if not defined:
        return {}
    averaged = {AVERAGE: average(list(defined.values()))}
    return {(method, statistic.name, name): interval(values) for name, values in (averaged | defined).items()}
