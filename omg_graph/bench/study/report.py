"""A study's figures as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from omg_graph.bench.study.figures import GAINED, METRICS, Figures, SettingFigures, verdict
from omg_graph.bench.study.runs import EXACT
from omg_graph.bench.study.variants import MODEL
from omg_graph.evaluation.intervals import Interval

GOALS = {"error_ratio": 1.10, "energy_ratio": 1.10, "degree_ratio": 0.95, "sign_ratio": 0.95}
"""The most that an error may be over the exact posterior's, and the least for an accuracy."""
LACKING = {
    "without plan": "without its plan",
    "without evidence": "without evidence",
    "plain conditional diffusion": "without both",
}
"""Variant to what it lacks."""


def reached(metric: str, figure: Interval) -> bool:
    """Whether a ratio's goal is reached, by its value."""
    goal = GOALS[metric]
    return figure.value <= goal if goal > 1 else figure.value >= goal


def markdown(made: Sequence[SettingFigures], questions: Mapping[str, str]) -> str:
    """All tables: the model at a glance, then a section for each setting."""
    sections = [line for item in made for line in _section(item, questions[item.name])]
    return "\n".join([*_glance(made), *sections])


def lines_of(item: SettingFigures) -> Iterator[tuple[str, str, Figures]]:
    """What is observed, which clips, and their figures: over all patterns first, then of each."""
    if len(item.by_pattern) > 1:
        yield from (("all patterns", subset, found) for subset, found in item.subsets.items())
    for pattern, subsets in item.by_pattern.items():
        yield from ((pattern, subset, found) for subset, found in subsets.items())


def with_goal(metric: str, figure: Interval) -> str:
    """A ratio with its interval, and whether its goal is reached."""
    return f"{number(figure)}: {'reached' if reached(metric, figure) else 'missed'}"


def with_verdict(gain: Interval) -> str:
    """A difference to the model with its interval, and what it says."""
    return f"{number(gain, signed=True)}: {verdict(gain)}"


def number(figure: Interval, signed: bool = False) -> str:
    """A figure with its interval."""
    sign = "+" if signed else ""
    if figure.low != figure.low:  # NaN: nothing is known of its spread
        return f"{figure.value:{sign}.3f}"
    return f"{figure.value:{sign}.3f} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"


def _glance(made: Sequence[SettingFigures]) -> Iterator[str]:
    """Whether goals are reached, what plan and evidence bring, and how right the plans are."""
    goals = [
        f"{METRICS[metric]}, {'at most' if goal > 1 else 'at least'} {goal:.2f}"
        for metric, goal in GOALS.items()
    ]
    yield from _table(
        ("the model", "observed", "clips", *goals),
        (
            (name, *where, *(with_goal(metric, found.methods[MODEL.name][metric]) for metric in GOALS))
            for name, *where, found in _lines(made)
        ),
    )
    for metric in GAINED:
        yield f"What the model would lose without a component, in {METRICS[metric]}: variant minus model.\n"
        yield from _table(
            ("the model", "observed", "clips", *LACKING.values()),
            (
                (
                    name,
                    *where,
                    *(_cell(found.gains.get(lacking, {}).get(metric), with_verdict) for lacking in LACKING),
                )
                for name, *where, found in _lines(made)
                if found.gains
            ),
        )
    yield "How often the model's plans and the most probable value (Bayes's rule) are correct.\n"
    yield from _table(
        ("the model", "observed", "clips", "field", "plan", "Bayes's rule"),
        (
            (name, *where, field, *(number(found.plans[who][field]) for who in (MODEL.name, EXACT)))
            for name, *where, found in _lines(made)
            for field in found.plans[MODEL.name]
        ),
    )
    yield "How far the model follows a swapped plan or evidence (share), over all patterns and clips.\n"
    kinds = ("plan", "evidence")
    yield from _table(
        ("the model", *kinds),
        (
            (item.name, *(_cell(item.followed[MODEL.name].get(kind), number) for kind in kinds))
            for item in made
        ),
    )


def _lines(made: Sequence[SettingFigures]) -> Iterator[tuple[str, str, str, Figures]]:
    for item in made:
        yield from ((item.name, *line) for line in lines_of(item))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table and an empty line; nothing where there is no row."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if lines:
        yield f"| {' | '.join(heads)} |"
        yield f"| --- |{' --- |' * (len(heads) - 1)}"
        yield from (*lines, "")


def _cell(figure: Interval | None, text: Callable[[Interval], str]) -> str:
    return "-" if figure is None else text(figure)


def _section(item: SettingFigures, question: str) -> Iterator[str]:
    yield f"## {item.name}\n"
    yield f"{question}\n"
    seeds = ", ".join(map(str, item.seeds))
    trained = f"{item.training_clips} training clips, " if item.training_clips else ""
    yield (
        f"{trained}{item.test_clips} test clips, seeds {seeds}; "
        f"averaged over {', '.join(item.by_pattern)} observed. {item.note}.\n"
    )
    for subset, found in item.subsets.items():
        yield from _methods(subset, found)
    yield from _table(
        ("share of a swap that is followed", "plan", "evidence"),
        (
            (name, *(_cell(kinds.get(kind), number) for kind in ("plan", "evidence")))
            for name, kinds in item.followed.items()
        ),
    )
    for pattern, subsets in item.by_pattern.items():
        for subset, found in subsets.items():
            yield from _methods(f"{pattern} observed, {subset}", found)


def _methods(title: str, found: Figures) -> Iterator[str]:
    yield from _table(
        (title, *METRICS.values()),
        ((name, *(number(row[metric]) for metric in METRICS)) for name, row in found.methods.items()),
    )
