"""``omg train``: from a data file to a model folder, with its knowledge base and its planner's figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

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
from omg_graph.cli.output import (
    TrainingBars,
    cell,
    line,
    note,
    number,
    print_json,
    progress_bar,
    stdout_console,
    table,
)
from omg_graph.errors import OmgError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from omg_graph.model.model import Model
    from omg_graph.planner.schema import Plan
    from omg_graph.training.model_rows import ModelRows
    from omg_graph.training.seeds_and_folds import TrainedModel

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
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Train so many models, from --seed on, into one folder.", show_default=False
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Cross-validate by group over 'train' and 'valid', a model a fold.",
            show_default=False,
        ),
    ] = None,
    missing_rate: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Train for this share of missing slots alone; for all if left out.",
            show_default=False,
        ),
    ] = None,
    device: Device = "auto",
    resume: Annotated[bool, typer.Option(help="Go on with a run that was cut off.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a model at --output.")] = False,
    modalities: Modalities = None,
    label: Label = None,
    fill_nonfinite: FillNonfinite = None,
    annotator: Annotated[
        Literal["lexical", "labels", "clusters"] | None,
        typer.Option(help="Where plans come from: lexical, labels or clusters.", show_default=False),
    ] = None,
    schema: PlanSchema = None,
    plans: Annotated[
        Path | None,
        typer.Option(
            help="Plans that a teacher wrote (omg distill), to train everything on.", show_default=False
        ),
    ] = None,
    plan_target: Annotated[
        Literal["label", "teacher"],
        typer.Option(help="What decides the target of --plans where a sample has a label."),
    ] = "label",
    encoder: Annotated[
        Literal["sentence", "qwen-omni"] | None,
        typer.Option(
            help="What reads plans and samples: sentence, or qwen-omni named by --encoder-model.",
            show_default=False,
        ),
    ] = None,
    planner_report: Annotated[
        bool, typer.Option(help="Measure the planner on validation rows; of a single model only.")
    ] = True,
    text_encoder: TextEncoder = None,
    as_json: AsJson = False,
) -> None:
    """Train a model on a data file; samples may miss different modalities.

    Fits on 'train', chooses on 'valid' (or a tenth held out by group), never reads 'test'. A run that was
    cut off, at any moment, goes on with --resume to the same weights. With --seeds or --folds it trains
    several models into one folder, which omg evaluate takes as a whole.
    """
    require_data("--data", data)
    overrides: dict[str, Any] = {}
    if epochs is not None:
        overrides["optimiser"] = {"epochs": epochs}
    if annotator is not None:
        overrides["planner"] = {"annotator": annotator}
    if encoder is not None:
        overrides["encoder"] = {"kind": encoder}
    if missing_rate is not None:
        overrides["missing_rate"] = missing_rate

    request: dict[str, Any] = {
        "data": str(data),
        "output": str(output),
        "config": config,
        "overrides": overrides,
        "seed": seed,
        "device": device,
        "modalities": names_in(modalities),
        "label": label,
        "fill_nonfinite": fill_nonfinite,
        "schema_file": None if schema is None else str(schema),
        "plans": None if plans is None else str(plans),
        "plan_target": plan_target,
        "text_encoder": None if text_encoder is None else str(text_encoder),
        "resume": resume,
        "overwrite": overwrite,
    }
    if seeds is None and folds is None:
        _train_one(request, as_json, planner_report)
    else:
        _train_several(request, seeds, folds, as_json)


def _train_one(request: dict[str, Any], as_json: bool, planner_report: bool) -> None:
    from omg_graph.training.graph import build_training_graph

    result: dict[str, Any] = {}
    with TrainingBars() as live:
        chunks: Iterator[Any] = build_training_graph().stream(request, stream_mode=["custom", "values"])
        for mode, chunk in chunks:
            if mode == "custom":
                live.report(chunk)
            else:
                result = chunk
    report = _report(request) if planner_report else None
    if as_json:
        keys = ("model", "fingerprint", "metrics", "notes", "seconds")
        print_json(
            {key: result[key] for key in keys}
            | {"planner": None if report is None else report.model_dump(mode="json")}
        )
        return
    for remark in result["notes"]:
        note(remark)
    _show(result)
    if report is not None:
        show_report(report, Path(request["output"]))


def _report(request: dict[str, Any]) -> PlannerReport | None:
    """The finished model's planner, measured on the rows that it was chosen on; the model is there anyway."""
    try:
        return _measured(request)
    except OmgError as error:
        note(f"the planner could not be measured: {error}")
        return None


def _measured(request: dict[str, Any]) -> PlannerReport:
    from omg_graph.model.folder import load_model
    from omg_graph.training.model_rows import read_model_rows
    from omg_graph.training.teaching import read_plans

    model = load_model(request["output"], request["text_encoder"])
    rows = read_model_rows(
        model, Path(request["data"]), label=request["label"], fill_nonfinite=request["fill_nonfinite"]
    )
    plans = None
    if request["plans"] is not None:
        taught = read_plans(Path(request["plans"]), model.schema)
        plans = taught.lesson(rows.valid, model.schema, request["plan_target"]).plans
    return report_planner(model, rows, Path(request["output"]), plans=plans)


def _train_several(request: dict[str, Any], seeds: int | None, folds: int | None, as_json: bool) -> None:
    from omg_graph.training.request import TrainingRequest
    from omg_graph.training.seeds_and_folds import train_collection

    with TrainingBars() as live:
        asked = TrainingRequest(**request)
        models = train_collection(asked, seeds=seeds, folds=folds, on_event=live.of_model)
    if as_json:
        print_json(
            {
                "model": request["output"],
                "models": [
                    model.named.model_dump() | {"metrics": model.metrics, "seconds": model.seconds}
                    for model in models
                ],
                "notes": list(dict.fromkeys(text for model in models for text in model.notes)),
            }
        )
        return
    for remark in models[0].notes:
        note(f"{models[0].named.folder}: {remark}")
    _show_several(models, request["output"])


def _show(result: dict[str, Any]) -> None:
    console = stdout_console()
    rows = result["metrics"]["rows"]
    names = [key for key in SHOWN if rows and key in rows[0]]
    title = "validation: normalised squared error (1 = training mean) and task metrics"
    shown = table(title, "observed", "n", "missing", "error by missing modality", *names)
    for row in rows:
        errors = ", ".join(f"{name} {value:.3f}" for name, value in row["nmse"].items())
        shown.add_row(
            cell(" + ".join(row["observed"])),
            str(row["n"]),
            f"{row['missing_by_nature']:.0%} + {row['hidden']:.0%}",
            cell(errors or "-"),
            *(number(row.get(name)) for name in names),
        )
    floor = result["metrics"].get("floor") or {}
    if floor:
        shown.add_row("best constant", "", "", "1", *(number(floor.get(name)) for name in names))
    console.print(shown)
    line(console, "missing: slots missing by nature + hidden for the measurement", "dim")
    seconds = sum(result["seconds"].values())
    line(console, f"model: {result['model']} ({seconds:.0f} s)", "bold")


def _show_several(models: Sequence[TrainedModel], output: str) -> None:
    console = stdout_console()
    names = [key for key in SHOWN if all(key in row for model in models for row in model.metrics["rows"])]
    title = "validation, averaged over patterns: normalised squared error and task metrics"
    shown = table(title, "model", "seed", "error", *names)
    for model in models:
        rows = model.metrics["rows"]
        errors = [sum(row["nmse"].values()) / len(row["nmse"]) for row in rows if row["nmse"]]
        shown.add_row(
            cell(model.named.folder),
            str(model.named.seed),
            number(_mean(errors)),
            *(number(_mean([row[name] for row in rows if row[name] is not None])) for name in names),
        )
    console.print(shown)
    seconds = sum(sum(model.seconds.values()) for model in models)
    line(console, f"models: {output} ({len(models)}, {seconds:.0f} s)", "bold")


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


REPORT = "planner_report.json"
PAGE = "planner_report.md"


class PlannerReport(Protocol):
    """What the entry point ``planner`` of ``omg_graph.reports`` makes of a planner."""

    def to_json(self) -> str:
        """The document as text."""
        ...

    def markdown(self) -> str:
        """The page."""
        ...

    def lines(self) -> list[str]:
        """The report in a few lines."""
        ...

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """The document."""
        ...


def report_planner(
    model: Model,
    rows: ModelRows,
    folder: Path,
    *,
    plans: Sequence[Plan | None] | None = None,
    teacher: Mapping[str, Any] | None = None,
) -> PlannerReport:
    """Measure a model's planner on validation rows, and write what comes out into its folder.

    The two files hold times, so they are beside the model rather than part of it.

    Args:
        model: Whose planner is measured.
        rows: Its training rows, for the floors, and its validation rows.
        folder: Where the files go.
        plans: A teacher's plans of the validation rows; the lexical annotator's by default.
        teacher: What is known of the teacher.
    """
    from omg_graph.files import write_atomically
    from omg_graph.plugins import REPORTS, component

    with progress_bar("measuring the planner", "patterns") as on_progress:
        report: PlannerReport = component(REPORTS, "planner")(
            model,
            rows.valid,
            train=rows.train,
            plans=plans,
            seed=model.manifest.seed,
            teacher=teacher,
            progress=on_progress,
        )
    write_atomically(folder / REPORT, report.to_json().encode())
    write_atomically(folder / PAGE, report.markdown().encode())
    return report


def show_report(report: PlannerReport, folder: Path) -> None:
    """The report in a few lines, and where the whole of it is."""
    console = stdout_console()
    for text in report.lines():
        line(console, text)
    line(console, f"the planner's figures: {folder / PAGE}", "dim")
