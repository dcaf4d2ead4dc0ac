"""``omg evaluate`` and ``omg compare``: what a model is worth, beside its floors and beside others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from omg_graph.cli.options import (
    AsJson,
    Device,
    FillNonfinite,
    OnInvalidPlan,
    PlannerFlags,
    PlannerName,
    TextEncoder,
    names_in,
    require_data,
    with_planner_flags,
)
from omg_graph.cli.output import bars, cell, line, note, print_json, progress_bar, stdout_console, table

if TYPE_CHECKING:
    from omg_graph.evaluation.evaluate import Evaluation, Progress
    from omg_graph.evaluation.intervals import Difference, Resamples, Results


@with_planner_flags
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
        Literal["auto", "mosi", "sims", "classes", "number", "none"],
        typer.Option(help="Family of metrics: auto, mosi, sims, classes or number."),
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
    fill_nonfinite: FillNonfinite = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many samples.")] = None,
    device: Device = "auto",
    planner: PlannerName = "distilled",
    *,
    flags: PlannerFlags,
    on_invalid_plan: OnInvalidPlan = "error",
    text_encoder: TextEncoder = None,
    beside_paper: Annotated[
        str | None, typer.Option(help="The paper's figures beside: mosi or mosei.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a data file: masks drawn once, floors beside, intervals over whole groups.

    Writes metrics.json, predictions.jsonl, table.md, the masks and, with matplotlib, plots to --output.
    """
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
        fill_nonfinite=fill_nonfinite,
        limit=limit,
        device=device,
        planner=planner,
        planner_options=flags.options(on_invalid_plan),
        text_encoder=text_encoder,
        published=None if beside_paper is None else component(REPORTS, "paper")(beside_paper),
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
    from omg_graph.evaluation.report import figure_text, title

    console, summary, document = stdout_console(), result.summary, result.document
    rows = document["rows"]
    metrics = [
        name
        for name in summary.metrics
        if name not in ("f1_has0", "ece", "nll") and summary.averaged(summary.methods[0], name) is not None
    ]
    titles = [title(metric, summary) for metric in metrics]
    averaged = f"averaged over {len(summary.conditions)} conditions and all seeds"
    methods = table(averaged, "method", figures=titles)
    for number, method in enumerate(summary.methods):
        figures = [summary.averaged(method, metric) for metric in metrics]
        methods.add_row(
            cell(method, "bold" if number == 0 else ""),
            *(cell(figure_text(figure)) for figure in figures),
            end_section=number == 0,
        )
    by_condition = f"{summary.methods[0]}, condition by condition"
    conditions = table(by_condition, "condition", "n", "missing", figures=titles)
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
    for gain in _gains(result):
        line(console, gain)
    if result.published is not None:
        result.published.show()
    line(console, f"metrics: {document['family']}; {summary.note}")
    line(console, f"results: {output}", "bold")


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
        _show_difference(first, other, rows, resamples)


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


def _show_difference(first: Results, other: Results, rows: list[Difference], resamples: Resamples) -> None:
    from omg_graph.evaluation.intervals import AVERAGE
    from omg_graph.evaluation.report import TITLES, figure_text

    console = stdout_console()
    shown = table(
        f"{first.name} less {other.name}", "metric", "condition", figures=("first", "second", "difference")
    )
    shown.add_column("verdict")
    for number, row in enumerate(rows):
        ends = number + 1 == len(rows) or rows[number + 1].condition == AVERAGE
        shown.add_row(
            TITLES.get(row.metric, row.metric),
            cell(row.condition, "bold" if row.condition == AVERAGE else ""),
            f"{row.first:.3f}",
            f"{row.second:.3f}",
            cell(figure_text(row.difference, interval=True, signed=True)),
            row.verdict,
            end_section=ends,
        )
    console.print(shown)
    line(console, resamples.note)
