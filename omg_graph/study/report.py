"""A study's figures as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from omg_graph.evaluation.bootstrap import Interval
from omg_graph.study.figures import GAINED, METRICS, SettingFigures, verdict
from omg_graph.study.runs import EXACT
from omg_graph.study.variants import MODEL

GOALS = {"error_ratio": 1.10, "energy_ratio": 1.10, "degree_ratio": 0.95, "sign_ratio": 0.95}
"""The most that an error may be over the exact posterior's, and the least for an accuracy."""


def reached(metric: str, figure: Interval) -> bool:
    """Whether a ratio's goal is reached, by its value."""
    goal = GOALS[metric]
    return figure.value <= goal if goal > 1 else figure.value >= goal


def markdown(made: Sequence[SettingFigures], questions: Mapping[str, str]) -> str:
    """All tables: the model at a glance, then a section for each setting."""
    sections = [line for item in made for line in _section(item, questions[item.name])]
    return "\n".join([*_glance(made), *sections])


def number(figure: Interval, signed: bool = False) -> str:
    """A figure with its interval."""
    sign = "+" if signed else ""
    if figure.low != figure.low:  # NaN: nothing is known of its spread
        return f"{figure.value:{sign}.3f}"
    return f"{figure.value:{sign}.3f} [{figure.low:{sign}.3f}, {figure.high:{sign}.3f}]"


def _glance(made: Sequence[SettingFigures]) -> Iterator[str]:
    heads = [METRICS[metric] for metric in GOALS]
    yield f"| the model | {' | '.join(heads)} | plan | evidence | swapped plan | swapped evidence |"
    yield f"| --- |{' --- |' * (len(heads) + 4)}"
    for item in made:
        for subset, methods in item.methods.items():
            cells = [_with_goal(metric, methods[MODEL.name][metric]) for metric in GOALS]
            for lacking in ("without plan", "without evidence"):
                gain = item.gains[subset].get(lacking)
                cells.append("-" if gain is None else verdict(gain["error_ratio"]))
            followed = item.followed.get(MODEL.name, {})
            cells += [
                f"{followed[kind].value:.2f} followed" if kind in followed else "-"
                for kind in ("plan", "evidence")
            ]
            yield f"| {item.name}, {subset} | {' | '.join(cells)} |"
    yield ""


def _with_goal(metric: str, figure: Interval) -> str:
    missed = "" if reached(metric, figure) else f" (goal {GOALS[metric]:.2f})"
    return f"{figure.value:.2f}{missed}"


def _section(item: SettingFigures, question: str) -> Iterator[str]:
    yield f"## {item.name}\n"
    yield f"{question}\n"
    seeds = ", ".join(map(str, item.seeds))
    trained = f"{item.training_clips} training clips, " if item.training_clips else ""
    yield (
        f"{trained}{item.test_clips} test clips, seeds {seeds}; "
        f"averaged over {', '.join(item.by_pattern)} observed. {item.note}.\n"
    )
    for subset, methods in item.methods.items():
        yield from _methods(subset, methods)
        yield from _gains(subset, item.gains[subset])
    yield from _followed(item.followed)
    for pattern, methods in item.by_pattern.items():
        yield from _methods(f"{pattern} observed", {name: methods[name] for name in (EXACT, MODEL.name)})


def _methods(title: str, methods: Mapping[str, Mapping[str, Interval]]) -> Iterator[str]:
    yield f"| {title} | {' | '.join(METRICS.values())} |"
    yield f"| --- |{' --- |' * len(METRICS)}"
    for name, row in methods.items():
        yield f"| {name} | {' | '.join(number(row[metric]) for metric in METRICS)} |"
    yield ""


def _gains(subset: str, gains: Mapping[str, Mapping[str, Interval]]) -> Iterator[str]:
    if not gains:
        return
    yield f"| {subset}: ratio less the model's | {' | '.join(METRICS[metric] for metric in GAINED)} |"
    yield f"| --- |{' --- |' * len(GAINED)}"
    for name, row in gains.items():
        told = [f"{number(row[metric], signed=True)}: {verdict(row[metric])}" for metric in GAINED]
        yield f"| {name} | {' | '.join(told)} |"
    yield ""


def _followed(followed: Mapping[str, Mapping[str, Interval]]) -> Iterator[str]:
    yield "| share of a swap that is followed | plan | evidence |"
    yield "| --- | --- | --- |"
    for name, kinds in followed.items():
        told = [number(kinds[kind]) if kind in kinds else "-" for kind in ("plan", "evidence")]
        yield f"| {name} | {' | '.join(told)} |"
    yield ""
