"""A trajectory told in the terminal: what was there, what was planned and found, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from omg_graph.cli.output import cell

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from omg_graph.model.model import Model
    from omg_graph.trajectory.trajectory import Trajectory

EVIDENCE_SHOWN = 5
SAMPLES_LISTED = 10
SPARKS = "▁▂▃▄▅▆▇█"


def show_results(console: Console, trajectories: Sequence[Trajectory], model: Model, output: Path) -> None:
    """The first sample's whole story, a line for each of the next ones, and where the results lie."""
    title = f"model {model.config.name} · {model.manifest.fingerprint[:12]}"
    if model.config.synthetic:
        title += " · trained on synthetic data"
    _line(console, title, "dim")
    show_trajectory(console, trajectories[0])
    if len(trajectories) > 1:
        console.print()
        console.print(_overview(trajectories))
        if len(trajectories) > SAMPLES_LISTED:
            _line(console, f"… and {len(trajectories) - SAMPLES_LISTED} more", "dim")
    errors = mean_errors(trajectories)
    if errors:
        told = ", ".join(f"{name} {value:.3f}" for name, value in errors.items())
        _line(console, f"normalised squared error against the hidden truth (1 = training mean): {told}")
    _line(console, f"results: {output}/reconstruction.npz, trajectory.jsonl, arrays.safetensors", "bold")


def show_trajectory(console: Console, trajectory: Trajectory) -> None:
    """One sample's story."""
    console.print()
    console.rule(cell(f"sample {trajectory.id}"), align="left")
    if trajectory.raw_text:
        _line(console, f"“{trajectory.raw_text}”", "italic")
    observed = ", ".join(trajectory.observed) or "nothing"
    missing = ", ".join(
        f"{name} (hidden)" if name in trajectory.hidden else name for name in trajectory.missing
    )
    _line(console, f"observed  {observed}")
    _line(console, f"missing   {missing or 'nothing: nothing was reconstructed'}")
    if trajectory.plan is not None:
        console.print(_plans(trajectory))
    for name, entries in trajectory.evidence.items():
        console.print(_evidence(trajectory, name, entries))
    for name, steps in trajectory.denoising.items():
        norms = [step.clean_norm for step in steps]
        _line(
            console,
            f"denoising {name}: {len(steps)} steps, clean estimate {_sparks(norms)} "
            f"(norm {norms[0]:.2f} to {norms[-1]:.2f})",
        )
    for name, ref in trajectory.reconstruction.items():
        told = f"reconstructed {name}: shape {'×'.join(str(size) for size in ref.shape)}"
        if ref.statistics is not None:
            told += f", {ref.statistics.minimum:.3g} to {ref.statistics.maximum:.3g}"
        if name in trajectory.errors:
            told += f", error {trajectory.errors[name].nmse:.3f}"
        _line(console, told)
    if trajectory.prediction is not None:
        _line(console, f"prediction  {prediction_text(trajectory)}", "bold")
    else:
        _line(console, "prediction  none: the model was trained without labels")
    if trajectory.utility is not None:
        _line(console, f"utility  {trajectory.utility.total:.3f} ({trajectory.utility.note})", "dim")


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


def _plans(trajectory: Trajectory) -> Table:
    from rich.table import Table

    plan = trajectory.plan
    table = Table(title="plan and rejected candidates", title_justify="left", title_style="", expand=False)
    for head in ("", "plan", "log p", "C_sem", "score"):
        table.add_column(head, justify="left" if head in ("", "plan") else "right")
    if plan is None:
        return table
    order = sorted(
        range(len(plan.candidates)), key=lambda index: (index != plan.chosen, -(_score(plan, index)))
    )
    for index in order:
        candidate = plan.candidates[index]
        style = "bold green" if index == plan.chosen else ""
        text = candidate.text + (" (greedy)" if candidate.greedy else "")
        if candidate.violations:
            text += f" ✗ {candidate.violations[0]}"
        table.add_row(
            cell("✓" if index == plan.chosen else "", style),
            cell(text, style),
            cell(f"{candidate.log_probability:.2f}", style),
            cell("-" if candidate.semantic_cost is None else f"{candidate.semantic_cost:.3f}", style),
            cell("-" if candidate.score is None else f"{candidate.score:.2f}", style),
        )
    return table


def _score(plan: Any, index: int) -> float:
    score = plan.candidates[index].score
    return float("-inf") if score is None else float(score)


def _evidence(trajectory: Trajectory, name: str, entries: Sequence[Any]) -> Table:
    from rich.table import Table

    left_out = trajectory.left_out.get(name, 0)
    title = f"evidence for {name}"
    if left_out:
        title += f" ({left_out} entries of the sample's own group left out)"
    table = Table(title=cell(title), title_justify="left", expand=False)
    for head in ("weight", "cosine", "entry", "source", "text"):
        table.add_column(head, justify="right" if head in ("weight", "cosine") else "left")
    for entry in entries[:EVIDENCE_SHOWN]:
        text = entry.text if len(entry.text) <= 70 else entry.text[:69] + "…"
        table.add_row(
            cell(f"{entry.weight:.3f}"),
            cell(f"{entry.similarity:.3f}"),
            cell(entry.id),
            cell(entry.source),
            cell(text),
        )
    if len(entries) > EVIDENCE_SHOWN:
        rest = sum(entry.weight for entry in entries[EVIDENCE_SHOWN:])
        table.add_row(cell(f"{rest:.3f}"), "", cell(f"{len(entries) - EVIDENCE_SHOWN} more"), "", "")
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


def mean_errors(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Mean of the samples' normalised squared errors, for each modality that was hidden."""
    names = dict.fromkeys(name for trajectory in trajectories for name in trajectory.errors)
    return {name: fmean(t.errors[name].nmse for t in trajectories if name in t.errors) for name in names}


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
        "nmse": mean_errors(trajectories),
        "trajectories": [document(trajectory) for trajectory in trajectories],
    }


def _sparks(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return "".join(SPARKS[round((value - low) / span * (len(SPARKS) - 1))] for value in values)


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(cell(text, style), soft_wrap=True)
