"""``omg tune``: the weights lambda_s, lambda_p and lambda_e, chosen on validation rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from omg_graph.cli.output import cell, note, print_json, stdout_console
from omg_graph.cli.training_bars import TrainingBars


def tune(
    data: Annotated[
        Path,
        typer.Option(help="A pickle or .npz with 'train', and 'valid' to choose on.", show_default=False),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    config: Annotated[
        str | None,
        typer.Option(help="Where to start: 'paper', a recipe, or a YAML file.", show_default=False),
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option(help="Other values (YAML): semantic, plan, evidence, a list each.", show_default=False),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs of the executor at most, each time.", show_default=False),
    ] = None,
    criterion: Annotated[
        Literal["auto", "nmse", "mae", "nll", "acc2", "acc7", "accuracy"],
        typer.Option(help="What decides, averaged over missing patterns."),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each value; their mean decides.")] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option(help="Go on with a run that was cut off.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace results at --output.")] = False,
    modalities: Annotated[
        str | None, typer.Option(help="Use only these, e.g. text,audio.", show_default=False)
    ] = None,
    label: Annotated[str | None, typer.Option(help="Which label is the target.", show_default=False)] = None,
    fill_nonfinite: Annotated[
        Literal["zero", "mean"] | None,
        typer.Option(help="Fill partly non-finite rows: zero or mean.", show_default=False),
    ] = None,
    schema: Annotated[
        Path | None, typer.Option(help="A plan schema of your own (YAML).", show_default=False)
    ] = None,
    text_encoder: Annotated[
        Path | None, typer.Option(help="Folder of the text encoder's weights.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Choose lambda_s, then lambda_p, then lambda_e on validation rows (the paper's Appendix A).

    Writes tuning.json, table.md and best.yaml, which omg train --config takes. lambda_s only re-ranks the
    same candidates; for the other two the executor alone is trained anew.
    """
    from omg_graph.errors import DataError

    if not data.exists():
        raise DataError(f"--data {data}: there is no such file: give a pickle or .npz of samples")

    from omg_graph.training.session import TrainingRequest
    from omg_graph.training.tuning import TuningRequest, load_grid
    from omg_graph.training.tuning import tune as run_tuning

    training = TrainingRequest(
        data=str(data),
        output=str(output),
        config=config,
        seed=seed,
        device=device,
        modalities=None if modalities is None else [name.strip() for name in modalities.split(",")],
        label=label,
        fill_nonfinite=fill_nonfinite,
        schema_file=None if schema is None else str(schema),
        text_encoder=None if text_encoder is None else str(text_encoder),
        resume=resume,
        overwrite=overwrite,
    )
    request = TuningRequest(
        training=training, grid=load_grid(grid), budget=budget, criterion=criterion, seeds=seeds
    )
    with TrainingBars("trainings") as live:
        document = run_tuning(request, live.of_model)
    if as_json:
        print_json(document)
        return
    for remark in document["notes"]:
        note(remark)
    _show(document, output)


def _show(document: dict[str, Any], output: Path) -> None:
    from rich.table import Table

    from omg_graph.training.tuning_report import BEST

    console = stdout_console()
    table = Table(title="weights, one after the other, on validation rows")
    for head in ("weight", "value", "by", "score", ""):
        table.add_column(head, justify="right" if head in ("value", "score") else "left")
    for step in document["steps"]:
        for number, row in enumerate(step["values"]):
            marks = [word for word in ("chosen", "configured") if step[word] == row["value"]]
            table.add_row(
                step["weight"] if number == 0 else "",
                f"{row['value']:g}",
                f"{step['criterion']} {'↓' if step['lower_is_better'] else '↑'}" if number == 0 else "",
                "-" if row["score"] is None else f"{row['score']:.4f}",
                cell(", ".join(marks), "bold" if "chosen" in marks else ""),
                end_section=number + 1 == len(step["values"]),
            )
    console.print(table)
    console.print(cell(f"omg train --config {output / BEST} takes what was chosen", "bold"), soft_wrap=True)
