"""``omg doctor``: what is installed and usable, and what to do about what isn't."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omg_graph.cli.options import AsJson

if TYPE_CHECKING:
    from omg_graph.cli.checks import Check

SIGNS = {"ok": ("ok", "green"), "note": ("-", "yellow"), "problem": ("PROBLEM", "bold red")}


def doctor(
    model: Annotated[
        Path | None, typer.Option("--model", help="A model folder to check; else the embedded default.")
    ] = None,
    text_encoder: Annotated[
        Path | None,
        typer.Option(
            "--text-encoder",
            "--encoder-model",
            help="A folder with the text encoder's weights, or the Qwen2.5-Omni thinker's.",
        ),
    ] = None,
    network: Annotated[
        bool, typer.Option("--network", help="Ask the Hugging Face hub too, and download if need be.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is installed and usable; exit with 1 where the model doesn't work."""
    from omg_graph.cli.checks import run_checks
    from omg_graph.cli.output import print_json, spinner

    with spinner("looking around"):
        checks = run_checks(model, text_encoder, network)
    usable = all(check.status != "problem" for check in checks)
    if as_json:
        print_json({"usable": usable, "checks": [asdict(check) for check in checks]})
    else:
        _print(checks, usable)
    if not usable:
        raise typer.Exit(1)


def _print(checks: list[Check], usable: bool) -> None:
    from rich import box
    from rich.table import Table

    from omg_graph.cli.output import cell, stdout_console

    console = stdout_console()
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    area = ""
    for check in checks:
        if check.area != area:
            table.add_section()
            table.add_row("", cell(check.area, style="bold"))
            area = check.area
        sign, style = SIGNS[check.status]
        table.add_row(cell(sign, style=style), cell(check.name), cell(check.found), cell(check.remedy))
    console.print(table)
    verdict = ("All that is needed is there.", "bold green") if usable else ("Not usable yet.", "bold red")
    console.print(cell(verdict[0], style=verdict[1]))
