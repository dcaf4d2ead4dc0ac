"""``omg tune``: the weights lambda_s, lambda_p and lambda_e, chosen on validation rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from omg_graph.cli.options import (
    AsJson,
    Device,
    FillNonfinite,
    Label,
    Modalities,
    PlanSchema,
    TextEncoder,
    names_in,
    require_data,
)
from omg_graph.cli.output import TrainingBars, cell, note, print_json, stdout_console


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
    device: Device = "auto",
    resume: Annotated[bool, typer.Option(help="Go on with a run that was cut off.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace results at --output.")] = False,
    modalities: Modalities = None,
    label: Label = None,
    fill_nonfinite: FillNonfinite = None,
    schema: PlanSchema = None,
    text_encoder: TextEncoder = None,
    as_json: AsJson = False,
) -> None:
    """Choose lambda_s, then lambda_p, then lambda_e on validation rows (the paper's Appendix A).

    Writes tuning.json, table.md and best.yaml, which omg train --config takes. lambda_s only re-ranks the
    same candidates; for the other two the executor alone is trained anew.
    """
    require_data("--data", data)

    from omg_graph.bench.tuning import TuningRequest, load_grid
    from omg_graph.bench.tuning import tune as run_tuning
    from omg_graph.training.request import TrainingRequest

    training = TrainingRequest(
        data=str(data),
        output=str(output),
        config=config,
        seed=seed,
        device=device,
        modalities=names_in(modalities),
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

    from omg_graph.bench.tuning import BEST

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
