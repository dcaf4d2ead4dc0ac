"""A trajectory, a list of them, or two side by side, laid out for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_graph.cli.output import cell, heading, line, print_json, spinner, stdout_console, table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from omg_graph.record.comparison import EvidenceComparison, PlanComparison, TrajectoryComparison
    from omg_graph.record.results import ResultWriter, SavedRun
    from omg_graph.record.trajectory import Trajectory
    from omg_graph.record.view import (
        CandidateView,
        EvidenceView,
        FeatureView,
        ReconstructionView,
        TrajectoryView,
    )

ENTRIES_SHOWN = 5
CHANGES_SHOWN = 15
FEATURES_SHOWN = 6
SAMPLES_LISTED = 10
CLASSES_SHOWN = 3
ID_WIDTH = 22
SPARKS = "▁▂▃▄▅▆▇█"
BAR = 10
"""Characters of a feature's longest bar."""
INDENT = "           "


def show_written(
    writer: ResultWriter, output: Path, *, report: bool, as_json: bool, shown: Sequence[str] = ()
) -> None:
    """Show results that were just written, as text or as JSON, with their page where one is wanted.

    Args:
        writer: What wrote them.
        output: Where to.
        report: Whether to write the page.
        as_json: Whether to print JSON.
        shown: Notes that were shown before.
    """
    from omg_graph.record.results import ARRAYS, REPORT, SavedArrays, SavedRun

    run = SavedRun(output, tuple(writer.trajectories), SavedArrays(output / ARRAYS), writer.facts)
    page = None
    if report:
        from omg_graph.report.page import write_report

        page = output / REPORT
        with spinner("writing the report"):
            write_report(run, page)
    if as_json:
        print_json(run_document(run, page))
        return
    console = stdout_console()
    show_run(console, run)
    first = first_missing(run.trajectories)
    before = (*shown, "the model was trained on synthetic data")  # by the first line
    show_trajectory(console, run, first, [remark for remark in first.notes if remark not in before])
    if len(run.trajectories) > 1:
        show_overview(console, run.trajectories)
    show_errors(console, run.trajectories)
    console.print()
    line(console, f"results    {output}/reconstruction.npz, trajectory.jsonl, arrays.safetensors", "bold")
    if page is not None:
        line(console, f"report     {page}", "bold")


def first_missing(trajectories: Sequence[Trajectory]) -> Trajectory:
    """The first sample in which something was missing; the first of all where nothing was."""
    return next((one for one in trajectories if one.missing or one.filled), trajectories[0])


def run_document(run: SavedRun, report: Path | None = None) -> dict[str, Any]:
    """What ``--json`` prints."""
    from omg_graph.record.results import document
    from omg_graph.record.view import pooled_errors

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


def show_run(console: Console, run: SavedRun) -> None:
    """Which model it was, and what of the results isn't there."""
    title = f"model {run.trajectories[0].model[:12]}"
    if run.facts is not None:
        title = f"model {run.facts.model} · {run.facts.fingerprint[:12]}"
        if run.facts.synthetic:
            title += " · trained on synthetic data: for trying the tool, no evidence about people"
    line(console, title, "dim")
    for lack in run.lacking:
        line(console, f"note       {lack}", "dim")


def show_overview(console: Console, trajectories: Sequence[Trajectory]) -> None:
    """A row for each of the first samples."""
    from omg_graph.record.view import prediction_text

    listed = table(f"{len(trajectories)} samples", "sample", "missing", "plan", "prediction", "error")
    for trajectory in trajectories[:SAMPLES_LISTED]:
        listed.add_row(
            cell(trajectory.id),
            cell(", ".join(trajectory.missing) or "-"),
            cell("-" if trajectory.plan is None else trajectory.plan.text),
            cell(prediction_text(trajectory.prediction)),
            cell(", ".join(f"{n} {e.nmse:.2f}" for n, e in trajectory.errors.items()) or "-"),
        )
    console.print()
    console.print(listed)
    if len(trajectories) > SAMPLES_LISTED:
        line(console, f"… and {len(trajectories) - SAMPLES_LISTED} more", "dim")


def show_errors(console: Console, trajectories: Sequence[Trajectory]) -> None:
    """The error over all samples whose truth was hidden."""
    from omg_graph.record.view import pooled_errors

    errors = ", ".join(f"{name} {value:.3f}" for name, value in pooled_errors(trajectories).items())
    if errors:
        line(console, f"normalised squared error against the hidden truth (1 = training mean): {errors}")


def show_trajectory(
    console: Console, run: SavedRun, trajectory: Trajectory, notes: Sequence[str] | None = None
) -> None:
    """One sample, from what was observed to what was predicted.

    Args:
        console: Where it is shown.
        run: The results it belongs to.
        trajectory: What happened to the sample.
        notes: The notes to show; all of the trajectory's own if None.
    """
    from omg_graph.record.view import prediction_text, view

    sample = view(trajectory, run.facts, run.arrays)
    heading(console, f"sample {trajectory.id}")
    if trajectory.raw_text:
        line(console, f"“{trajectory.raw_text}”", "italic")
    line(console, f"observed   {sample.observed}")
    line(console, f"missing    {sample.missing}")
    if sample.plan is not None:
        line(console, f"plan       {sample.plan.plan.text}", "bold green")
        console.print()
        drawn = sample.plan.plan.drawn
        title = f"chosen (✓) and rejected of {drawn} candidates: score = {sample.plan.score}"
        console.print(candidate_table(title, sample.plan.candidates, numbered=False))
        for what, text in sample.plan.origin.items():
            line(console, f"{what} {text}")
    for part in sample.evidence:
        console.print()
        console.print(_evidence_table(part))
    for one in sample.reconstructions:
        console.print()
        _show_reconstruction(console, one)
    console.print()
    if trajectory.prediction is None:
        line(console, "prediction none")
    else:
        line(console, f"prediction {sample.prediction}", "bold")
        line(console, INDENT + labels_text(sample))
    if trajectory.prediction_without is not None:
        without = prediction_text(trajectory.prediction_without)
        line(console, f"{INDENT}without the reconstruction: {without}", "dim")
    if trajectory.utility is not None:
        line(console, f"utility    {trajectory.utility.total:.3f} ({trajectory.utility.note})", "dim")
    if trajectory.selection is not None:
        count, remark = len(trajectory.selection.ranked), trajectory.selection.note
        line(console, f"selection  best of {count} by utility; {remark}", "dim")
    for remark in trajectory.notes if notes is None else notes:
        line(console, f"note       {remark}", "dim")


def show_terms(console: Console, trajectory: Trajectory) -> None:
    """What the utility is made of, and where the time went."""
    from omg_graph.record.view import view

    terms = [f"{term.symbol} {term.value:.3f}" for term in view(trajectory).terms if term.value is not None]
    if terms:
        line(console, f"terms      {', '.join(terms)}", "dim")
    spent = ", ".join(f"{node} {seconds:.2f} s" for node, seconds in trajectory.timings.items())
    line(console, f"timings    {spent}", "dim")


def labels_text(sample: TrajectoryView) -> str:
    """Degrees as a row of bars from the lowest to the highest, or the most probable classes."""
    labels = sample.labels
    if not labels:
        return ""
    if not sample.ordered:
        return ", ".join(f"{row.label} {row.share:.2f}" for row in labels[:CLASSES_SHOWN])
    best = max(labels, key=lambda row: row.share)
    bars = _sparks([0.0, *(row.share for row in labels)])[1:]
    return f"{labels[0].label} {bars} {labels[-1].label}, most probable: {best.label} ({best.share:.0%})"


def candidate_table(title: str, candidates: Iterable[CandidateView], *, numbered: bool) -> Table:
    """A row for each candidate plan, with its scores; those of the winner in green.

    Args:
        title: Above the table.
        candidates: The winner first.
        numbered: Whether their numbers are shown.
    """
    heads = ("", "", "plan") if numbered else ("", "plan")
    shown = table(title, *heads, figures=("log p", "C_sem", "score"))
    for row in candidates:
        drawn = row.drawn
        remarks = f" ({row.remarks})" if row.remarks else ""
        broken = f" ✗ {drawn.violations[0]}" if drawn.violations else ""
        shown.add_row(
            cell("✓" if row.chosen else ""),
            *([cell(row.number)] if numbered else []),
            cell(f"{drawn.text}{remarks}{broken}"),
            cell("-" if drawn.log_probability is None else f"{drawn.log_probability:.2f}"),
            cell("-" if drawn.semantic_cost is None else f"{drawn.semantic_cost:.3f}"),
            cell("-" if drawn.score is None else f"{drawn.score:.2f}"),
            style="bold green" if row.chosen else "",
        )
    return shown


def show_comparison(console: Console, comparison: TrajectoryComparison) -> None:
    """One sample before and after."""
    from omg_graph.record.view import prediction_text

    heading(console, f"sample {comparison.id}")
    if not comparison.same_input:
        line(
            console,
            "input      other modalities were observed: more than plan and evidence differs",
            "yellow",
        )
    if comparison.plan is not None:
        _show_changed_plan(console, comparison.plan)
    for name, evidence in comparison.evidence.items():
        console.print()
        console.print(_changed_evidence(name, evidence))
    console.print()
    for name, output in comparison.output.items():
        moved = "how far it moved isn't known: its arrays aren't there"
        if output.distance is not None:
            moved = (
                f"moved by {output.distance:.2g} deviations a feature "
                f"(the first is {output.from_mean or 0.0:.2g} from the training mean)"
            )
        if output.nmse[0] is not None:
            moved += f"; error against the truth {_arrow(output.nmse)}"
        line(console, f"output     {name}: {moved}", "bold")
    if any(prediction is not None for prediction in comparison.prediction):
        before, after = map(prediction_text, comparison.prediction)
        line(console, f"prediction {before}  →  {after}", "bold")
    line(console, f"utility    {_arrow(comparison.utility)}", "dim")
    for where, notes in zip(("before", "after"), comparison.notes, strict=True):
        for remark in notes:
            line(console, f"note       {where}: {remark}", "dim")


def _evidence_table(part: EvidenceView) -> Table:
    sources = part.sources
    title = f"evidence for {', '.join(part.names)}"
    if len(sources) == 1:
        title += f" from {sources[0]}"
    if part.left_out:
        title += f" ({part.left_out} of the sample's own group left out)"
    # the text takes what the other columns leave of the line
    shown = table(title, figures=("weight", "similarity"), expand=True)
    for head in ("entry", "source") if len(sources) > 1 else ("entry",):
        shown.add_column(head, no_wrap=True, overflow="ellipsis", max_width=ID_WIDTH)
    shown.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1)
    entries, more, rest = part.top(ENTRIES_SHOWN)
    for entry in entries:
        source = [cell(entry.source)] if len(sources) > 1 else []
        figures = cell(f"{entry.weight:.3f}"), cell(f"{entry.similarity:.3f}")
        shown.add_row(*figures, cell(entry.id), *source, cell(entry.text))
    if more:
        shown.add_row(cell(f"{rest:.3f}"), "", cell(f"{more} more"))
    return shown


def _show_reconstruction(console: Console, one: ReconstructionView) -> None:
    if one.changes:
        line(
            console,
            f"denoising  {one.name}: {len(one.steps)} steps, change of the clean estimate "
            f"{_sparks(one.changes)} ({one.changes[0]:.2g} to {one.changes[-1]:.2g})",
        )
    span = f" from {one.span}" if one.span else ""
    error = (
        "" if one.error is None else f", normalised squared error {one.error.nmse:.3f} (1 = training mean)"
    )
    line(console, f"result     {one.name}: {one.size} numbers{span}{error}", "bold")
    if one.features:
        console.print()
        console.print(features_table(one.name, one.features))


def features_table(name: str, features: Sequence[FeatureView]) -> Table:
    """The named features that lie furthest from their training mean."""
    title = f"furthest from the training mean (in deviations, sd) of {len(features)} {name} features"
    shown = table(title, "feature", figures=("estimate", "mean"))
    shown.add_column("unit", no_wrap=True)
    shown.add_column("sd", justify="right", no_wrap=True)
    shown.add_column("", no_wrap=True)
    longest = max(abs(features[0].distance), 1e-12)
    for feature in features[:FEATURES_SHOWN]:
        bar = "█" * max(1, round(BAR * abs(feature.distance) / longest))
        shown.add_row(
            cell(feature.name),
            cell(f"{feature.value:.3g}"),
            cell(f"{feature.mean:.3g}"),
            cell(feature.unit),
            cell(f"{feature.distance:+.2f}"),
            cell(bar, "green" if feature.distance > 0 else "red"),
        )
    return shown


def _show_changed_plan(console: Console, plan: PlanComparison) -> None:
    if plan.before == plan.after:
        line(console, f"plan       {plan.before}: the same", "green")
        return
    shown = table("plan", "", "before", "after")
    shown.add_row("plan", cell(plan.before), cell(plan.after, "bold"))
    for change in plan.changed:
        shown.add_row(cell(change.field), cell(change.before or "-"), cell(change.after or "-", "bold"))
    shown.add_row("chosen by", *map(cell, plan.chosen_by))
    for name, pair in plan.figures.items():
        shown.add_row(name, *(cell("unknown" if value is None else f"{value:.3f}") for value in pair))
    console.print(shown)


def _changed_evidence(name: str, evidence: EvidenceComparison) -> Table:
    title = f"evidence for {name}: {evidence.moved:.0%} of the weight moved, C_evi {_arrow(evidence.cost)}"
    shown = table(title, figures=("before", "after"), expand=True)
    shown.add_column("", no_wrap=True)
    shown.add_column("entry", no_wrap=True, max_width=ID_WIDTH)
    shown.add_column("text", no_wrap=True, ratio=1)
    for entry in evidence.entries[:CHANGES_SHOWN]:
        shown.add_row(
            *(cell("" if weight is None else f"{weight:.3f}") for weight in (entry.before, entry.after)),
            entry.change,
            cell(entry.id),
            cell(entry.text),
            style={"new": "green", "gone": "red"}.get(entry.change, ""),
        )
    more = len(evidence.entries) - CHANGES_SHOWN
    if more > 0:
        shown.add_row("", "", "", f"{more} more", "")
    return shown


def _arrow(pair: Sequence[float | None]) -> str:
    return " → ".join("unknown" if value is None else f"{value:.3f}" for value in pair)


def _sparks(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in values)
