"""``omg distill``: a teacher writes plans of the training samples, and the model's planner learns them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from omg_graph.cli.options import (
    AsJson,
    FillNonfinite,
    Label,
    PlannerFlags,
    TextEncoder,
    require_data,
    with_planner_flags,
)
from omg_graph.cli.output import TrainingBars, cell, line, note, number, print_json, stdout_console, table
from omg_graph.cli.train import report_planner, show_report
from omg_graph.errors import ConfigError

if TYPE_CHECKING:
    from omg_graph.training.distillation import Distillation

SHOWN = ("acc2", "acc7", "acc3", "acc5", "accuracy", "mae", "corr")
"""Metrics of the teacher's own targets that the terminal has room for."""


@with_planner_flags
def distill(
    teacher: Annotated[
        str,
        typer.Option(
            help="Who writes the plans: lexical, chat, qwen-omni, or a planner of another package.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(help="A pickle or .npz with 'train', and 'valid' to choose on.", show_default=False),
    ],
    model: Annotated[
        Path | None,
        typer.Option(help="The model whose planner learns; the embedded default if left out."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(help="A folder for the new model; --model itself if left out.", show_default=False),
    ] = None,
    plans_only: Annotated[
        Path | None,
        typer.Option(
            help="Only write the plans into this file, for omg train --plans.",
            show_default=False,
        ),
    ] = None,
    schema: Annotated[
        Path | None,
        typer.Option(
            help="Another schema for the plans (YAML), with --plans-only; the model's if left out.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        Literal["label", "teacher"],
        typer.Option(help="Where a plan's target comes from, for a sample with a label."),
    ] = "label",
    on_invalid_plan: Annotated[
        Literal["error", "lexical", "skip"],
        typer.Option(
            help="If the teacher has no valid plan: stop, take the lexical annotator's, or skip the sample."
        ),
    ] = "error",
    candidates: Annotated[
        int, typer.Option(min=1, max=1_000, help="Plans that the teacher draws for a sample; the best stays.")
    ] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.01, help="Temperature of qwen-omni's draws, with several candidates.", show_default=False
        ),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            max=1.0,
            help="Draw from the likeliest tokens up to this total share.",
            show_default=False,
        ),
    ] = None,
    *,
    flags: PlannerFlags,
    seed: Annotated[int | None, typer.Option(help="Random seed; the model's own if left out.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Delete the plans of an earlier, unfinished run.")
    ] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace a model at --output.")] = False,
    label: Label = None,
    fill_nonfinite: FillNonfinite = None,
    text_encoder: TextEncoder = None,
    as_json: AsJson = False,
) -> None:
    """Let a teacher write plans for the training samples, and train a model's own planner on them.

    The teacher sees whole samples; the planner learns to plan the same from every part of them. A run that
    was stopped continues. Only the planner is trained; omg train --plans trains everything on such plans.
    """
    require_data("--data", data)
    if model is None and plans_only is None and output is None:
        raise ConfigError("expected --output, as the embedded default isn't written to: name a folder")

    from omg_graph.cli.options import model_folder
    from omg_graph.training.distillation import DistillationRequest
    from omg_graph.training.distillation import distill as run_distillation
    from omg_graph.training.teaching import PLANS

    model_folder(model)
    request = DistillationRequest(
        teacher=teacher,
        data=data,
        model=model,
        output=output,
        plans_only=plans_only,
        schema_file=schema,
        target=target,
        on_invalid=on_invalid_plan,
        candidates=candidates,
        temperature=temperature,
        top_p=top_p,
        options=flags.options(),
        seed=seed,
        restart=restart,
        overwrite=overwrite,
        label=label,
        fill_nonfinite=fill_nonfinite,
        text_encoder=text_encoder,
    )
    with TrainingBars() as live:
        made = run_distillation(
            request,
            lambda what, done, of, loss: live.report({"stage": what, "done": done, "of": of, "loss": loss}),
        )
    report = None
    if made.model is not None and made.rows is not None:
        report = report_planner(
            made.model, made.rows, made.place, plans=made.checked, teacher=_of_teacher(made.facts)
        )
    if as_json:
        print_json(
            {
                "model": None if made.fingerprint is None else str(made.place),
                "plans": str(made.place if made.fingerprint is None else made.place / PLANS),
                "fingerprint": made.fingerprint,
                "distillation": made.facts,
                "report": None if report is None else report.model_dump(mode="json"),
                "notes": list(made.notes),
                "seconds": made.seconds,
            }
        )
        return
    for remark in made.notes:
        note(remark)
    _show(made)
    if report is not None:
        show_report(report, made.place)


def _of_teacher(facts: dict[str, Any]) -> dict[str, Any]:
    """What the report says of the teacher, which saw every validation row whole; no call is made for it."""
    report = facts["agreement"]["valid"]
    accuracy = {f"{name} of its own targets": number(report[name]) for name in SHOWN if name in report}
    known = {"ms a sample": facts["ms_per_sample"], "calls": facts["calls"]}
    return (
        {"name": facts["teacher"], "validation rows compared": report.get("n", 0)}
        | accuracy
        | {name: value for name, value in known.items() if value is not None}
    )


def _show(made: Distillation) -> None:
    console = stdout_console()
    facts = made.facts
    rows = [(name, facts[name], facts["agreement"][name]) for name in ("train", "valid")]
    metrics = [name for name in SHOWN if any(name in report for _, _, report in rows)]
    teachers = ", ".join(facts["teachers"] or [facts["teacher"]])
    title = f"plans by {teachers}, and how its own targets agree with labels"
    shown = table(title, "rows", "n", "plans", "target by label", "compared", *metrics)
    for name, counts, report in rows:
        shown.add_row(
            name,
            str(counts["rows"]),
            str(counts["plans"]),
            str(counts["target_from_label"]),
            str(report.get("n", 0)),
            *(number(report.get(metric)) for metric in metrics),
        )
    console.print(shown)
    if facts["failed"]:
        dealt = {"skip": "nothing is learnt from them", "lexical": "the lexical annotator wrote theirs"}
        console.print(
            cell(
                f"no valid plan from {facts['teacher']} for {facts['failed']} samples: "
                f"{dealt[facts['on_invalid_plan']]}"
            )
        )
    report = [f"{facts['written_now']} plans written now"]
    if facts["ms_per_sample"] is not None:
        report.append(f"{facts['ms_per_sample']:g} ms each")
    if facts["calls"] is not None:
        report.append(f"{facts['calls']} calls")
    console.print(cell(", ".join(report), "dim"))
    what = "plans" if made.fingerprint is None else "model"
    line(console, f"{what}: {made.place} ({sum(made.seconds.values()):.0f} s)", "bold")
