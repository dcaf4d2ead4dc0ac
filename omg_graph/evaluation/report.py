"""An evaluation as a Markdown page."""

from __future__ import annotations

from collections.abc import Sequence

from omg_graph.data.arrays import printable
from omg_graph.evaluation.bootstrap import Interval
from omg_graph.evaluation.comparison import AVERAGE
from omg_graph.evaluation.summary import Summary

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
