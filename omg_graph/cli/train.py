"""``omg train``: from a data file to a model folder, with its knowledge base."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from omg_graph.cli.output import bars, cell, note, print_json, stderr_console, stdout_console

if TYPE_CHECKING:
    from collections.abc import Iterator


SHOWN = ("acc2", "f1", "acc3", "acc5", "acc7", "accuracy", "macro_f1", "mae", "corr", "ece")
"""Metrics that the terminal has room for; the manifest holds them all."""


def train(
    data: Annotated[
        Path,
        typer.Option(help="A pickle or .npz with 'train', and 'valid' to choose on.", show_default=False),
    ],
    output: Annotated[Path, typer.Option(help="The model folder to make.", show_default=False)],
    config: Annotated[
        str | None, typer.Option(help="'paper', 'mosi', 'mosei', 'sims', or a YAML file.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of the executor at most.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option(help="Go on with a run that was cut off.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a model at --output.")] = False,
    modalities: Annotated[
        str | None, typer.Option(help="Use only these, e.g. text,audio.", show_default=False)
    ] = None,
    label: Annotated[str | None, typer.Option(help="Which label is the target.", show_default=False)] = None,
    fill_nonfinite: Annotated[
        Literal["zero", "mean"] | None,
        typer.Option(help="Fill partly non-finite rows: zero or mean.", show_default=False),
    ] = None,
    annotator: Annotated[
        Literal["lexical", "labels", "clusters"] | None,
        typer.Option(help="Where plans come from: lexical, labels or clusters.", show_default=False),
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="A plan schema of your own (YAML).", show_default=False)
    ] = None,
    text_encoder: Annotated[
        Path | None, typer.Option(help="Folder of the text encoder's weights.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Train a model on a data file; samples may miss different modalities.

    Fits on 'train', chooses on 'valid' (or a tenth held out by group), never reads 'test'. A run that was
    cut off, at any moment, goes on with --resume to the same weights.
    """
    from omg_graph.errors import DataError

    if not data.exists():
        raise DataError(f"--data {data}: there is no such file: give a pickle or .npz of samples")
    overrides: dict[str, Any] = {}
    if epochs is not None:
        overrides["optimiser"] = {"epochs": epochs}
    if annotator is not None:
        overrides["planner"] = {"annotator": annotator}

    from omg_graph.training.graph import build_training_graph

    request = {
        "data": str(data),
        "output": str(output),
        "config": config,
        "overrides": overrides,
        "seed": seed,
        "device": device,
        "modalities": None if modalities is None else [name.strip() for name in modalities.split(",")],
        "label": label,
        "fill_nonfinite": fill_nonfinite,
        "schema_file": None if schema is None else str(schema),
        "text_encoder": None if text_encoder is None else str(text_encoder),
        "resume": resume,
        "overwrite": overwrite,
    }
    result: dict[str, Any] = {}
    with _Live() as live:
        told: Iterator[Any] = build_training_graph().stream(request, stream_mode=["custom", "values"])
        for mode, chunk in told:
            if mode == "custom":
                live.told(chunk)
            else:
                result = chunk
    if as_json:
        keys = ("model", "fingerprint", "metrics", "notes", "seconds")
        print_json({key: result[key] for key in keys})
        return
    for remark in result["notes"]:
        note(remark)
    _show(result)


class _Live:
    """A bar for each stage, with its loss; plain lines where no terminal shows them."""

    def __enter__(self) -> _Live:
        from rich.progress import TextColumn

        self.console = stderr_console()
        self.bar = bars(TextColumn("{task.fields[loss]}", markup=False))
        self.bar.start()
        self.tasks: dict[str, Any] = {}
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def told(self, event: dict[str, Any]) -> None:
        """Show one event of the training graph."""
        what, done, of = str(event["stage"]).replace("_", " "), event["done"], event["of"]
        loss = "" if event["loss"] is None else f"loss {event['loss']:.4f}"
        if done and not self.console.is_terminal and done == of:
            note(f"{what}: {done}/{of} {loss}".rstrip())
        if not done:
            return
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=of, loss=loss)
        self.bar.update(self.tasks[what], completed=done, total=of, loss=loss)


def _show(result: dict[str, Any]) -> None:
    from rich.table import Table

    console = stdout_console()
    rows = result["metrics"]["rows"]
    names = [key for key in SHOWN if rows and key in rows[0]]
    table = Table(title="validation: normalised squared error (1 = training mean) and task metrics")
    for head in ("observed", "n", "missing", "error by missing modality", *names):
        table.add_column(head)
    for row in rows:
        errors = ", ".join(f"{name} {value:.3f}" for name, value in row["nmse"].items())
        table.add_row(
            cell(" + ".join(row["observed"])),
            str(row["n"]),
            f"{row['missing_by_nature']:.0%} + {row['hidden']:.0%}",
            cell(errors or "-"),
            *(_number(row.get(name)) for name in names),
        )
    floor = result["metrics"].get("floor") or {}
    if floor:
        table.add_row("best constant", "", "", "1", *(_number(floor.get(name)) for name in names))
    console.print(table)
    console.print(cell("missing: slots missing by nature + hidden for the measurement", "dim"))
    seconds = sum(result["seconds"].values())
    console.print(cell(f"model: {result['model']} ({seconds:.0f} s)", "bold"), soft_wrap=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
