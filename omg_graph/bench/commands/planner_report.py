"""``omg planner-report``: what a model's planner is worth on held-out samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omg_graph.cli.options import (
    AsJson,
    FillNonfinite,
    Label,
    PlannerFlags,
    TextEncoder,
    require_data,
    with_planner_flags,
)
from omg_graph.cli.output import cell, note, print_json, progress_bar, spinner, stdout_console
from omg_graph.errors import ConfigError

if TYPE_CHECKING:
    from omg_graph.bench.planning.report import PlannerReport


@with_planner_flags
def planner_report(
    data: Annotated[
        Path, typer.Option(help="A pickle or .npz with the model's training rows.", show_default=False)
    ],
    model: Annotated[
        Path | None, typer.Option(help="A folder that omg train wrote; the embedded default if left out.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Which rows to plan for: valid, or another split of the file.")
    ] = "valid",
    planner: Annotated[
        list[str] | None,
        typer.Option(
            help="Which planner (repeat it to compare several); the model's own if left out.",
            show_default=False,
        ),
    ] = None,
    *,
    flags: PlannerFlags,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many samples.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="A folder for planner_report.json and planner_report.md.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides the plans that are drawn, with each sample's id.")] = 0,
    label: Label = None,
    fill_nonfinite: FillNonfinite = None,
    text_encoder: TextEncoder = None,
    as_json: AsJson = False,
) -> None:
    """Measure a planner under every missing pattern: is its target right, is it sure of it, how fast is it?

    Floors stand beside: the commonest answer, and logistic regressions on u_X and on the latents.
    """
    require_data("--data", data)
    from omg_graph.bench.planning.planning import measure_planner
    from omg_graph.cli.options import open_model
    from omg_graph.cli.train import PAGE, REPORT
    from omg_graph.files import write_atomically
    from omg_graph.model.planners import PlannerOptions, make_planner
    from omg_graph.training.model_rows import read_model_rows

    loaded = open_model(model, text_encoder)
    options = flags.options()
    names = planner or [loaded.planner.name]
    if flags.planner_model is not None and set(names) == {loaded.planner.name}:
        raise ConfigError(
            f"{loaded.planner.name} takes no --planner-model, {flags.planner_model!r} came: "
            "name --planner chat too"
        )
    with spinner("loading the planner"):
        own = PlannerOptions()
        planners = [
            make_planner(name, loaded, own if name == loaded.planner.name else options) for name in names
        ]
    rows = read_model_rows(loaded, data, label=label, fill_nonfinite=fill_nonfinite, checked=split)
    for remark in rows.notes:
        note(remark)
    reports = []
    for each in planners:
        with progress_bar(f"planner {each.name}", "patterns") as on_progress:
            reports.append(
                measure_planner(
                    loaded,
                    rows.valid,
                    train=rows.train,
                    planner=each,
                    seed=seed,
                    limit=limit,
                    progress=on_progress,
                )
            )
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        content = "[\n" + ",\n".join(report.to_json().rstrip() for report in reports) + "\n]\n"
        write_atomically(output / REPORT, (content if reports[1:] else reports[0].to_json()).encode())
        write_atomically(output / PAGE, "\n".join(report.markdown() for report in reports).encode())
    if as_json:
        print_json([report.model_dump(mode="json") for report in reports])
    else:
        _show(reports, output)


NARROW = 150
"""Below this many columns the terminal has no room for intervals."""


def halves(table: list[list[str]]) -> dict[str, list[list[str]]]:
    """A table without intervals, and differences in a table of their own.

    Args:
        table: Heads, then rows: what was observed, how many samples, and figures. A head that begins with
            ``less`` is of the difference from the column before it.

    Returns:
        What to add to the title, to heads and rows.
    """
    heads = [
        f"less {before}" if head.startswith("less") else head
        for before, head in zip(["", *table[0]], table[0], strict=False)
    ]
    rows = [[*row[:2], *(figure.partition(" [")[0] for figure in row[2:])] for row in table[1:]]
    differ = [head.startswith(("less", "gain")) for head in heads]
    found = {
        "": [place for place, other in enumerate(differ) if not other],
        ": the planner less others": [0, *(place for place, other in enumerate(differ) if other)],
    }
    return {
        part: [[row[place] for place in places] for row in (heads, *rows)]
        for part, places in found.items()
        if len(places) > 1
    }


def _show(reports: list[PlannerReport], output: Path | None) -> None:
    from rich.table import Table

    from omg_graph.cli.train import PAGE

    console = stdout_console()
    wide = console.width >= NARROW
    for report in reports:
        for line in report.lines():
            console.print(cell(line), soft_wrap=True)
        for question, figures in report.tables().items():
            for part, rows in ({"": figures} if wide else halves(figures)).items():
                table = Table(title=cell(f"the target right, in {question} (%){part}"))
                for number, head in enumerate(rows[0]):
                    table.add_column(head, justify="right" if number else "left")
                for row in rows[1:]:
                    table.add_row(*map(cell, row))
                console.print(table)
        if not wide:
            on_progress = f"intervals are left out below {NARROW} columns; --output and --json have them"
            console.print(cell(on_progress, "dim"), soft_wrap=True)
        for remark in report.notes:
            console.print(cell(remark, "dim"), soft_wrap=True)
    if output is not None:
        console.print(cell(f"the whole of it: {output / PAGE}", "dim"), soft_wrap=True)
