"""The method's goals, and whether it reaches them: the table at the top of the page of results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

METHOD, PATTERNS, AVERAGE = "default", "fixed", "average"
LEAD = 0.01
"""A point of ACC2 or ACC7."""
ANCHOR = "anchor"
"""The method without its network."""
BESIDE = ("MLP with mask", ANCHOR)
AIMS = (0.45, 0.43, 0.25)
"""Of the three groups of mfeat's patterns, in their order."""
NEIGHBOURS = "10 nearest neighbours"
ENERGY_SHARE = 0.95
COVERAGE = (0.88, 0.92)
MINUTES = 10.0

PLAN, EVIDENCE = {"without plan": "the plan"}, {"without evidence": "evidence"}
SHOULD_HELP = {"modes": PLAN, "compositions": PLAN, "rare-details": EVIDENCE}
"""A setting of the study to what should help there: the variant that lacks it, and its name."""

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """One line of the table."""

    where: str
    wanted: str
    came: str
    """The figure, with its interval where there is one."""
    verdict: str
    """``reached``, ``missed``, or ``not shown``: the value meets the goal, its interval contains zero."""


def table(goals: list[Goal]) -> list[str]:
    """The goals as Markdown."""
    lines = ["| where | goal | result | |", "| --- | --- | --- | --- |"]
    marks = {"missed": "**missed**", "not shown": "**not shown**"}
    lines += [f"| {g.where} | {g.wanted} | {g.came} | {marks.get(g.verdict, g.verdict)} |" for g in goals]
    return lines


def prediction_goals(where: str, plain: str | None) -> Callable[[Document], Iterator[Goal]]:
    """ACC2 and ACC7 beside plain conditional diffusion, a specialist, and the best of all floors.

    The anchor has the method's own head and label estimate, so it is no floor here: its own line says whether
    the network adds anything to it.

    Args:
        where: what the table calls the data.
        plain: the variant that has neither plan nor evidence.
    """

    def goals(document: Document) -> Iterator[Goal]:
        methods = _methods(document)
        names = [plain] if plain in methods else []
        names += [entry["name"] for entry in document["floors"]]
        for metric, title in (("acc2", "ACC2"), ("acc7", "ACC7")):
            gaps = {name: gap for name in names if (gap := _gap(methods[name], metric, AVERAGE)) is not None}
            if not gaps:
                continue
            others = [name for name in gaps if name != ANCHOR]
            best = max(others, key=lambda name: float(gaps[name]["first"]), default=None)
            for name in dict.fromkeys((best, plain, "specialist", ANCHOR)):
                if name not in gaps:
                    continue
                lead, low, high = _less(gaps[name])
                wanted = f"a point ahead of {'the best floor, ' if name == best else ''}`{name}`"
                if name == ANCHOR:
                    wanted = f"ahead of `{name}`, which has all but the network"
                yield Goal(
                    where,
                    f"{title}, all patterns: {wanted}, with an interval that excludes zero",
                    f"{100 * lead:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] "
                    f"({100 * gaps[name]['second']:.2f} and {100 * gaps[name]['first']:.2f})",
                    _shown(lead > 0 if name == ANCHOR else lead >= LEAD, low > 0),
                )

    return goals


def reconstruction_goals(where: str, groups: Sequence[str]) -> Callable[[Document], Iterator[Goal]]:
    """Errors by group of patterns, beside an MLP and the anchor; energy score and coverage of draws.

    Args:
        where: what the table calls the data.
        groups: the names of the three groups, in the order of their aims.
    """

    def goals(document: Document) -> Iterator[Goal]:
        methods = _methods(document)
        for group, aim in zip(groups, AIMS, strict=True):
            own = _figure(methods[METHOD], "nmse", group)
            if own is None:
                continue
            interval = f"{own['value']:.4f} [{own['low']:.4f}, {own['high']:.4f}]"
            yield Goal(where, f"error, {group}: {aim:.2f}", interval, _shown(own["value"] <= aim, True))
            for name in BESIDE:
                gap = None if name not in methods else _gap(methods[name], "nmse", group)
                if gap is not None:
                    less, low, high = _less(gap)
                    yield Goal(
                        where,
                        f"error, {group}: below `{name}`",
                        f"{less:+.4f} [{low:+.4f}, {high:+.4f}] (it has {gap['first']:.4f})",
                        _shown(less < 0, high < 0),
                    )
        yield from _draws(where, methods)

    return goals


def _draws(where: str, methods: Mapping[str, Document]) -> Iterator[Goal]:
    own = _figure(methods[METHOD], "energy_score", AVERAGE)
    other = _figure(methods.get(NEIGHBOURS), "energy_score", AVERAGE)
    if own is not None and other is not None:
        share = own["value"] / other["value"]
        yield Goal(
            where,
            f"fair energy score of 19 draws: {1 - ENERGY_SHARE:.0%} below that of `{NEIGHBOURS}`",
            f"{share - 1:+.1%} ({own['value']:.3f} and {other['value']:.3f})",
            _shown(share <= ENERGY_SHARE, True),
        )
    covered = _figure(methods[METHOD], "coverage90", AVERAGE)
    if covered is not None:
        low, high = COVERAGE
        yield Goal(
            where,
            f"the 90 % interval of 19 draws covers {low:.0%} to {high:.0%}",
            f"{covered['value']:.1%} [{covered['low']:.1%}, {covered['high']:.1%}]",
            _shown(low <= covered["value"] <= high, True),
        )


def study_goals(document: Document) -> Iterator[Goal]:
    """Distance from the exact posterior in every setting, and what plan and evidence bring there.

    Known and unseen contents count apart where a setting has both.
    """
    from omg_graph.bench.study.figures import EVERYONE
    from omg_graph.bench.study.report import GOALS as STUDY_GOALS

    titles = {
        "error_ratio": "squared error at most {} times the exact posterior's",
        "energy_ratio": "energy score at most {} times the exact posterior's",
        "degree_ratio": "degree accuracy at least {} times that of Bayes's rule",
    }
    for setting, found in document["settings"].items():
        for subset, figures in found["subsets"].items():
            if subset == EVERYONE and len(found["subsets"]) > 1:
                continue
            where = f"simulator, `{setting}`, {subset}"
            for metric, title in titles.items():
                goal, own = STUDY_GOALS[metric], figures["methods"]["model"][metric]
                right = own["value"] <= goal if goal > 1 else own["value"] >= goal
                yield Goal(where, title.format(f"{goal:.2f}"), _interval(own), _shown(right, True))
            yield from _study_gains(where, figures, SHOULD_HELP.get(setting, {}))


def _study_gains(where: str, figures: Document, helping: Mapping[str, str]) -> Iterator[Goal]:
    for lacking, what in helping.items():
        gain = figures["gains"].get(lacking, {}).get("error_ratio")
        if gain is not None:
            yield Goal(
                where,
                f"{what} helps: the squared error without it is larger",
                f"{gain['value']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]",
                _shown(gain["value"] > 0, gain["low"] > 0),
            )


def training_goals(document: Document) -> Iterator[Goal]:
    """How long one training takes."""
    minutes = document["wall_seconds"] / 60
    yield Goal(
        document["data"],
        f"`omg train`, default settings, all stages, on two cores: at most {MINUTES:.0f} minutes",
        f"{minutes:.1f} minutes ({document['cpu_seconds'] / 60:.1f} of CPU time)",
        _shown(minutes <= MINUTES, True),
    )


def _shown(right: bool, sure: bool) -> str:
    if not right:
        return "missed"
    return "reached" if sure else "not shown"


def _interval(figure: Mapping[str, Any]) -> str:
    return f"{figure['value']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]"


def _methods(document: Document) -> dict[str, Document]:
    return {entry["name"]: entry for entry in (*document["variants"], *document["floors"])}


def _figure(entry: Document | None, metric: str, condition: str) -> Mapping[str, Any] | None:
    return None if entry is None else _row(entry, "figures", metric, condition)


def _gap(entry: Document, metric: str, condition: str) -> Mapping[str, Any] | None:
    """The method's difference to another one, if both ends of its interval are known."""
    row = _row(entry, "differences", metric, condition)
    return None if row is None or row["low"] is None else row


def _row(entry: Document, kind: str, metric: str, condition: str) -> Mapping[str, Any] | None:
    rows = entry["protocols"].get(PATTERNS, {}).get(kind, ())
    wanted = (metric, condition)
    return next((row for row in rows if (row["metric"], row["condition"]) == wanted), None)


def _less(gap: Mapping[str, Any]) -> tuple[float, float, float]:
    """The method less the other, with its interval: results have it the other way round."""
    return -gap["difference"], -gap["high"], -gap["low"]
