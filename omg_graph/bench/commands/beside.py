"""What ``omg evaluate --beside-paper`` prints: figures measured here over the paper's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from omg_graph.cli.output import cell, stdout_console

if TYPE_CHECKING:
    from omg_graph.bench.paper.beside import Comparison


def show_beside_paper(comparison: Comparison) -> None:
    """Print the model, its floors, the paper's own method and the best of the paper's others."""
    from rich.table import Table

    from omg_graph.bench.paper.page import percent
    from omg_graph.bench.paper.tables import METRICS, OURS
    from omg_graph.evaluation.report import TITLES

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
