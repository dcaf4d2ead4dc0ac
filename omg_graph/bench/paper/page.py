"""The paper's rows beside those measured here: a section of the page of results, and a table to print."""

from __future__ import annotations

from omg_graph.bench.paper.beside import LETTERS, Column, Comparison
from omg_graph.bench.paper.tables import METRICS, OURS, Metric
from omg_graph.cli.output import cell, stdout_console
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


def show(comparison: Comparison) -> None:
    """Print the model, its floors, the paper's own method and the best of the paper's others."""
    from rich.table import Table

    console, columns = stdout_console(), comparison.columns
    what = "missing rate" if comparison.table == "random" else "observed: L text, V vision, A audio"
    table = Table(title=f"beside the paper's {comparison.title}, in percent ({what})")
    table.add_column("")
    table.add_column("method")
    for column in columns:
        table.add_column(column.paper, justify="right")
    for metric in METRICS:
        rows = {
            method: [comparison.here(method, metric, column) for column in columns]
            for method in comparison.methods
        }
        ours: list[float | None] = [comparison.there(OURS, metric, column) for column in columns]
        others: list[float | None] = [comparison.best_of_the_others(metric, column)[1] for column in columns]
        rows |= {f"paper: {OURS}": ours, "paper: best of the others": others}
        names = list(rows)
        for name, values in rows.items():
            first, last = name == names[0], name == names[-1]
            table.add_row(
                TITLES[metric] if first else "",
                cell(name, "bold" if first else ""),
                *map(percent, values),
                end_section=last,
            )
    console.print(table)
    for warning in comparison.warnings:
        console.print(cell(f"warning: {warning}", "yellow"), soft_wrap=True)


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
