"""``omg trace``: what happened to a sample, shown again or run on from the results of ``omg run``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omg_graph.cli.options import AsJson, KbFolder, ModelFolder, Report, TextEncoder, examples, open_model
from omg_graph.cli.output import line, note, print_json, spinner, stdout_console

if TYPE_CHECKING:
    from omg_graph.record.artifacts import MemoryArtifactStore
    from omg_graph.record.results import SavedRun
    from omg_graph.record.trajectory import Trajectory

app = typer.Typer(
    help="Results of omg run: as a page, in the terminal, or run on with something changed.",
    no_args_is_help=True,
)

DEFAULT_OUTPUT = Path("omg_fork")

Results = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", help="A folder that omg run wrote, or its trajectory.jsonl.", show_default=False
    ),
]


@app.command()
def report(
    file: Results,
    output: Annotated[
        Path | None, typer.Option(help="The page; report.html beside the results by default.")
    ] = None,
    sample_ids: Annotated[
        list[str] | None,
        typer.Option("--id", help="Only this sample (repeat it for more).", show_default=False),
    ] = None,
    pixels: Annotated[
        list[str] | None,
        typer.Option(
            "--pixels",
            metavar="NAME=ROWSxCOLUMNS",
            help="Draw a vector as an image, e.g. pix=16x15 (repeat it for more).",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the trace as a page: one file that opens offline.

    It holds the whole story of the first 100 samples; name others with --id.
    """
    from omg_graph.errors import DataError
    from omg_graph.record.results import REPORT, open_run
    from omg_graph.report.page import write_report

    run = open_run(file)
    page = run.folder / REPORT if output is None else output
    if page.is_dir() or not page.parent.is_dir():
        raise DataError(f"--output {page}: expected a file in a folder that is there: name one")
    pictures = dict(_pixels(each) for each in pixels or ())
    with spinner("writing the report"):
        size = write_report(run, page, ids=sample_ids or (), pictures=pictures)
    count = len(sample_ids or run.trajectories)
    if as_json:
        print_json({"report": str(page), "bytes": size, "samples": count})
        return
    stdout_console().print(f"{page}: {count} samples, {size / 1e6:.1f} MB", markup=False, soft_wrap=True)


@app.command()
def show(
    file: Results,
    sample_id: Annotated[
        str | None,
        typer.Option(
            "--id", help="Which sample; by default the first that misses something.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show one sample in the terminal, and list the others."""
    from omg_graph.cli import terminal
    from omg_graph.record.results import document, open_run

    run = open_run(file)
    chosen = terminal.first_missing(run.trajectories) if sample_id is None else run.trajectory(sample_id)
    if as_json:
        print_json(document(chosen))
        return
    console = stdout_console()
    terminal.show_run(console, run)
    terminal.show_trajectory(console, run, chosen)
    terminal.show_terms(console, chosen)
    if sample_id is None and len(run.trajectories) > 1:
        terminal.show_overview(console, run.trajectories)
        terminal.show_errors(console, run.trajectories)


@app.command(epilog=examples("trace fork"))
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
    model: ModelFolder = None,
    kb: KbFolder = None,
    text_encoder: TextEncoder = None,
    report: Report = True,
    as_json: AsJson = False,
) -> None:
    """Run one sample on from its plan or its evidence, with something changed.

    Nothing before that is computed again, and no language model is asked. Writes what omg run writes, to
    --output; omg trace compare shows the two side by side.
    """
    from omg_graph.record.results import ResultWriter, check_output, open_run

    constraints = dict(_assignment(each) for each in changes or ())
    run = open_run(file)
    trajectory = _one(run, sample_id)
    check_output(output)
    loaded = open_model(model, text_encoder, kb)

    from omg_graph.forks import fork_run
    from omg_graph.state import DEFAULT_SETTINGS, Settings

    settings = DEFAULT_SETTINGS if run.facts is None else Settings.model_validate(run.facts.settings)
    settings = settings.model_copy(update={"pictures": report})
    if run.facts is None:
        note(f"{run.folder}: the settings of the run aren't there, so that the defaults hold")
    store = _arrays_of(run, trajectory)
    with spinner("running on from the fork"):
        forked = fork_run(
            loaded,
            trajectory,
            artifacts=store,
            constraints=constraints,
            pick=pick,
            drop_evidence=drop_evidence or (),
            settings=settings,
        )
    writer = ResultWriter(loaded, settings)
    writer.add(forked, store)
    writer.write(output, single=True)

    from omg_graph.cli.terminal import show_written

    show_written(writer, output, report=report, as_json=as_json)


@app.command(epilog=examples("trace compare"))
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
        compare_trajectories(first, second, (runs[0].arrays.find, runs[1].arrays.find), runs[0].arrays.scale)
        for first, second in _pairs(*runs, sample_id)
    ]
    if page is not None:
        from omg_graph.report.page import write_comparison

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
    from omg_graph.cli.terminal import show_comparison

    console = stdout_console()
    for comparison in comparisons:
        show_comparison(console, comparison)
    if page is not None:
        line(console, f"page       {page}", "bold")


def _pixels(given: str) -> tuple[str, tuple[int, int]]:
    """``pix=16x15`` taken apart."""
    from omg_graph.errors import ConfigError

    name, _, size = given.rpartition("=")
    rows, _, columns = size.partition("x")
    if not name or not (rows.isdecimal() and columns.isdecimal()) or not int(rows) * int(columns):
        raise ConfigError(f"--pixels: expected NAME=ROWSxCOLUMNS, such as pix=16x15, got {given!r}")
    return name, (int(rows), int(columns))


def _assignment(given: str) -> tuple[str, str]:
    """``Sentiment=positive`` taken apart."""
    from omg_graph.errors import ConfigError

    field, equals, value = given.partition("=")
    if not (field.strip() and equals and value.strip()):
        raise ConfigError(
            f'--set: expected FIELD=VALUE, such as Sentiment="strongly negative", got {given!r}'
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
            f"{run.folder}: expected one sample, there are {len(run.trajectories)} ({ids}, ...): "
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
            f"{before.folder} and {after.folder}: expected results of the same samples, they share "
            "none: compare a run with its fork, or two runs on one file"
        )
    return shared
