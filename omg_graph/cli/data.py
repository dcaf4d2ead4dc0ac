"""``omg data``: look at a data file before anything is done with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omg_graph.cli.options import AsJson, FillNonfinite, Label, Modalities, examples, names_in

if TYPE_CHECKING:
    from rich.console import Console

    from omg_graph.data.checking import DataReport, ModalityReport, SplitReport

app = typer.Typer(help="Look at data files.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Look at data files."""


@app.command(epilog=examples("data check"))
def check(
    file: Annotated[Path, typer.Argument(help="A pickle or .npz file of samples.")],
    modalities: Modalities = None,
    label: Label = None,
    fill_nonfinite: FillNonfinite = None,
    as_json: AsJson = False,
) -> None:
    """Say what a file holds and what is wrong with it; exit with 2 where it can't be used."""
    from omg_graph.data.checking import check_data

    report = check_data(file, modalities=names_in(modalities), label=label, fill_nonfinite=fill_nonfinite)
    if as_json:
        typer.echo(report.model_dump_json(indent=2))
    elif report.splits:
        from rich.console import Console

        _print(report, Console())
    if not report.usable:
        errors = [finding for finding in report.findings if finding.level == "error"]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        place = f"{errors[0].split}: " if errors[0].split else ""
        first = errors[0].message.removeprefix(f"{file}: ")
        typer.echo(f"{file} can't be used as it is: {place}{first}{more}", err=True)
        raise typer.Exit(2)


def _print(report: DataReport, console: Console) -> None:
    console.print(report.path, style="bold", markup=False, highlight=False, soft_wrap=True)
    if report.sha256:
        console.print(f"sha256 {report.sha256}", style="dim", highlight=False)
    for split in report.splits:
        _print_split(split, console)
    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for finding in report.findings:
        place = f"{finding.split}: " if finding.split else ""
        line = f"{finding.level}: {place}{finding.message}"
        console.print(line, style=styles[finding.level], markup=False, highlight=False, soft_wrap=True)
    if report.usable:
        console.print("The file can be used.", style="bold green")


def _print_split(split: SplitReport, console: Console) -> None:
    """A row for each modality; the last columns count rows, broken ones hold NaN or infinity."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text(f"{split.name}: {split.samples} samples")
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("modality", no_wrap=True)
    for heading in ("shape", "lowest", "highest", "mean", "sd", "missing", "zero", "broken"):
        table.add_column(heading, justify="right")
    for modality in split.modalities:
        table.add_row(*map(Text, _cells(modality)))
    console.print()
    console.print(table)
    facts = [
        f"ids: {split.ids}",
        f"groups: {split.groups} by {split.group_source}, the largest of {split.largest_group}",
        f"complete: {split.complete}, nothing observed: {split.nothing_observed}",
    ]
    if split.with_text is not None:
        facts.append(f"with a transcript: {split.with_text}")
    facts += [
        f"frames of {modality.name}: {modality.shortest} to {modality.longest} of {modality.shape[0]}"
        for modality in split.modalities
        if modality.shortest is not None
    ]
    facts += [
        f"lost frames of {modality.name}: {modality.lost_frames} in {modality.lost_rows} samples"
        for modality in split.modalities
        if modality.lost_frames
    ]
    labels = split.labels
    if labels is not None:
        span = (
            ""
            if labels.minimum is None
            else f", {labels.minimum:g} to {labels.maximum:g}, median {labels.median:g}"
        )
        counts = "  ".join(f"{name}: {count}" for name, count in labels.counts.items())
        facts.append(
            f"{labels.name} ({labels.kind}): {labels.labelled} labelled{span}"
            + (f"; {counts}" if counts else "")
        )
    for fact in facts:
        console.print(f"  {fact}", markup=False, highlight=False, soft_wrap=True)
    console.print()


def _cells(modality: ModalityReport) -> list[str]:
    values = modality.minimum is not None
    shape = " x ".join(map(str, modality.shape))
    return [
        modality.name,
        f"{modality.kind} {shape}",
        f"{modality.minimum:.3g}" if values else "-",
        f"{modality.maximum:.3g}" if values else "-",
        f"{modality.mean:.3g}" if values else "-",
        f"{modality.deviation:.3g}" if values else "-",
        str(modality.missing_rows),
        str(modality.zero_rows),
        str(modality.nonfinite_rows),
    ]
