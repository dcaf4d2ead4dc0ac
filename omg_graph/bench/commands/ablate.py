"""``omg ablate``: variants of the method by name, each trained and measured like the method itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omg_graph.cli.options import AsJson, Device, Label, TextEncoder
from omg_graph.cli.output import bars, cell, print_json, stdout_console

if TYPE_CHECKING:
    from omg_graph.bench.ablation.results import AblationResults
    from omg_graph.bench.ablation.runs import Progress


def ablate(
    data: Annotated[
        Path | None,
        typer.Option(help="A pickle or .npz with 'train', and 'valid' or 'test'.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the results; go on with it later.", show_default=False)
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A variant, or several with commas; all of them if left out.", show_default=False),
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="List the variants, and do nothing else.")] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Models of each variant, from --seed on.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed.")] = 0,
    folds: Annotated[
        int | None,
        typer.Option(min=2, help="Cross-validate by group over train and valid.", show_default=False),
    ] = None,
    missing_rate: Annotated[float, typer.Option(min=0.0, max=1.0, help="Of the random protocol.")] = 0.7,
    mask_seeds: Annotated[int, typer.Option(min=1, help="Masks drawn at that rate.")] = 5,
    config: Annotated[
        str | None, typer.Option(help="'paper', 'mosi', 'mosei', 'sims', or a YAML file.", show_default=False)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of the executor at most.", show_default=False)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Measured on; test, else valid, if left out.", show_default=False)
    ] = None,
    patterns: Annotated[
        str | None,
        typer.Option(help="Fixed: what is observed, e.g. text,text+audio.", show_default=False),
    ] = None,
    metrics: Annotated[
        str, typer.Option(help="Family of metrics: auto, mosi, sims, classes or number.")
    ] = "auto",
    draws: Annotated[int, typer.Option(min=0, help="Samples of what is missing; 0 for none.")] = 0,
    floors: Annotated[str, typer.Option(help="Floors beside: fast, networks, all or none.")] = "fast",
    label: Label = None,
    fill_nonfinite: Annotated[
        str | None, typer.Option(help="Fill partly non-finite rows: zero or mean.", show_default=False)
    ] = None,
    beside_paper: Annotated[
        str | None,
        typer.Option(help="The paper's figures beside: mosi or mosei; the recipe's.", show_default=False),
    ] = None,
    keep_models: Annotated[bool, typer.Option(help="Keep the models when they are measured.")] = True,
    device: Device = "auto",
    text_encoder: TextEncoder = None,
    as_json: AsJson = False,
) -> None:
    """Put other components in the method's place, train each anew, and tell what each part brings.

    Measured at one random missing rate and under every fixed pattern; paired differences from the method with
    intervals. What is finished stays: called again, with more seeds or names too, it goes on.
    """
    from omg_graph.errors import ConfigError, DataError

    if names:
        _list(as_json)
        return
    if data is None or output is None:
        raise ConfigError("expected --data FILE and --output DIR, or --list: give both")
    if not data.is_file():
        raise DataError(f"--data {data}: there is no such file: give a pickle or .npz of samples")
    if fill_nonfinite not in (None, "zero", "mean"):
        raise ConfigError(f"--fill-nonfinite is zero or mean, {fill_nonfinite!r} came")

    from omg_graph.bench.ablation.ablate import ablate as run_ablation
    from omg_graph.bench.ablation.runs import AblationRequest
    from omg_graph.bench.paper.tables import dataset_named

    request = AblationRequest(
        data=data,
        output=output,
        only=[name.strip() for part in only or () for name in part.split(",")],
        seeds=seeds,
        first_seed=seed,
        folds=folds,
        missing_rate=missing_rate,
        mask_seeds=mask_seeds,
        config=config,
        epochs=epochs,
        split=split,
        patterns=None if patterns is None else [part.split("+") for part in patterns.split(",")],
        metrics=metrics,
        draws=draws,
        floors=floors,
        device=device,
        label=label,
        fill_nonfinite="zero" if fill_nonfinite == "zero" else "mean" if fill_nonfinite else None,
        text_encoder=text_encoder,
        keep_models=keep_models,
        beside_paper=None if beside_paper is None else dataset_named(beside_paper),
    )
    with _progress() as on_progress:
        results = run_ablation(request, on_progress)
    if as_json:
        print_json(results.as_json())
        return
    _show(results, output)


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar for all runs, and one for what is under way, on stderr if a terminal shows it."""
    bar = bars()
    overall = bar.add_task("runs", total=1)
    current: Any = bar.add_task("", total=1)

    def on_progress(what: str, done: int, of: int) -> None:
        if what == "runs":
            bar.update(overall, completed=done, total=of)
        else:
            bar.update(current, description=what, completed=done, total=of)

    with bar:
        yield on_progress


def _list(as_json: bool) -> None:
    from rich.table import Table

    from omg_graph.bench.ablation.variants import SWAPS, VARIANTS

    entries = [(entry.name, entry.shows) for entry in VARIANTS] + [(swap.name, swap.shows) for swap in SWAPS]
    if as_json:
        print_json([{"name": name, "shows": shows} for name, shows in entries])
        return
    table = Table(title="variants; @inference: swapped in the trained method, nothing trained anew")
    table.add_column("name", no_wrap=True)
    table.add_column("what it is")
    for name, shows in entries:
        table.add_row(cell(name), cell(shows))
    stdout_console().print(table)


def _show(results: AblationResults, output: Path) -> None:
    from rich.table import Table

    from omg_graph.bench.ablation.ablate import RESULTS, TABLES
    from omg_graph.bench.ablation.page import change, facts, figure, metrics_of
    from omg_graph.bench.ablation.runs import PROTOCOLS
    from omg_graph.evaluation.report import TITLES

    console, metrics = stdout_console(), metrics_of(results)
    compared = dict.fromkeys((*metrics[:1], *metrics[-1:]))  # room for these; the page has all
    for protocol in PROTOCOLS:
        table = Table(title=f"{protocol}: figures, and differences from the method")
        table.add_column("variant", no_wrap=True)
        for metric in metrics:
            table.add_column(TITLES.get(metric, metric), justify="right")
        for metric in compared:
            table.add_column(f"Δ {TITLES.get(metric, metric)}", justify="right")
        for name, found in results.measured.items():
            figures = found.figures[protocol]
            table.add_row(
                cell(name),
                *(cell(figure(metric, figures.averaged(metric))) for metric in metrics),
                *(cell(change(metric, figures.change(metric))) for metric in compared),
            )
        console.print(table)
    for fact in facts(results):
        console.print(cell(fact), soft_wrap=True)
    console.print(cell(f"results: {output / TABLES}, {output / RESULTS}", "bold"), soft_wrap=True)
