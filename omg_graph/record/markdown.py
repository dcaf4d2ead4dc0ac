"""What a node made, to be read by a person: Markdown for the state that LangGraph Studio shows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from omg_graph.data.arrays import printable
from omg_graph.record.artifacts import ArrayRef
from omg_graph.record.trajectory import CandidatePlan, Prediction, Trajectory

SAMPLES_SHOWN = 3
"""Of a batch: a person looks at the first few, and a checkpoint is to stay small."""

LONGEST_TEXT = 120
NUMBERS_SHOWN = 4
ENTRIES_SHOWN = 5


def candidates(trajectories: Sequence[Trajectory]) -> str:
    """The plans that were drawn."""
    return _each(
        trajectories,
        lambda one: _table(
            ("candidate", "times", "log p"),
            [
                (candidate.text, str(candidate.times), _number(candidate.log_probability))
                for candidate in one.candidates
            ],
        ),
    )


def plans(trajectories: Sequence[Trajectory]) -> str:
    """The plan that won, and every term of every candidate's score."""
    return _each(trajectories, _plan)


def evidence(trajectories: Sequence[Trajectory]) -> str:
    """The entries that were found, by weight."""
    return _each(trajectories, _evidence)


def results(trajectories: Sequence[Trajectory]) -> str:
    """Reconstruction, prediction and utility."""
    return _each(trajectories, _results)


def _plan(trajectory: Trajectory) -> list[str]:
    plan = trajectory.plan
    if plan is None:
        return []
    rows = [
        (
            f"{number} ✓" if index == plan.chosen else str(number),
            candidate.text,
            str(candidate.times),
            _number(candidate.log_probability),
            _number(candidate.semantic_cost),
            _score(candidate),
        )
        for number, (index, candidate) in enumerate(
            ((index, plan.candidates[index]) for index in plan.ranked()), start=1
        )
    ]
    heading = f"**Plan: {_cell(plan.text)}** (chosen by {_cell(plan.chosen_by)})"
    score = f"score = log p - {plan.semantic_weight:g} C_sem"
    return [heading, "", *_table(("", "candidate", "times", "log p", "C_sem", score), rows)]


def _evidence(trajectory: Trajectory) -> list[str]:
    lines = []
    for name, entries in trajectory.evidence.items():
        rows = [
            (f"{entry.weight:.3f}", f"{entry.similarity:.3f}", entry.id, entry.text)
            for entry in sorted(entries, key=lambda entry: -entry.weight)[:ENTRIES_SHOWN]
        ]
        if entries[ENTRIES_SHOWN:]:
            rest = sum(sorted(entry.weight for entry in entries)[:-ENTRIES_SHOWN])
            rows.append((f"{rest:.3f}", "", f"{len(entries) - ENTRIES_SHOWN} more", ""))
        sources = ", ".join(sorted({entry.source for entry in entries}))
        lines += [f"Evidence for {_cell(name)} from {_cell(sources)}", ""]
        lines += _table(("weight", "similarity", "entry", "text"), rows) if rows else ["none was found"]
    return lines


def _results(trajectory: Trajectory) -> list[str]:
    rows = [(name, *_array(ref)) for name, ref in trajectory.reconstruction.items()]
    lines = _table(("reconstructed", "shape", "range", "first numbers", "all of it"), rows) if rows else []
    if trajectory.prediction is not None:
        lines += ["", f"Prediction: **{_cell(_predicted(trajectory.prediction))}**"]
    if trajectory.utility is not None:
        lines += ["", f"Utility: {trajectory.utility.total:.3f} ({_cell(trajectory.utility.note)})"]
    return lines + [line for note in trajectory.notes for line in ("", f"Note: {_cell(note)}")]


def _each(trajectories: Sequence[Trajectory], lines: Callable[[Trajectory], list[str]]) -> str:
    told = []
    for trajectory in trajectories[:SAMPLES_SHOWN]:
        observed, missing = (
            ", ".join(names) or "nothing" for names in (trajectory.observed, trajectory.missing)
        )
        told += [f"### {_cell(trajectory.id)}", f"observed {_cell(observed)}; missing {_cell(missing)}", ""]
        told += [*lines(trajectory), ""]
    if len(trajectories) > SAMPLES_SHOWN:
        told.append(f"and {len(trajectories) - SAMPLES_SHOWN} samples more: see trajectories")
    return "\n".join(told).strip()


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    every = (heads, ["---"] * len(heads), *([_cell(text) for text in row] for row in rows))
    return [f"| {' | '.join(row)} |" for row in every]


def _array(ref: ArrayRef) -> tuple[str, str, str, str]:
    numbers = ref.statistics
    spread = "" if numbers is None else f"{numbers.minimum:.4g} to {numbers.maximum:.4g}"
    first = ", ".join(f"{number:.4g}" for number in ref.preview[:NUMBERS_SHOWN])
    return " x ".join(map(str, ref.shape)), spread, f"{first}, …", ref.uri


def _predicted(prediction: Prediction) -> str:
    words = [] if prediction.label is None else [prediction.label]
    if prediction.value is not None:
        words.append(f"{prediction.value:+.2f}")
    share = prediction.probabilities.get(prediction.label or "")
    return " ".join([*words, *([] if share is None else [f"({share:.0%})"])])


def _score(candidate: CandidatePlan) -> str:
    return candidate.violations[0] if candidate.violations else _number(candidate.score)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cell(text: str) -> str:
    """Text from files, which may hold anything, as nothing but text."""
    plain = " ".join(printable(text).split())
    shown = plain if len(plain) <= LONGEST_TEXT else f"{plain[: LONGEST_TEXT - 1]}…"
    return re.sub(r"([\\|<>\[\]*`])", r"\\\1", shown)
