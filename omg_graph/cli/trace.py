"""``omg trace``: what happened to a sample, told again from the results of ``omg run``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omg_graph.cli.examples import examples
from omg_graph.cli.options import AsJson
from omg_graph.cli.output import print_json, spinner, stdout_console
from omg_graph.cli.whatif import Results, compare, fork

app = typer.Typer(
    help="Results of omg run: as a page, told in the terminal, run on with something changed.",
    no_args_is_help=True,
)
app.command(epilog=examples("trace fork"))(fork)
app.command(epilog=examples("trace compare"))(compare)


@app.command()
def report(
    file: Results,
    output: Annotated[
        Path | None, typer.Option(help="The page; report.html beside the results by default.")
    ] = None,
    sample_ids: Annotated[
        list[str] | None,
        typer.Option("--id", help="Only this sample (repeat it for more).", show_default=False),
    ] = None,
    pixels: Annotated[
        list[str] | None,
        typer.Option(
            "--pixels",
            metavar="NAME=ROWSxCOLUMNS",
            help="Draw a vector as an image, e.g. pix=16x15 (repeat it for more).",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the trace as a page: one file that opens offline.

    It holds the whole story of the first 100 samples; name others with --id.
    """
    from omg_graph.errors import DataError
    from omg_graph.record.results import REPORT, open_run
    from omg_graph.report.page import write_report

    run = open_run(file)
    page = run.folder / REPORT if output is None else output
    if page.is_dir() or not page.parent.is_dir():
        raise DataError(f"--output {page}: a file in a folder that is there was expected: name one")
    pictures = dict(_pixels(each) for each in pixels or ())
    with spinner("writing the report"):
        size = write_report(run, page, ids=sample_ids or (), pictures=pictures)
    count = len(sample_ids or run.trajectories)
    if as_json:
        print_json({"report": str(page), "bytes": size, "samples": count})
        return
    stdout_console().print(f"{page}: {count} samples, {size / 1e6:.1f} MB", markup=False, soft_wrap=True)


@app.command()
def show(
    file: Results,
    sample_id: Annotated[
        str | None,
        typer.Option(
            "--id", help="Which sample; by default the first that misses something.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell the story of one sample in the terminal, and list the others."""
    from omg_graph.cli.story import (
        show_errors,
        show_overview,
        show_run,
        show_terms,
        show_trajectory,
        worth_telling,
    )
    from omg_graph.record.results import document, open_run

    run = open_run(file)
    chosen = worth_telling(run.trajectories) if sample_id is None else run.trajectory(sample_id)
    if as_json:
        print_json(document(chosen))
        return
    console = stdout_console()
    show_run(console, run)
    show_trajectory(console, run, chosen)
    show_terms(console, chosen)
    if sample_id is None and len(run.trajectories) > 1:
        show_overview(console, run.trajectories)
        show_errors(console, run.trajectories)


def _pixels(given: str) -> tuple[str, tuple[int, int]]:
    """``pix=16x15`` taken apart."""
    from omg_graph.errors import ConfigError

    name, _, size = given.rpartition("=")
    rows, _, columns = size.partition("x")
    if not name or not (rows.isdecimal() and columns.isdecimal()) or not int(rows) * int(columns):
        raise ConfigError(f"--pixels: NAME=ROWSxCOLUMNS, such as pix=16x15, was expected, {given!r} came")
    return name, (int(rows), int(columns))
