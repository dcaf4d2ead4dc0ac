"""What a node made, as Markdown: what LangGraph Studio shows of a state."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from omg_graph.data.arrays import printable
from omg_graph.record.trajectory import Trajectory
from omg_graph.record.view import TrajectoryView, view

SAMPLES_SHOWN = 3
"""Of a batch: a person looks at the first few, and a checkpoint is to stay small."""

LONGEST_TEXT = 120
ENTRIES_SHOWN = 5


def candidates(trajectories: Sequence[Trajectory]) -> str:
    """The plans that were drawn."""
    return _each(trajectories, _candidates)


def plans(trajectories: Sequence[Trajectory]) -> str:
    """The plan that won, and every term of every candidate's score."""
    return _each(trajectories, _plan)


def evidence(trajectories: Sequence[Trajectory]) -> str:
    """The evidence, by weight."""
    return _each(trajectories, _evidence)


def results(trajectories: Sequence[Trajectory]) -> str:
    """Reconstruction, prediction and utility."""
    return _each(trajectories, _results)


def _candidates(sample: TrajectoryView) -> list[str]:
    drawn = sample.trajectory.candidates
    rows = [(each.text, str(each.times), _number(each.log_probability)) for each in drawn]
    return _table(("candidate", "times", "log p"), rows)


def _plan(sample: TrajectoryView) -> list[str]:
    if sample.plan is None:
        return []
    plan = sample.plan.plan
    rows = [
        (
            f"{row.number} ✓" if row.chosen else str(row.number),
            row.drawn.text,
            str(row.drawn.times),
            _number(row.drawn.log_probability),
            _number(row.drawn.semantic_cost),
            row.drawn.violations[0] if row.drawn.violations else _number(row.drawn.score),
        )
        for row in sample.plan.candidates
    ]
    heads = ("", "candidate", "times", "log p", "C_sem", f"score = {sample.plan.score}")
    return [f"**Plan: {_cell(plan.text)}** (chosen by {_cell(plan.chosen_by)})", "", *_table(heads, rows)]


def _evidence(sample: TrajectoryView) -> list[str]:
    lines = []
    for part in sample.evidence:
        entries, more, rest = part.top(ENTRIES_SHOWN)
        rows = [(f"{one.weight:.3f}", f"{one.similarity:.3f}", one.id, one.text) for one in entries]
        if more:
            rows.append((f"{rest:.3f}", "", f"{more} more", ""))
        sources = f" from {_cell(', '.join(part.sources))}" if part.sources else ""
        lines += [f"Evidence for {_cell(', '.join(part.names))}{sources}", ""]
        lines += _table(("weight", "similarity", "entry", "text"), rows) if rows else ["There is none."]
    return lines


def _results(sample: TrajectoryView) -> list[str]:
    rows = [(one.name, one.size, one.span, one.first, one.ref.uri) for one in sample.reconstructions]
    lines = _table(("reconstructed", "shape", "range", "first numbers", "all of it"), rows) if rows else []
    trajectory = sample.trajectory
    if trajectory.prediction is not None:
        lines += ["", f"Prediction: **{_cell(sample.prediction)}**"]
    if trajectory.utility is not None:
        lines += ["", f"Utility: {trajectory.utility.total:.3f} ({_cell(trajectory.utility.note)})"]
    return lines + [line for note in trajectory.notes for line in ("", f"Note: {_cell(note)}")]


def _each(trajectories: Sequence[Trajectory], lay_out: Callable[[TrajectoryView], list[str]]) -> str:
    lines = []
    for sample in map(view, trajectories[:SAMPLES_SHOWN]):
        lines += [f"### {_cell(sample.trajectory.id)}"]
        lines += [f"observed {_cell(sample.observed)}; missing {_cell(sample.missing)}", ""]
        lines += [*lay_out(sample), ""]
    if len(trajectories) > SAMPLES_SHOWN:
        lines.append(f"and {len(trajectories) - SAMPLES_SHOWN} samples more: see trajectories")
    return "\n".join(lines).strip()


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    every = (heads, ["---"] * len(heads), *([_cell(text) for text in row] for row in rows))
    return [f"| {' | '.join(row)} |" for row in every]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cell(text: str) -> str:
    """Text from files, which may hold anything, as nothing but text."""
    plain = " ".join(printable(text).split())
    shown = plain if len(plain) <= LONGEST_TEXT else f"{plain[: LONGEST_TEXT - 1]}…"
    return re.sub(r"([\\|<>\[\]*`])", r"\\\1", shown)
