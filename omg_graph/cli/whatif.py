"""``omg trace fork`` and ``omg trace compare``: a sample with something changed, and what that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omg_graph.cli.options import AsJson, TextEncoder
from omg_graph.cli.output import cell, note, print_json, spinner, stdout_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from omg_graph.record.artifacts import MemoryArtifactStore
    from omg_graph.record.comparison import EvidenceComparison, PlanComparison, TrajectoryComparison
    from omg_graph.record.results import SavedRun
    from omg_graph.record.trajectory import Trajectory

ENTRIES_SHOWN = 15
DEFAULT_OUTPUT = Path("omg_fork")


Results = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="A folder that omg run wrote, or its trajectory.jsonl.", show_default=False
    ),
]


def fork(
    file: Results,
    sample_id: Annotated[
        str | None,
        typer.Option("--id", help="Which sample, if there is more than one.", show_default=False),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help='What the plan is to say, e.g. Sentiment="strongly negative" (repeat it for more).',
            show_default=False,
        ),
    ] = None,
    pick: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Another candidate, by its place in the table of the trace.",
            show_default=False,
        ),
    ] = None,
    drop_evidence: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENTRY",
            help="An entry of evidence to leave out (repeat it for more).",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Where the results go.")] = DEFAULT_OUTPUT,
    model: Annotated[
        Path | None, typer.Option(help="The model of the run; the embedded default if left out.")
    ] = None,
    kb: Annotated[
        Path | None, typer.Option("--kb", help="The knowledge base of the run, if it had another.")
    ] = None,
    text_encoder: TextEncoder = None,
    report: Annotated[bool, typer.Option(help="Write the trace as a page too, report.html.")] = True,
    as_json: AsJson = False,
) -> None:
    """Run one sample on from its plan or its evidence, with something changed.

    Nothing before that is computed again, and no language model is asked. Writes what omg run writes, to
    --output; omg trace compare shows the two side by side.
    """
    from omg_graph.cli.loading import open_model
    from omg_graph.record.results import ResultWriter, check_output, open_run

    constraints = dict(_change(each) for each in changes or ())
    run = open_run(file)
    trajectory = _one(run, sample_id)
    check_output(output)
    loaded = open_model(model, text_encoder)

    from omg_graph.retriever.entries import KnowledgeBase
    from omg_graph.review.forks import fork_run
    from omg_graph.state import DEFAULT_SETTINGS, Settings

    if kb is not None:
        loaded = loaded.with_knowledge_base(KnowledgeBase.load(kb))
    settings = DEFAULT_SETTINGS if run.facts is None else Settings.model_validate(run.facts.settings)
    if run.facts is None:
        note(f"{run.folder}: the settings of the run aren't there, so that the defaults hold")
    store = _arrays_of(run, trajectory)
    with spinner("running on from the fork"):
        made = fork_run(
            loaded,
            trajectory,
            artifacts=store,
            constraints=constraints,
            pick=pick,
            drop_evidence=drop_evidence or (),
            settings=settings,
        )
    writer = ResultWriter(loaded, settings)
    writer.add(made, store)
    writer.write(output, single=True)

    from omg_graph.cli.story import tell_results

    tell_results(writer, output, report=report, as_json=as_json)


def compare(
    before: Annotated[Path, typer.Argument(metavar="A", help="Results of omg run or omg trace fork.")],
    after: Annotated[Path, typer.Argument(metavar="B", help="Others, of the same samples.")],
    sample_id: Annotated[
        str | None,
        typer.Option("--id", help="Only this sample; all that both have by default.", show_default=False),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--html", help="Write the comparison as a page too.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two runs of a sample: plan, evidence and output."""
    from omg_graph.record.comparison import compare as compare_trajectories
    from omg_graph.record.results import open_run

    runs = open_run(before), open_run(after)
    comparisons = [
        compare_trajectories(first, second, (runs[0].arrays.find, runs[1].arrays.find), runs[0].scale)
        for first, second in _pairs(*runs, sample_id)
    ]
    if page is not None:
        from omg_graph.report.comparison import write_comparison

        write_comparison(comparisons, runs, page)
    if as_json:
        print_json(
            {
                "before": str(before),
                "after": str(after),
                "samples": [comparison.model_dump(mode="json") for comparison in comparisons],
            }
        )
        return
    console = stdout_console()
    for comparison in comparisons:
        show_comparison(console, comparison)
    if page is not None:
        console.print(cell(f"page       {page}", "bold"), soft_wrap=True)


def show_comparison(console: Console, comparison: TrajectoryComparison) -> None:
    """One sample before and after."""
    from omg_graph.record.words import prediction_text

    console.print()
    console.rule(cell(f"sample {comparison.id}", "bold"), align="left", style="dim")
    if not comparison.same_input:
        _line(
            console,
            "input      other modalities were observed: more than plan and evidence differs",
            "yellow",
        )
    if comparison.plan is not None:
        _show_plan(console, comparison.plan)
    for name, evidence in comparison.evidence.items():
        console.print()
        console.print(_evidence_table(name, evidence))
    console.print()
    for name, output in comparison.output.items():
        told = "nothing to measure it by: its arrays aren't there"
        if output.distance is not None:
            told = (
                f"moved by {output.distance:.2g} deviations a feature "
                f"(the first is {output.from_mean or 0.0:.2g} from the training mean)"
            )
        if output.nmse[0] is not None:
            told += f"; error against the truth {_arrow(output.nmse)}"
        _line(console, f"output     {name}: {told}", "bold")
    if any(prediction is not None for prediction in comparison.prediction):
        words = [prediction_text(prediction) for prediction in comparison.prediction]
        _line(console, f"prediction {words[0]}  →  {words[1]}", "bold")
    _line(console, f"utility    {_arrow(comparison.utility)}", "dim")
    for where, notes in zip(("before", "after"), comparison.notes, strict=True):
        for remark in notes:
            _line(console, f"note       {where}: {remark}", "dim")


def _show_plan(console: Console, plan: PlanComparison) -> None:
    from rich.table import Table

    if plan.before == plan.after:
        _line(console, f"plan       {plan.before}: the same", "green")
        return
    table = Table(title=cell("plan"), title_justify="left", title_style="")
    for head in ("", "before", "after"):
        table.add_column(head)
    table.add_row("plan", cell(plan.before), cell(plan.after, "bold"))
    for change in plan.changed:
        table.add_row(cell(change.field), cell(change.before or "-"), cell(change.after or "-", "bold"))
    table.add_row("chosen by", *map(cell, plan.chosen_by))
    for name, pair in (
        ("log p", plan.log_probability),
        ("C_sem", plan.semantic_cost),
        ("score", plan.score),
    ):
        table.add_row(name, *(cell("unknown" if value is None else f"{value:.3f}") for value in pair))
    console.print(table)


def _evidence_table(name: str, evidence: EvidenceComparison) -> Table:
    from rich.table import Table

    title = f"evidence for {name}: {evidence.moved:.0%} of the weight moved, C_evi {_arrow(evidence.cost)}"
    table = Table(title=cell(title), title_justify="left", title_style="", expand=True)
    for head in ("before", "after"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("entry", no_wrap=True, max_width=22)
    table.add_column("text", no_wrap=True, ratio=1)
    for entry in evidence.entries[:ENTRIES_SHOWN]:
        told, style = (
            ("new", "green") if entry.before is None else ("gone", "red") if entry.after is None else ("", "")
        )
        table.add_row(
            *(cell("" if weight is None else f"{weight:.3f}") for weight in (entry.before, entry.after)),
            told,
            cell(entry.id),
            cell(entry.text),
            style=style,
        )
    more = len(evidence.entries) - ENTRIES_SHOWN
    if more > 0:
        table.add_row("", "", "", f"{more} more", "")
    return table


def _arrow(pair: Sequence[float | None]) -> str:
    return " → ".join("unknown" if value is None else f"{value:.3f}" for value in pair)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(cell(text, style), soft_wrap=True)


def _change(given: str) -> tuple[str, str]:
    """``Sentiment=positive`` taken apart."""
    from omg_graph.errors import ConfigError

    field, equals, value = given.partition("=")
    if not (field.strip() and equals and value.strip()):
        raise ConfigError(
            f'--set: FIELD=VALUE, such as Sentiment="strongly negative", was expected, {given!r} came'
        )
    return field.strip(), value


def _one(run: SavedRun, sample_id: str | None) -> Trajectory:
    """The sample that is named, or the only one."""
    from omg_graph.errors import DataError

    if sample_id is not None:
        return run.trajectory(sample_id)
    if len(run.trajectories) > 1:
        ids = ", ".join(repr(trajectory.id) for trajectory in run.trajectories[:3])
        raise DataError(
            f"{run.folder}: one sample was expected, there are {len(run.trajectories)} ({ids}, ...): "
            "name one with --id"
        )
    return run.trajectories[0]


def _arrays_of(run: SavedRun, trajectory: Trajectory) -> MemoryArtifactStore:
    """What a fork needs of the run's arrays, in memory."""
    from omg_graph.record.artifacts import MemoryArtifactStore

    store = MemoryArtifactStore(max_bytes=8 << 30)
    for ref in (*trajectory.arrays.values(), *trajectory.reconstruction.values()):
        store.put(run.arrays.get(ref))
    return store


def _pairs(before: SavedRun, after: SavedRun, sample_id: str | None) -> list[tuple[Trajectory, Trajectory]]:
    """The samples that both runs have, in the first one's order."""
    from omg_graph.errors import DataError

    if sample_id is not None:
        return [(before.trajectory(sample_id), after.trajectory(sample_id))]
    others: Mapping[str, Trajectory] = {trajectory.id: trajectory for trajectory in after.trajectories}
    shared = [(first, others[first.id]) for first in before.trajectories if first.id in others]
    if not shared:
        raise DataError(
            f"{before.folder} and {after.folder}: results of the same samples were expected, they share "
            "none: compare a run with its fork, or two runs on one file"
        )
    return shared
