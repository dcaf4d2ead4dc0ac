"""``omg evaluate``: what a model is worth under a protocol of missing modalities, beside its floors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from omg_graph.cli.options import (
    AsJson,
    Device,
    MaxPlannerCalls,
    OnInvalidPlan,
    PlannerCache,
    PlannerDevice,
    PlannerDtype,
    PlannerFourBit,
    PlannerLanguage,
    PlannerMedia,
    PlannerModel,
    PlannerName,
    TextEncoder,
    planner_options,
    require_data,
)
from omg_graph.cli.output import bars, cell, note, print_json, stdout_console

if TYPE_CHECKING:
    from omg_graph.evaluation.evaluate import Evaluation, Progress

FAMILIES = ("auto", "mosi", "sims", "classes", "number", "none")


def evaluate(
    data: Annotated[
        Path, typer.Option(help="A pickle or .npz of samples, complete or not.", show_default=False)
    ],
    output: Annotated[Path, typer.Option(help="Folder for the results.", show_default=False)],
    model: Annotated[
        Path | None,
        typer.Option(help="A model, or a folder of models; the embedded default if left out."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="Which split, or all; the only one, else test, else valid.", show_default=False),
    ] = None,
    unrelated: Annotated[
        bool,
        typer.Option("--unrelated", help="Another data set: ids and groups like the model's are chance."),
    ] = False,
    protocol: Annotated[
        str, typer.Option(help="What is hidden: fixed, random, imbalanced or file.")
    ] = "fixed",
    missing_rate: Annotated[
        str | None,
        typer.Option(help="random: 0.7 or 0.1,0.5; imbalanced: text=0.7,audio=0.2.", show_default=False),
    ] = None,
    patterns: Annotated[
        str | None,
        typer.Option(help="fixed: what is observed, e.g. text,text+audio.", show_default=False),
    ] = None,
    masks: Annotated[
        list[Path] | None, typer.Option(help="file: a mask (repeat it for more).", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Mask seeds, from 0, where masks are drawn.")] = 5,
    metrics: Annotated[
        str, typer.Option(help="Family of metrics: auto, mosi, sims, classes or number.")
    ] = "auto",
    draws: Annotated[
        int, typer.Option(min=0, help="Samples of what is missing; 19 for 90 % intervals, 0 for none.")
    ] = 19,
    train_data: Annotated[
        Path | None,
        typer.Option(
            help="Fit the floors on this file; on the knowledge base if left out.", show_default=False
        ),
    ] = None,
    floors: Annotated[
        str,
        typer.Option(
            help="fast: floors in closed form; networks: and two trained ones; all (minutes); or none."
        ),
    ] = "fast",
    floor_seeds: Annotated[int, typer.Option(min=1, help="Trainings of each trained floor.")] = 1,
    floor_model: Annotated[
        list[str] | None,
        typer.Option(help="NAME=DIR: a model among the floors (repeat it for more).", show_default=False),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Which label is the truth; the model's own.", show_default=False)
    ] = None,
    fill_nonfinite: Annotated[
        str | None, typer.Option(help="Fill partly non-finite rows: zero or mean.", show_default=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many samples.")] = None,
    device: Device = "auto",
    planner: PlannerName = "distilled",
    planner_model: PlannerModel = None,
    planner_language: PlannerLanguage = "en",
    planner_media: PlannerMedia = "auto",
    max_planner_calls: MaxPlannerCalls = None,
    on_invalid_plan: OnInvalidPlan = "error",
    planner_cache: PlannerCache = True,
    planner_device: PlannerDevice = "auto",
    planner_dtype: PlannerDtype = "auto",
    planner_4bit: PlannerFourBit = False,
    text_encoder: TextEncoder = None,
    beside_paper: Annotated[
        str | None, typer.Option(help="The paper's figures beside: mosi or mosei.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a data file: masks drawn once, floors beside, intervals over whole groups.

    Writes metrics.json, predictions.jsonl, table.md, the masks and, with matplotlib, plots to --output.
    """
    from omg_graph.errors import ConfigError

    if metrics not in FAMILIES:
        raise ConfigError(f"--metrics is one of {', '.join(FAMILIES)}, {metrics!r} came")
    if fill_nonfinite not in (None, "zero", "mean"):
        raise ConfigError(f"--fill-nonfinite is zero or mean, {fill_nonfinite!r} came")
    for option, path in (("--data", data), ("--train-data", train_data)):
        if path is not None:
            require_data(option, path)

    from omg_graph.cli.options import model_folder
    from omg_graph.evaluation.evaluate import EvaluationRequest
    from omg_graph.evaluation.evaluate import evaluate as run_evaluation
    from omg_graph.evaluation.protocols import parse_rates
    from omg_graph.plugins import REPORTS, component

    request = EvaluationRequest(
        model=model_folder(model),
        data=data,
        output=output,
        split=split,
        unrelated=unrelated,
        protocol=protocol,
        rates=parse_rates(missing_rate, protocol),
        patterns=None if patterns is None else [_names(part) for part in patterns.split(",")],
        masks=tuple(masks or ()),
        seeds=seeds,
        metrics=metrics,
        draws=draws,
        train_data=train_data,
        floors=floors,
        floor_seeds=floor_seeds,
        floor_models=_floor_models(floor_model or []),
        label=label,
        fill_nonfinite="zero" if fill_nonfinite == "zero" else "mean" if fill_nonfinite else None,
        limit=limit,
        device=device,
        planner=planner,
        planner_options=planner_options(
            model=planner_model,
            language=planner_language,
            media=planner_media,
            max_calls=max_planner_calls,
            on_invalid=on_invalid_plan,
            cache=planner_cache,
            device=planner_device,
            dtype=planner_dtype,
            four_bit=planner_4bit,
        ),
        text_encoder=text_encoder,
        beside=None if beside_paper is None else component(REPORTS, "paper")(beside_paper),
    )
    with _progress() as on_progress:
        result = run_evaluation(request, on_progress)
    if as_json:
        print_json(result.document)
        return
    for remark in result.notes:
        note(remark)
    _show(result, output)


def _floor_models(given: list[str]) -> dict[str, Path]:
    """Name to folder.

    Raises:
        ConfigError: if one isn't NAME=DIR, or a name comes twice.
    """
    from omg_graph.errors import ConfigError

    models: dict[str, Path] = {}
    for text in given:
        name, separator, folder = text.partition("=")
        name = name.strip()
        if not separator or not name or not folder or name in models:
            raise ConfigError(f"--floor-model: expected NAME=DIR with a name of its own, got {text!r}")
        models[name] = Path(folder)
    return models


def _names(part: str) -> list[str]:
    return [name.strip() for name in part.split("+") if name.strip()]


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on stderr for what is under way, if a terminal shows it."""
    bar = bars()
    tasks: dict[str, Any] = {}

    def on_progress(what: str, done: int, of: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=of)
        bar.update(tasks[what], completed=done, total=of)

    with bar:
        yield on_progress


def _show(result: Evaluation, output: Path) -> None:
    from rich.table import Table

    from omg_graph.evaluation.report import figure_text, title

    console, summary, document = stdout_console(), result.summary, result.document
    rows = document["rows"]
    metrics = [
        name
        for name in summary.metrics
        if name not in ("f1_has0", "ece", "nll") and summary.averaged(summary.methods[0], name) is not None
    ]
    methods = Table(title=f"averaged over {len(summary.conditions)} conditions and all seeds")
    methods.add_column("method")
    for metric in metrics:
        methods.add_column(title(metric, summary), justify="right")
    for number, method in enumerate(summary.methods):
        figures = [summary.averaged(method, metric) for metric in metrics]
        methods.add_row(
            cell(method, "bold" if number == 0 else ""),
            *(cell(figure_text(figure)) for figure in figures),
            end_section=number == 0,
        )
    conditions = Table(title=f"{summary.methods[0]}, condition by condition")
    for head in ("condition", "n", "missing"):
        conditions.add_column(head, overflow="fold")
    for metric in metrics:
        conditions.add_column(title(metric, summary), justify="right")
    for name in summary.conditions:
        of_name = [row for row in rows if row["condition"] == name]
        realised = sum(row["realised_rate"] for row in of_name) / len(of_name)
        figures = [summary.figures.get((summary.methods[0], metric, name)) for metric in metrics]
        conditions.add_row(
            cell(name),
            str(of_name[0]["n"]),
            f"{realised:.3f}",
            *(cell(figure_text(figure)) for figure in figures),
        )
    console.print(conditions)
    console.print(methods)
    gains = _gains(result)
    for line in gains:
        console.print(cell(line), soft_wrap=True)
    if result.beside is not None:
        result.beside.show()
    console.print(cell(f"metrics: {document['family']}; {summary.note}"), soft_wrap=True)
    console.print(cell(f"results: {output}", "bold"), soft_wrap=True)


def _gains(result: Evaluation) -> list[str]:
    """The model against its best floor, by the first metric of labels and by that of features."""
    from omg_graph.evaluation.report import figure_text, title

    summary, lines = result.summary, []
    headline = [name for name in summary.metrics if name not in ("nmse", "energy_score", "coverage90")][:1]
    for metric in [*headline, *(name for name in ("nmse",) if name in summary.metrics)]:
        sign = -1.0 if metric in summary.lower_is_better else 1.0
        found = [(floor, summary.averaged(floor, metric)) for floor in summary.methods[1:]]
        known = [(floor, figure) for floor, figure in found if figure is not None]
        if not known:
            continue
        best, _ = max(known, key=lambda pair: sign * pair[1].value)
        gain = summary.gain(best, metric)
        if gain is not None:
            text = figure_text(gain.difference, interval=True, signed=True)
            lines.append(
                f"{title(metric, summary)} less that of the best floor ({best}): {text}: {gain.verdict}"
            )
    return lines
