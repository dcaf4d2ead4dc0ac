"""The paper's rows as a section of the page of results."""

from __future__ import annotations

from omg_graph.bench.paper.beside import LETTERS, Column, Comparison
from omg_graph.bench.paper.tables import METRICS, Metric
from omg_graph.evaluation.report import TITLES, plain, table_head, table_line

DOUBTFUL = "†"


def section(comparison: Comparison) -> str:
    """All methods measured here and all of the paper's, a table for each metric, then notes on cells."""
    lines = [f"## Beside the paper: {comparison.title}", ""]
    lines += [f"- {plain(warning)}" for warning in comparison.warnings]
    letters = ", ".join(f"{letter} {name}" for name, letter in LETTERS.items())
    columns = "missing rates" if comparison.table == "random" else f"observed ({letters})"
    lines += [
        f"- {comparison.printed.about}; in percent, as printed; columns: {columns}; {DOUBTFUL}: a note below",
        "",
    ]
    for metric in METRICS:
        lines += [f"### {TITLES[metric]} beside the paper", "", *_table(comparison, metric), ""]
    if notes := comparison.notes():
        lines += ["### Cells to be careful with", ""]
        lines += [f"- {plain(text.removesuffix('.'))} ({_places(places)})" for text, places in notes.items()]
        lines.append("")
    return "\n".join(lines)


def percent(value: float | None) -> str:
    """One digit after the point, as the paper prints."""
    return "–" if value is None else f"{value:.1f}"


def _table(comparison: Comparison, metric: Metric) -> list[str]:
    columns = comparison.columns
    lines = table_head(["method", *(column.paper for column in columns)])
    for method in comparison.methods:
        cells = (percent(comparison.here(method, metric, column)) for column in columns)
        lines.append(table_line([plain(method), *cells]))
    for method in comparison.paper_methods:
        cells = (_printed(comparison, method, metric, column) for column in columns)
        lines.append(table_line([f"paper: {method}", *cells]))
    return lines


def _printed(comparison: Comparison, method: str, metric: Metric, column: Column) -> str:
    mark = f" {DOUBTFUL}" if comparison.is_doubtful(method, metric, column) else ""
    return percent(comparison.there(method, metric, column)) + mark


def _places(places: tuple[tuple[str, str], ...]) -> str:
    """``PMSM: A, V; Ours: LV``."""
    conditions: dict[str, list[str]] = {}
    for method, condition in places:
        conditions.setdefault(method, []).append(condition)
    return "; ".join(f"{method}: {', '.join(dict.fromkeys(found))}" for method, found in conditions.items())
