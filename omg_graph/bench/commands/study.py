"""``omg study``: the method on simulated clips, whose exact posterior is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omg_graph.cli.options import AsJson, TextEncoder
from omg_graph.cli.output import bars, cell, note, print_json, stdout_console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from omg_graph.bench.study.figures import Figures
    from omg_graph.bench.study.study import Study


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
    from omg_graph.bench.study.settings import settings_named
    from omg_graph.bench.study.study import StudyRequest, run_study

    settings = settings_named(tuple(only or ()))
    bar = bars()
    tasks: dict[str, Any] = {}

    def on_progress(run: str, what: str, done: int, of: int) -> None:
        if run not in tasks:
            tasks[run] = bar.add_task(run, total=of)
        bar.update(tasks[run], description=f"{run}: {what}", completed=done, total=of)

    with bar:
        result = run_study(
            StudyRequest(output, tuple(settings), seeds, text_encoder, draws=draws), on_progress
        )
    if as_json:
        print_json(result.document)
        return
    for remark in result.notes:
        note(remark)
    _show(result, output)


def _show(result: Study, output: Path) -> None:
    from rich.table import Table

    from omg_graph.bench.study.figures import METRICS
    from omg_graph.bench.study.report import number
    from omg_graph.bench.study.variants import MODEL

    console = stdout_console()
    for item in result.settings:
        for subset, found in item.subsets.items():
            table = Table(title=f"{item.name}, {subset}")
            table.add_column("method")
            for metric in METRICS.values():
                table.add_column(metric, justify="right")
            for name, row in found.methods.items():
                figures = [cell(f"{row[metric].value:.3f}") for metric in METRICS]
                table.add_row(cell(name, "bold" if name == MODEL.name else ""), *figures)
            console.print(table)
            for line in _about_model(found):
                console.print(cell(line), soft_wrap=True)
        followed = item.followed[MODEL.name]
        shares = ", ".join(f"{kind} {number(share)}" for kind, share in followed.items())
        console.print(cell(f"share of a swap that the model follows: {shares}"), soft_wrap=True)
    console.print(cell(f"results: {output}", "bold"), soft_wrap=True)


def _about_model(found: Figures) -> Iterator[str]:
    """Each goal, what the model would lose without plan, evidence or both, and how right its plans are."""
    from omg_graph.bench.study.figures import GAINED, METRICS
    from omg_graph.bench.study.report import GOALS, LACKING, with_goal, with_verdict
    from omg_graph.bench.study.runs import EXACT
    from omg_graph.bench.study.variants import MODEL

    for metric, goal in GOALS.items():
        yield f"{METRICS[metric]}, goal {goal:.2f}: {with_goal(metric, found.methods[MODEL.name][metric])}"
    for lacking, on_progress in LACKING.items():
        if lacking in found.gains:
            yield f"{METRICS[GAINED[0]]} {on_progress}: {with_verdict(found.gains[lacking][GAINED[0]])}"
    best = found.plans[EXACT]
    fields = (
        f"{field} {right.value:.2f} (Bayes's rule {best[field].value:.2f})"
        for field, right in found.plans[MODEL.name].items()
    )
    yield f"its plans are right: {', '.join(fields)}"
