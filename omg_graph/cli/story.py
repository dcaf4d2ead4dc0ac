"""A trajectory told in the terminal: what was there, what was planned and found, what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_graph.cli.features import feature_table
from omg_graph.cli.output import cell, print_json, spinner, stdout_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from omg_graph.record.artifacts import Array
    from omg_graph.record.results import ResultWriter, RunFacts, SavedRun
    from omg_graph.record.trajectory import CandidatePlan, EvidenceEntry, Plan, Prediction, Trajectory

EVIDENCE_SHOWN = 5
SAMPLES_LISTED = 10
CLASSES_SHOWN = 3
ID_WIDTH = 22
SOURCE_WIDTH = 22
SPARKS = "▁▂▃▄▅▆▇█"
INDENT = "           "


def tell_results(
    writer: ResultWriter, output: Path, *, report: bool, as_json: bool, told: Sequence[str] = ()
) -> None:
    """Tell results that were just written, as a story or as JSON, with their page where one is wanted.

    Args:
        writer: What wrote them.
        output: Where to.
        report: Whether to write the page.
        as_json: Whether to print JSON.
        told: Notes that were shown before.
    """
    from omg_graph.record.results import ARRAYS, REPORT, SavedArrays, SavedRun

    results = SavedRun(output, tuple(writer.trajectories), SavedArrays(output / ARRAYS), writer.facts)
    page = None
    if report:
        from omg_graph.report.page import write_report

        page = output / REPORT
        with spinner("writing the report"):
            write_report(results, page)
    if as_json:
        print_json(result_document(results, page))
    else:
        show_results(stdout_console(), results, told=told, report=page)


def show_results(
    console: Console, run: SavedRun, *, told: Sequence[str] = (), report: Path | None = None
) -> None:
    """One sample's whole story, a line for each of the first ones, and where the results lie.

    Args:
        console: Where it is told.
        run: The results.
        told: Notes that were shown before.
        report: The page that was written of them.
    """
    show_run(console, run)
    trajectories = run.trajectories
    first = worth_telling(trajectories)
    said = (*told, "the model was trained on synthetic data")  # by the first line
    notes = [remark for remark in first.notes if remark not in said]
    show_trajectory(console, run, first, notes)
    if len(trajectories) > 1:
        show_overview(console, trajectories)
    show_errors(console, trajectories)
    console.print()
    _line(
        console, f"results    {run.folder}/reconstruction.npz, trajectory.jsonl, arrays.safetensors", "bold"
    )
    if report is not None:
        _line(console, f"report     {report}", "bold")


def worth_telling(trajectories: Sequence[Trajectory]) -> Trajectory:
    """The first sample in which something was missing; the first of all where nothing was."""
    return next((one for one in trajectories if one.missing or one.filled), trajectories[0])


def show_run(console: Console, run: SavedRun) -> None:
    """Which model it was, and what of the results isn't there."""
    title = f"model {run.trajectories[0].model[:12]}"
    if run.facts is not None:
        title = f"model {run.facts.model} · {run.facts.fingerprint[:12]}"
        if run.facts.synthetic:
            title += " · trained on synthetic data: for trying the tool, no evidence about people"
    _line(console, title, "dim")
    for lack in run.lacking:
        _line(console, f"note       {lack}", "dim")


def show_overview(console: Console, trajectories: Sequence[Trajectory]) -> None:
    """A line for each of the first samples."""
    console.print()
    console.print(_overview(trajectories))
    if len(trajectories) > SAMPLES_LISTED:
        _line(console, f"… and {len(trajectories) - SAMPLES_LISTED} more", "dim")


def show_errors(console: Console, trajectories: Sequence[Trajectory]) -> None:
    """The error over all samples whose truth was hidden."""
    from omg_graph.record.words import pooled_errors

    errors = pooled_errors(trajectories)
    if errors:
        told = ", ".join(f"{name} {value:.3f}" for name, value in errors.items())
        _line(console, f"normalised squared error against the hidden truth (1 = training mean): {told}")


def show_trajectory(
    console: Console, run: SavedRun, trajectory: Trajectory, notes: Sequence[str] | None = None
) -> None:
    """One sample's story.

    Args:
        console: Where it is told.
        run: The results it belongs to.
        trajectory: What happened to the sample.
        notes: What else is to be said; the trajectory's own if None.
    """
    from omg_graph.record.words import prediction_text

    console.print()
    console.rule(cell(f"sample {trajectory.id}", "bold"), align="left", style="dim")
    if trajectory.raw_text:
        _line(console, f"“{trajectory.raw_text}”", "italic")
    missing = ", ".join(
        f"{name} (hidden on request)" if name in trajectory.hidden else name for name in trajectory.missing
    )
    _line(console, f"observed   {', '.join(trajectory.observed) or 'nothing'}")
    _line(console, f"missing    {missing or 'nothing'}")
    if trajectory.plan is not None:
        _line(console, f"plan       {trajectory.plan.text}", "bold green")
        console.print()
        console.print(_plans(trajectory.plan))
        for told in _by_a_language_model(trajectory.plan):
            _line(console, told)
    for name, entries in trajectory.evidence.items():
        console.print()
        console.print(_evidence(name, entries, trajectory.left_out.get(name, 0)))
    for name, steps in trajectory.denoising.items():
        console.print()
        changes = [step.clean_change for step in steps[1:]]
        if changes:
            _line(
                console,
                f"denoising  {name}: {len(steps)} steps, change of the clean estimate {_sparks(changes)} "
                f"({changes[0]:.2g} to {changes[-1]:.2g})",
            )
        _show_reconstruction(console, run, trajectory, name)
    console.print()
    if trajectory.prediction is not None:
        _line(console, f"prediction {prediction_text(trajectory.prediction)}", "bold")
        _line(console, INDENT + probabilities_text(trajectory.prediction, run.facts))
        if trajectory.prediction_without is not None:
            before = prediction_text(trajectory.prediction_without)
            _line(console, f"{INDENT}without the reconstruction: {before}", "dim")
    else:
        _line(console, "prediction none")
    if trajectory.utility is not None:
        _line(console, f"utility    {trajectory.utility.total:.3f} ({trajectory.utility.note})", "dim")
    if trajectory.selection is not None:
        told = f"best of {len(trajectory.selection.ranked)} by utility; {trajectory.selection.note}"
        _line(console, f"selection  {told}", "dim")
    for remark in trajectory.notes if notes is None else notes:
        _line(console, f"note       {remark}", "dim")


def show_terms(console: Console, trajectory: Trajectory) -> None:
    """What the utility is made of, and where the time went."""
    told = trajectory.utility
    if told is not None:
        terms = {
            "L_rec": told.reconstruction,
            "C_sem": told.semantic,
            "C_evi": told.evidence,
            "C_path": told.path,
        }
        shown = ", ".join(f"{name} {value:.3f}" for name, value in terms.items() if value is not None)
        _line(console, f"terms      {shown}", "dim")
    spent = ", ".join(f"{node} {seconds:.2f} s" for node, seconds in trajectory.timings.items())
    _line(console, f"timings    {spent}", "dim")


def probabilities_text(prediction: Prediction, facts: RunFacts | None) -> str:
    """Degrees as a row of bars from the lowest to the highest, or the most probable classes."""
    shares = prediction.probabilities
    if not shares:
        return ""
    best = sorted(shares, key=shares.__getitem__, reverse=True)
    degrees = None if facts is None else facts.degrees
    if degrees is None or prediction.value is None:
        return ", ".join(f"{name} {shares[name]:.2f}" for name in best[:CLASSES_SHOWN])
    ordered = sorted(shares, key=degrees.__getitem__)
    bars = _sparks([0.0, *(shares[name] for name in ordered)])[1:]
    return f"{ordered[0]} {bars} {ordered[-1]}, most probable: {best[0]} ({shares[best[0]]:.0%})"


def _show_reconstruction(console: Console, run: SavedRun, trajectory: Trajectory, name: str) -> None:
    ref = trajectory.reconstruction[name]
    told = f"{name}: {'×'.join(str(size) for size in ref.shape)} numbers"
    if ref.statistics is not None:
        told += f" from {ref.statistics.minimum:.3g} to {ref.statistics.maximum:.3g}"
    if name in trajectory.errors:
        told += f", normalised squared error {trajectory.errors[name].nmse:.3f} (1 = training mean)"
    _line(console, f"result     {told}", "bold")
    values: Array | None = run.arrays.find(ref)
    if values is not None and (table := feature_table(run, name, values)) is not None:
        console.print()
        console.print(table)


def _by_a_language_model(plan: Plan) -> Iterator[str]:
    """How a language model came by its plans; nothing of the distilled planner's."""
    if plan.confidence is not None:
        yield f"confidence {plan.confidence}"
    if plan.decoding is not None:
        yield f"values {plan.decoding}"
    if plan.recordings:
        yield f"recordings {', '.join(map(str, plan.recordings))}"


def _plans(plan: Plan) -> Table:
    from rich.table import Table

    title = (
        f"chosen (✓) and rejected of {plan.drawn} candidates: score = log p - {plan.semantic_weight:g} C_sem"
    )
    table = Table(title=cell(title), title_justify="left", title_style="")
    table.add_column("", no_wrap=True)
    table.add_column("plan")
    for head in ("log p", "C_sem", "score"):
        table.add_column(head, justify="right", no_wrap=True)
    for index in plan.ranked():
        candidate = plan.candidates[index]
        table.add_row(
            cell("✓" if index == plan.chosen else ""),
            cell(candidate_text(candidate)),
            cell("-" if candidate.log_probability is None else f"{candidate.log_probability:.2f}"),
            cell("-" if candidate.semantic_cost is None else f"{candidate.semantic_cost:.3f}"),
            cell("-" if candidate.score is None else f"{candidate.score:.2f}"),
            style="bold green" if index == plan.chosen else "",
        )
    return table


def candidate_text(candidate: CandidatePlan) -> str:
    """A plan, how it came about, and what of the schema it breaks."""
    told = ["greedy"] if candidate.greedy else []
    told += [f"×{candidate.times}"] if candidate.times > 1 else []
    told += ["edited"] if candidate.edited else []
    broken = f" ✗ {candidate.violations[0]}" if candidate.violations else ""
    return candidate.text + (f" ({', '.join(told)})" if told else "") + broken


def _evidence(name: str, entries: Sequence[EvidenceEntry], left_out: int) -> Table:
    from rich.table import Table

    sources = list(dict.fromkeys(entry.source for entry in entries))
    title = f"evidence for {name}"
    if len(sources) == 1:
        title += f" from {sources[0]}"
    if left_out:
        title += f" ({left_out} of the sample's own group left out)"
    # the text takes what the other columns leave of the line
    table = Table(title=cell(title), title_justify="left", title_style="", expand=True)
    for head in ("weight", "similarity"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("entry", no_wrap=True, overflow="ellipsis", max_width=ID_WIDTH)
    if len(sources) > 1:
        table.add_column("source", no_wrap=True, overflow="ellipsis", max_width=SOURCE_WIDTH)
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    for entry in entries[:EVIDENCE_SHOWN]:
        table.add_row(
            cell(f"{entry.weight:.3f}"),
            cell(f"{entry.similarity:.3f}"),
            cell(entry.id),
            *([cell(entry.source)] if len(sources) > 1 else []),
            cell(entry.text),
        )
    if len(entries) > EVIDENCE_SHOWN:
        rest = sum(entry.weight for entry in entries[EVIDENCE_SHOWN:])
        table.add_row(cell(f"{rest:.3f}"), "", cell(f"{len(entries) - EVIDENCE_SHOWN} more"))
    return table


def _overview(trajectories: Sequence[Trajectory]) -> Table:
    from rich.table import Table

    from omg_graph.record.words import prediction_text

    table = Table(title=f"{len(trajectories)} samples", title_justify="left")
    for head in ("sample", "missing", "plan", "prediction", "error"):
        table.add_column(head)
    for trajectory in trajectories[:SAMPLES_LISTED]:
        table.add_row(
            cell(trajectory.id),
            cell(", ".join(trajectory.missing) or "-"),
            cell("-" if trajectory.plan is None else trajectory.plan.text),
            cell(prediction_text(trajectory.prediction)),
            cell(", ".join(f"{n} {e.nmse:.2f}" for n, e in trajectory.errors.items()) or "-"),
        )
    return table


def result_document(run: SavedRun, report: Path | None = None) -> dict[str, Any]:
    """What ``--json`` prints."""
    from omg_graph.record.results import document
    from omg_graph.record.words import pooled_errors

    facts = run.facts
    return {
        "output": str(run.folder),
        "report": None if report is None else str(report),
        "model": {
            "name": None if facts is None else facts.model,
            "fingerprint": run.trajectories[0].model,
            "synthetic": None if facts is None else facts.synthetic,
        },
        "samples": len(run.trajectories),
        "nmse": pooled_errors(run.trajectories),
        "trajectories": [document(trajectory) for trajectory in run.trajectories],
    }


def _sparks(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in values)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(cell(text, style), soft_wrap=True)
