"""Data files: ``omg data check`` looks at one, ``omg simulate`` writes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omg_graph.cli.options import AsJson, FillNonfinite, Label, Modalities, TextEncoder, examples, names_in
from omg_graph.cli.output import cell, line, note, spinner, stdout_console, table

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
        _print(report)
    if not report.usable:
        errors = [finding for finding in report.findings if finding.level == "error"]
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        place = f"{errors[0].split}: " if errors[0].split else ""
        first = errors[0].message.removeprefix(f"{file}: ")
        typer.echo(f"{file} can't be used as it is: {place}{first}{more}", err=True)
        raise typer.Exit(2)


def _print(report: DataReport) -> None:
    console = stdout_console()
    line(console, report.path, "bold")
    if report.sha256:
        line(console, f"sha256 {report.sha256}", "dim")
    for split in report.splits:
        _print_split(split, console)
    styles = {"error": "bold red", "warning": "yellow", "note": "dim"}
    for finding in report.findings:
        place = f"{finding.split}: " if finding.split else ""
        line(console, f"{finding.level}: {place}{finding.message}", styles[finding.level])
    if report.usable:
        line(console, "The file can be used.", "bold green")


def _print_split(split: SplitReport, console: Console) -> None:
    """A row for each modality; the last columns count rows, broken ones hold NaN or infinity."""
    figures = ("shape", "lowest", "highest", "mean", "sd", "missing", "zero", "broken")
    shown = table(f"{split.name}: {split.samples} samples", "modality", figures=figures, lines=False)
    for modality in split.modalities:
        shown.add_row(*map(cell, _cells(modality)))
    console.print()
    console.print(shown)
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
        line(console, f"  {fact}")
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


HELD_OUT_SHARE = 0.15
"""Of the speakers, for ``valid`` and again for ``test``."""


def simulate(
    output: Annotated[Path, typer.Option("--output", help="The file to write: .npz or .pkl.")],
    speakers: Annotated[int, typer.Option(min=1, help="Speakers in all; each is in one split only.")] = 100,
    clips: Annotated[int, typer.Option(min=1, help="Clips of each speaker.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the clips; the same seed gives the same file.")] = 0,
    text_encoder: TextEncoder = None,
) -> None:
    """Write synthetic clips (text, audio, vision, sentiment); three speakers or more give three splits."""
    from omg_graph.data.writing import check_path, save_corpus

    check_path(output)
    with spinner("simulating"):
        from omg_graph.encoders.text import MINILM, SentenceEncoder, locate_text_encoder
        from omg_graph.simulator import AffectSimulator, SimulatorConfig

        encoder = SentenceEncoder(locate_text_encoder(MINILM, text_encoder))
        corpus = AffectSimulator(SimulatorConfig(), encoder.embed).corpus(
            speakers_of_splits(speakers), clips, seed, prefix=speaker_prefix(seed)
        )
    splits = {name: simulated.split for name, simulated in corpus.items()}
    save_corpus(output, splits)
    note("synthetic clips: for trying the tool, no evidence about people")
    counts = ", ".join(f"{name}: {len(split)}" for name, split in splits.items())
    typer.echo(f"{sum(map(len, splits.values()))} synthetic clips written to {output} ({counts})")


def speaker_prefix(seed: int) -> str:
    """What speakers are called: strangers to those that the embedded model has in its knowledge base."""
    return f"synthetic-s{seed}"


def speakers_of_splits(speakers: int) -> dict[str, int]:
    """How many speakers each split gets; fewer than three make one split, ``train``."""
    if speakers < 3:
        return {"train": speakers}
    held = max(1, round(HELD_OUT_SHARE * speakers))
    return {"train": speakers - 2 * held, "valid": held, "test": held}
