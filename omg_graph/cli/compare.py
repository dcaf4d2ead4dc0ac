"""``omg compare``: paired differences between results of ``omg evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omg_graph.cli.options import AsJson, names_in
from omg_graph.cli.output import cell, print_json, progress_bar, stdout_console

if TYPE_CHECKING:
    from omg_graph.evaluation.intervals import Difference, Resamples, Results


def compare(
    results: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of omg evaluate; of one, its model against its floors. FOLDER:FLOOR is a floor."
        ),
    ],
    method: Annotated[str, typer.Option(help="Whose predictions are compared.")] = "omg",
    metrics: Annotated[
        str | None, typer.Option(help="Only these, e.g. acc2,nmse.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare results on the same samples and masks: paired differences with 95 % intervals.

    The first is compared with each of the others. Whole groups are resampled, the same ones for both.
    """
    from omg_graph.evaluation.intervals import check_pairing, resamples_of
    from omg_graph.evaluation.intervals import compare as differences_of

    first, others = _read(results, method)
    for other in others:
        check_pairing(first, other)
    resamples = resamples_of([first, *others])
    wanted = names_in(metrics)
    found: list[tuple[Results, list[Difference]]] = []
    with progress_bar("comparing", "pairs") as on_progress:
        for number, other in enumerate(others, start=1):
            rows = differences_of(first, other, resamples)
            found.append((other, [row for row in rows if wanted is None or row.metric in wanted]))
            on_progress(number, len(others))
    _check_metrics(wanted, found)
    if as_json:
        comparisons = [
            {"against": other.name, "differences": [row.as_json() for row in rows]} for other, rows in found
        ]
        print_json({"first": first.name, "comparisons": comparisons, "note": resamples.note})
        return
    for other, rows in found:
        _show(first, other, rows, resamples)


def _read(folders: list[Path], method: str) -> tuple[Results, list[Results]]:
    from omg_graph.errors import DataError
    from omg_graph.evaluation.intervals import Results, methods_of
    from omg_graph.evaluation.predictions import read_predictions

    found = []
    for text in folders:
        folder, named = _folder_and_method(text)
        wanted = method if named is None else named
        by_method = methods_of(read_predictions(folder))
        if wanted not in by_method:
            raise DataError(
                f"{folder}: expected predictions of {wanted!r}, there are those of "
                f"{', '.join(by_method)}: name one with --method or by {folder}:METHOD"
            )
        if len(folders) == 1:
            floors = [Results(name, tables) for name, tables in by_method.items() if name != wanted]
            if not floors:
                raise DataError(
                    f"{folder}: expected two results, got one without floors: name another folder"
                )
            return Results(wanted, by_method[wanted]), floors
        found.append(Results(str(text), by_method[wanted]))
    return found[0], found[1:]


def _folder_and_method(text: Path) -> tuple[Path, str | None]:
    """A folder and a method of it; no method where the text names a folder alone."""
    parts = str(text).split(":")
    for count in range(len(parts), 0, -1):
        folder = Path(":".join(parts[:count]))
        if folder.exists():
            return folder, ":".join(parts[count:]) or None
    return text, None


def _check_metrics(wanted: list[str] | None, found: list[tuple[Results, list[Difference]]]) -> None:
    from omg_graph.errors import ConfigError

    there = {row.metric for _, rows in found for row in rows}
    strange = [name for name in wanted or () if name not in there]
    if strange:
        raise ConfigError(
            f"--metrics: expected metrics that both results have, got {strange[0]!r}: leave it out"
        )


def _show(first: Results, other: Results, rows: list[Difference], resamples: Resamples) -> None:
    from rich.table import Table

    from omg_graph.evaluation.intervals import AVERAGE
    from omg_graph.evaluation.report import TITLES, figure_text

    console = stdout_console()
    table = Table(title=cell(f"{first.name} less {other.name}"))
    for head in ("metric", "condition"):
        table.add_column(head)
    for head in ("first", "second", "difference"):
        table.add_column(head, justify="right")
    table.add_column("verdict")
    for number, row in enumerate(rows):
        ends = number + 1 == len(rows) or rows[number + 1].condition == AVERAGE
        table.add_row(
            TITLES.get(row.metric, row.metric),
            cell(row.condition, "bold" if row.condition == AVERAGE else ""),
            f"{row.first:.3f}",
            f"{row.second:.3f}",
            cell(figure_text(row.difference, interval=True, signed=True)),
            row.verdict,
            end_section=ends,
        )
    console.print(table)
    console.print(cell(resamples.note), soft_wrap=True)
