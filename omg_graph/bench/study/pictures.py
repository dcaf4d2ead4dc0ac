"""Pictures of a study: distances from the exact posterior, what plan and evidence bring, right plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from omg_graph.bench.study.figures import GAINED, METRICS, SettingFigures
from omg_graph.bench.study.report import GOALS, LACKING, lines_of
from omg_graph.bench.study.runs import EXACT
from omg_graph.bench.study.variants import MODEL
from omg_graph.evaluation.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINE = 0.34
"""Inches that a line takes."""
NAME_WIDTH = 44
"""Characters of a name on one line."""
APART = 0.22
"""Between the series of one line, of a line's height."""


def draw_setting(item: SettingFigures, folder: Path) -> Path:
    """One PNG, everything with intervals.

    Above, both ratios of every method and subset, with the goal and the exact posterior. Below, on each line
    what is observed and which clips: what the model would lose without its plan, evidence or both, and how
    often each field of its plans is right, beside Bayes's rule.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    some = next(iter(item.subsets.values()))
    names = [name for name in some.methods if not name.startswith(EXACT)]
    lines = {f"{observed}, {subset}": found for observed, subset, found in lines_of(item)}
    planned = {
        f"{line}, {field}": {who: found.plans[who][field] for who in (EXACT, MODEL.name)}
        for line, found in lines.items()
        for field in found.plans[MODEL.name]
    }
    heights = [1.2 + LINE * len(names), 1.2 + LINE * max(len(lines), len(planned) / 2)]
    figure, panels = pyplot.subplots(
        2, 2, figsize=(12, sum(heights)), height_ratios=heights, layout="constrained"
    )
    for panel, metric in zip(panels[0], GAINED, strict=True):
        _series(
            panel,
            names,
            {
                subset: [found.methods[name][metric] for name in names]
                for subset, found in item.subsets.items()
            },
        )
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.axvline(GOALS[metric], color="grey", linewidth=0.8, linestyle="--")
        panel.set_xlabel(METRICS[metric])
    panels[0][1].tick_params(labelleft=False)
    gained = {
        label: [found.gains[lacking][GAINED[0]] for found in lines.values()]
        for lacking, label in LACKING.items()
        if lacking in some.gains
    }
    _series(panels[1][0], list(lines), gained)
    panels[1][0].axvline(0.0, color="black", linewidth=0.8)
    panels[1][0].set_xlabel(f"{METRICS[GAINED[0]]}, less the model's")
    _series(
        panels[1][1],
        list(planned),
        {
            label: [row[who] for row in planned.values()]
            for who, label in ((EXACT, "Bayes's rule"), (MODEL.name, "plans"))
        },
    )
    panels[1][1].set_xlabel("share of plans that are right")
    figure.suptitle(f"{item.name}: exact posterior at 1, goal dashed")
    path = folder / f"{item.name}.png"
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def _series(panel: Axes, names: Sequence[str], series: Mapping[str, Sequence[Interval]]) -> None:
    """Points with intervals, a line for each name, the series of a line below each other."""
    for number, (label, found) in enumerate(series.items()):
        panel.errorbar(
            [figure.value for figure in found],
            [place + APART * number for place in range(len(names))],
            xerr=[
                [max(figure.value - figure.low, 0.0) for figure in found],
                [max(figure.high - figure.value, 0.0) for figure in found],
            ],
            fmt="o",
            capsize=2,
            markersize=4,
            label=label,
        )
    panel.set_yticks(range(len(names)), [fill(name, NAME_WIDTH) for name in names], fontsize="small")
    panel.invert_yaxis()
    panel.grid(alpha=0.3)
    if series:
        panel.legend(fontsize="small", loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(series))
