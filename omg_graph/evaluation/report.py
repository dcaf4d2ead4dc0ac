"""An evaluation for people: a page of Markdown, and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from omg_graph.data.arrays import printable
from omg_graph.evaluation.intervals import AVERAGE, Interval, Summary

TITLES = {
    "acc2": "ACC2",
    "f1": "F1",
    "acc2_has0": "ACC2 (has 0)",
    "f1_has0": "F1 (has 0)",
    "acc3": "ACC3",
    "acc5": "ACC5",
    "acc7": "ACC7",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "mae": "MAE",
    "corr": "corr",
    "ece": "ECE",
    "nll": "NLL",
    "nmse": "NMSE",
    "energy_score": "energy score",
    "coverage90": "90 % covers",
}


def title(metric: str, summary: Summary) -> str:
    """A column's head, with an arrow the way that is better."""
    name = TITLES.get(metric, metric)
    if metric == "coverage90":
        return name
    return f"{name} {'↓' if metric in summary.lower_is_better else '↑'}"


def markdown(summary: Summary, *, heading: str, facts: Sequence[str]) -> str:
    """The averages of all methods with intervals, what the model gains, and a table for each condition."""
    parts = [f"# {plain(heading)}", "", *(f"- {plain(fact)}" for fact in (*facts, summary.note)), ""]
    parts += ["## Averaged over conditions and seeds", "", *_table(summary, AVERAGE, intervals=True), ""]
    if summary.differences:
        parts += [f"## {plain(summary.methods[0])} less each floor, averaged", "", *_gains(summary), ""]
    parts += ["## Condition by condition", ""]
    for condition in summary.conditions:
        parts += [f"### {plain(condition)}", "", *_table(summary, condition, intervals=False), ""]
    return "\n".join(parts)


def figure_text(figure: Interval | None, *, interval: bool = False, signed: bool = False) -> str:
    """A figure in three digits, with its interval where that is wanted."""
    if figure is None or figure.value != figure.value:
        return "–"
    form = "+.3f" if signed else ".3f"
    text = format(figure.value, form)
    if interval and figure.low == figure.low:
        text += f" [{format(figure.low, form)}, {format(figure.high, form)}]"
    return text


def _table(summary: Summary, condition: str, *, intervals: bool) -> list[str]:
    metrics = [
        metric
        for metric in summary.metrics
        if any((method, metric, condition) in summary.figures for method in summary.methods)
    ]
    lines = table_head(["method", *(title(metric, summary) for metric in metrics)])
    for method in summary.methods:
        figures = [summary.figures.get((method, metric, condition)) for metric in metrics]
        lines.append(table_line([plain(method), *(figure_text(f, interval=intervals) for f in figures)]))
    return lines


def _gains(summary: Summary) -> list[str]:
    lines = table_head(["floor", *(title(metric, summary) for metric in summary.metrics)])
    for floor in summary.methods[1:]:
        cells = [plain(floor)]
        for metric in summary.metrics:
            gain = summary.gain(floor, metric)
            if gain is None:
                cells.append("–")
            else:
                text = figure_text(gain.difference, interval=True, signed=True)
                cells.append(
                    text if gain.verdict != "no difference shown" else f"{text}: no difference shown"
                )
        lines.append(table_line(cells))
    return lines


def table_head(cells: Sequence[str]) -> list[str]:
    """The head of a Markdown table: names to the left, figures to the right."""
    return [table_line(cells), table_line(["---", *("---:" for _ in cells[1:])])]


def table_line(cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """Text of a file or a user in one line of a table."""
    return printable(text).replace("|", "\\|").replace("\n", " ")


HOW_TO_GET = "plots were left out: install the extra for them with pip install 'omg-graph[bench]'"
METRICS = ("acc2", "acc7", "acc5", "accuracy", "mae", "nmse", "energy_score")
"""Those that are drawn, where they are measured."""


def plots_available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def draw_plots(summary: Summary, rates: Mapping[str, float], folder: Path) -> list[Path]:
    """A PNG for each metric: the model and every floor, with their intervals.

    Args:
        summary: the figures.
        rates: condition to missing rate, where conditions are points on that axis; else they are categories.
        folder: where the files go; it is made.

    Returns:
        The files.
    """
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for metric in (name for name in METRICS if summary.averaged(summary.methods[0], name) is not None):
        figure, axes = pyplot.subplots(figsize=(8, 4.8), layout="constrained")
        shown = [
            name
            for name in summary.conditions
            if any((method, metric, name) in summary.figures for method in summary.methods)
        ]
        numeric = bool(rates) and all(name in rates for name in shown)
        places = [rates[name] for name in shown] if numeric else list(range(len(shown)))
        step = np.ptp(places) / max(len(places) - 1, 1) if numeric else 1.0
        for number, method in enumerate(summary.methods):
            # side by side, so that no interval hides another
            shift = 0.6 * step * (number / len(summary.methods) - 0.5)
            shifted = [place + shift for place in places]
            _draw_method(axes, summary, metric, method, shown, shifted, number, joined=numeric)
        if numeric:
            axes.set_xlabel("missing rate")
        else:
            axes.set_xticks(places, shown, rotation=30, ha="right")
            axes.set_xlabel("condition")
        axes.set_ylabel(title(metric, summary))
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", fontsize="small")
        path = folder / f"{metric}.png"
        figure.savefig(path, dpi=120)
        pyplot.close(figure)
        made.append(path)
    return made


def _draw_method(
    axes: object,
    summary: Summary,
    metric: str,
    method: str,
    conditions: Sequence[str],
    places: Sequence[float],
    number: int,
    *,
    joined: bool,
) -> None:
    figures = [summary.figures.get((method, metric, name)) for name in conditions]
    values = np.array([np.nan if figure is None else figure.value for figure in figures])
    low = np.array([np.nan if figure is None else figure.low for figure in figures])
    high = np.array([np.nan if figure is None else figure.high for figure in figures])
    first = number == 0
    spread = np.stack([(values - low).clip(min=0), (high - values).clip(min=0)])
    axes.errorbar(  # type: ignore[attr-defined]
        places,
        values,
        yerr=np.nan_to_num(spread),
        label=method,
        marker="o",
        markersize=6 if first else 4,
        linestyle="-" if joined else "none",
        linewidth=2.2 if first else 0.8,
        elinewidth=1.4 if first else 0.8,
        alpha=1.0 if first else 0.65,
        color="black" if first else f"C{number - 1}",
        zorder=3 if first else 2,
        capsize=2,
    )
