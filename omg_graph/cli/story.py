"""A trajectory told in the terminal: what was there, what was planned and found, what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omg_graph.cli.features import feature_table
from omg_graph.cli.output import cell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from omg_graph.model.model import Model
    from omg_graph.samples.dataset import FloatArray
    from omg_graph.trajectory.trajectory import EvidenceEntry, Plan, PlanCandidate, Prediction, Trajectory

EVIDENCE_SHOWN = 5
SAMPLES_LISTED = 10
CLASSES_SHOWN = 3
ID_WIDTH = 22
SOURCE_WIDTH = 22
SPARKS = "▁▂▃▄▅▆▇█"
INDENT = "           "


def show_results(
    console: Console,
    trajectories: Sequence[Trajectory],
    model: Model,
    output: Path,
    told: Sequence[str] = (),
) -> None:
    """The first sample's whole story, a line for each of the next ones, and where the results lie.

    Args:
        console: Where it is told.
        trajectories: What happened to the samples.
        model: Which did it.
        output: The folder that the results were written to.
        told: Notes that were shown before.
    """
    title = f"model {model.config.name} · {model.manifest.fingerprint[:12]}"
    if model.config.synthetic:
        title += " · trained on synthetic data: for trying the tool, no evidence about people"
    _line(console, title, "dim")
    first = trajectories[0]
    # the first line says that the model is synthetic
    notes = [remark for remark in first.notes if remark not in told and "synthetic" not in remark]
    show_trajectory(console, first, model, _reconstructed(output, first), notes)
    if len(trajectories) > 1:
        console.print()
        console.print(_overview(trajectories))
        if len(trajectories) > SAMPLES_LISTED:
            _line(console, f"… and {len(trajectories) - SAMPLES_LISTED} more", "dim")
    errors = pooled_errors(trajectories)
    if errors:
        told = ", ".join(f"{name} {value:.3f}" for name, value in errors.items())
        _line(console, f"normalised squared error against the hidden truth (1 = training mean): {told}")
    console.print()
    _line(console, f"results    {output}/reconstruction.npz, trajectory.jsonl, arrays.safetensors", "bold")


def show_trajectory(
    console: Console,
    trajectory: Trajectory,
    model: Model,
    reconstructed: Mapping[str, FloatArray],
    notes: Sequence[str],
) -> None:
    """One sample's story.

    Args:
        console: Where it is told.
        trajectory: What happened to the sample.
        model: Which did it.
        reconstructed: The sample's reconstructed modalities, in the input's units and shape.
        notes: What else is to be said.
    """
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
        if trajectory.plan.confidence is not None:
            _line(console, f"confidence {trajectory.plan.confidence}")
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
        _show_reconstruction(console, trajectory, name, model, reconstructed.get(name))
    console.print()
    if trajectory.prediction is not None:
        _line(console, f"prediction {prediction_text(trajectory)}", "bold")
        _line(console, INDENT + probabilities_text(trajectory.prediction, model))
    else:
        _line(console, "prediction none")
    if trajectory.utility is not None:
        _line(console, f"utility    {trajectory.utility.total:.3f} ({trajectory.utility.note})", "dim")
    for remark in notes:
        _line(console, f"note       {remark}", "dim")


def prediction_text(trajectory: Trajectory) -> str:
    """A prediction in a few words."""
    prediction = trajectory.prediction
    if prediction is None:
        return "-"
    parts = []
    if prediction.label is not None:
        parts.append(prediction.label)
    if prediction.value is not None:
        parts.append(f"{prediction.value:+.2f}")
    elif prediction.label is not None:
        parts.append(f"p = {prediction.probabilities[prediction.label]:.2f}")
    return "  ".join(parts)


def probabilities_text(prediction: Prediction, model: Model) -> str:
    """Degrees as a row of bars from the lowest to the highest, or the most probable classes."""
    shares = prediction.probabilities
    if not shares:
        return ""
    best = sorted(shares, key=shares.__getitem__, reverse=True)
    degrees = model.schema.degrees
    if degrees is None or prediction.value is None:
        return ", ".join(f"{name} {shares[name]:.2f}" for name in best[:CLASSES_SHOWN])
    ordered = sorted(shares, key=degrees.__getitem__)
    bars = _sparks([0.0, *(shares[name] for name in ordered)])[1:]
    return f"{ordered[0]} {bars} {ordered[-1]}, most probable: {best[0]} ({shares[best[0]]:.0%})"


def _show_reconstruction(
    console: Console, trajectory: Trajectory, name: str, model: Model, values: FloatArray | None
) -> None:
    ref = trajectory.reconstruction[name]
    told = f"{name}: {'×'.join(str(size) for size in ref.shape)} numbers"
    if ref.statistics is not None:
        told += f" from {ref.statistics.minimum:.3g} to {ref.statistics.maximum:.3g}"
    if name in trajectory.errors:
        told += f", normalised squared error {trajectory.errors[name].nmse:.3f} (1 = training mean)"
    _line(console, f"result     {told}", "bold")
    if values is not None and (table := feature_table(model, name, values)) is not None:
        console.print()
        console.print(table)


def _reconstructed(output: Path, trajectory: Trajectory) -> dict[str, FloatArray]:
    """The first sample's reconstructions, as they were written."""
    import numpy as np

    from omg_graph.graph.results import RECONSTRUCTION

    with np.load(output / RECONSTRUCTION, allow_pickle=False) as file:
        shapes = {name: ref.shape for name, ref in trajectory.reconstruction.items()}
        # a single sample is written without a leading axis
        return {name: file[name].reshape(-1, *shape)[0] for name, shape in shapes.items()}


def _plans(plan: Plan) -> Table:
    from rich.table import Table

    drawn = len(plan.candidates)
    title = f"chosen (✓) and rejected of {drawn} candidates: score = log p - {plan.semantic_weight:g} C_sem"
    table = Table(title=cell(title), title_justify="left", title_style="")
    table.add_column("", no_wrap=True)
    table.add_column("plan")
    for head in ("log p", "C_sem", "score"):
        table.add_column(head, justify="right", no_wrap=True)
    order = sorted(range(drawn), key=lambda index: (index != plan.chosen, -_score(plan.candidates[index])))
    times = Counter(candidate.text for candidate in plan.candidates)
    greedy = {candidate.text for candidate in plan.candidates if candidate.greedy}
    # the same plan is often drawn more than once: one line tells of all of them
    first: dict[str, int] = {}
    for index in order:
        first.setdefault(plan.candidates[index].text, index)
    for text, index in first.items():
        candidate = plan.candidates[index]
        told = [*(["greedy"] if text in greedy else []), *([f"×{times[text]}"] if times[text] > 1 else [])]
        table.add_row(
            cell("✓" if index == plan.chosen else ""),
            cell(text + (f" ({', '.join(told)})" if told else "") + _broken(candidate)),
            cell(f"{candidate.log_probability:.2f}"),
            cell("-" if candidate.semantic_cost is None else f"{candidate.semantic_cost:.3f}"),
            cell("-" if candidate.score is None else f"{candidate.score:.2f}"),
            style="bold green" if index == plan.chosen else "",
        )
    return table


def _broken(candidate: PlanCandidate) -> str:
    return f" ✗ {candidate.violations[0]}" if candidate.violations else ""


def _score(candidate: PlanCandidate) -> float:
    return float("-inf") if candidate.score is None else candidate.score


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
    for head in ("weight", "cosine"):
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

    table = Table(title=f"{len(trajectories)} samples", title_justify="left")
    for head in ("sample", "missing", "plan", "prediction", "error"):
        table.add_column(head)
    for trajectory in trajectories[:SAMPLES_LISTED]:
        table.add_row(
            cell(trajectory.id),
            cell(", ".join(trajectory.missing) or "-"),
            cell("-" if trajectory.plan is None else trajectory.plan.text),
            cell(prediction_text(trajectory)),
            cell(", ".join(f"{n} {e.nmse:.2f}" for n, e in trajectory.errors.items()) or "-"),
        )
    return table


def pooled_errors(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Normalised squared error of each hidden modality over all samples: a sum over a sum."""
    pooled = {}
    for name in dict.fromkeys(name for trajectory in trajectories for name in trajectory.errors):
        errors = [trajectory.errors[name] for trajectory in trajectories if name in trajectory.errors]
        deviation = sum(error.squared_deviation for error in errors)
        pooled[name] = sum(error.squared_error for error in errors) / deviation
    return pooled


def result_document(trajectories: Sequence[Trajectory], model: Model, output: Path) -> dict[str, Any]:
    """What ``--json`` prints."""
    from omg_graph.graph.results import document

    return {
        "output": str(output),
        "model": {
            "name": model.config.name,
            "fingerprint": model.manifest.fingerprint,
            "synthetic": model.config.synthetic,
        },
        "samples": len(trajectories),
        "nmse": pooled_errors(trajectories),
        "trajectories": [document(trajectory) for trajectory in trajectories],
    }


def _sparks(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in values)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(cell(text, style), soft_wrap=True)
