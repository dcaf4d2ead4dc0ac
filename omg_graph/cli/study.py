"""``omg study``: the method on simulated clips, whose exact posterior is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omg_graph.cli.options import AsJson, TextEncoder
from omg_graph.cli.output import bars, cell, note, print_json, stdout_console

if TYPE_CHECKING:
    from omg_graph.study.study import Study


def study(
    output: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="modes, rare-details, compositions or embedded (repeat it for more).", show_default=False
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Worlds and trainings of each setting, from 0.")] = 3,
    draws: Annotated[int, typer.Option(min=2, help="Samples of what is missing.")] = 19,
    text_encoder: TextEncoder = None,
    as_json: AsJson = False,
) -> None:
    """Train on simulated clips and measure how far the model is from the exact posterior.

    Finished runs are kept in --output: the same command goes on where it was cut off. Writes study.json,
    study.md and, with matplotlib, plots.
    """
    from omg_graph.study.settings import settings_named
    from omg_graph.study.study import StudyRequest, run_study

    settings = settings_named(tuple(only or ()))
    bar = bars()
    tasks: dict[str, Any] = {}

    def told(run: str, what: str, done: int, of: int) -> None:
        if run not in tasks:
            tasks[run] = bar.add_task(run, total=of)
        bar.update(tasks[run], description=f"{run}: {what}", completed=done, total=of)

    with bar:
        result = run_study(StudyRequest(output, tuple(settings), seeds, text_encoder, draws=draws), told)
    if as_json:
        print_json(result.document)
        return
    for remark in result.notes:
        note(remark)
    _show(result, output)


def _show(result: Study, output: Path) -> None:
    from rich.table import Table

    from omg_graph.study.figures import METRICS
    from omg_graph.study.report import GOALS, number, reached
    from omg_graph.study.variants import MODEL

    console = stdout_console()
    for item in result.settings:
        for subset, methods in item.methods.items():
            table = Table(title=f"{item.name}, {subset}")
            table.add_column("method")
            for metric in METRICS.values():
                table.add_column(metric, justify="right")
            for name, row in methods.items():
                figures = [cell(f"{row[metric].value:.3f}") for metric in METRICS]
                table.add_row(cell(name, "bold" if name == MODEL.name else ""), *figures)
            console.print(table)
            for metric, goal in GOALS.items():
                figure = methods[MODEL.name][metric]
                verdict = "reached" if reached(metric, figure) else "not reached"
                console.print(
                    cell(f"{METRICS[metric]}: {number(figure)}, goal {goal:.2f}: {verdict}"), soft_wrap=True
                )
        followed = item.followed[MODEL.name]
        shares = ", ".join(f"{kind} {number(share)}" for kind, share in followed.items())
        console.print(cell(f"share of a swap that the model follows: {shares}"), soft_wrap=True)
    console.print(cell(f"results: {output}", "bold"), soft_wrap=True)
