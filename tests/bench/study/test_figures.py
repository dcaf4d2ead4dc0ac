"""Figures of runs made up by hand."""

from __future__ import annotations

from typing import Any

import pytest

from omg_graph.bench.study.figures import EVERYONE, KNOWN, UNSEEN, figures, reference, verdict
from omg_graph.bench.study.report import markdown, reached
from omg_graph.bench.study.runs import EXACT, EXACT_GIVEN_PLAN, GIVEN_PLAN, PatternResult, RunResult
from omg_graph.evaluation.intervals import Interval

FIELDS = ("squared_error", "squared_deviation", "energy", "degree_accuracy", "sign_accuracy")


def method(errors: list[float], energy: float = 1.0, accuracy: float = 0.8) -> dict[str, list[float]]:
    count = len(errors)
    columns = (errors, [4.0] * count, [energy] * count, [accuracy] * count, [accuracy] * count)
    return dict(zip(FIELDS, columns, strict=True))


def run(seed: int = 0, unseen: tuple[bool, ...] = (False,) * 4, **model: Any) -> RunResult:
    methods = {
        EXACT: method([1.0, 1.0, 2.0, 2.0]),
        "model": method(**({"errors": [1.0, 2.0, 2.0, 2.0]} | model)),
        "without plan": method([2.0, 3.0, 3.0, 3.0], energy=1.5),
        "without evidence": method([1.0, 2.0, 2.0, 2.0]),
        EXACT_GIVEN_PLAN: method([0.5] * 4),
        f"model{GIVEN_PLAN}": method([1.0] * 4),
    }
    swaps = {"model": {"plan": {"along": [1.0, 0.0, 1.0, 0.0], "wanted": [2.0, 0.0, 2.0, 0.0]}}}
    plans = {
        EXACT: {"Entity": [1.0, 1.0, 0.0, 1.0], "Sentiment": [1.0] * 4},
        "model": {"Entity": [1.0, 0.0, 0.0, 0.0], "Sentiment": [0.0, 1.0, 0.0, 1.0]},
    }
    return RunResult(
        setting="modes",
        seed=seed,
        identity="",
        ids=["a1", "a2", "b1", "b2"],
        groups=["a", "a", "b", "b"],
        unseen=list(unseen),
        training_clips=9,
        patterns={
            name: PatternResult(methods=methods, swaps=swaps, plans=plans) for name in ("audio", "text+audio")
        },
        training={},
        seconds=1.5,
    )


def test_ratios_are_sums_over_the_exact_posteriors_sums() -> None:
    row = figures([run()]).subsets[EVERYONE].methods
    assert row["model"]["error_ratio"].value == pytest.approx(7 / 6)
    assert row["model"]["nmse"].value == pytest.approx(7 / 16)
    assert row["without plan"]["energy"].value == pytest.approx(1.5)
    assert row["without plan"]["energy_ratio"].value == pytest.approx(1.5)
    assert all(row[EXACT][metric].value == 1.0 for metric in row[EXACT] if metric.endswith("ratio"))


def test_who_is_told_the_plan_is_compared_with_a_posterior_that_is_told_it_too() -> None:
    assert reference(f"model{GIVEN_PLAN}") == reference(EXACT_GIVEN_PLAN) == EXACT_GIVEN_PLAN
    assert reference("model") == reference("evidence alone") == EXACT
    row = figures([run()]).subsets[EVERYONE].methods
    assert row[f"model{GIVEN_PLAN}"]["error_ratio"].value == pytest.approx(2.0)


def test_seeds_are_averaged_and_whole_groups_resampled() -> None:
    made = figures([run(0), run(1, errors=[2.0, 3.0, 4.0, 4.0])])
    ratio = made.subsets[EVERYONE].methods["model"]["error_ratio"]
    assert ratio.value == pytest.approx((7 / 6 + 13 / 6) / 2)
    # only three resamples of two groups differ: both, the first alone, the second alone
    assert ratio.low == pytest.approx((1.0 + 2.0) / 2)
    assert ratio.high == pytest.approx((1.5 + 2.5) / 2)
    assert made.seeds == (0, 1)
    assert made.seconds == 3.0
    assert "rough" in made.note


def test_unseen_contents_have_figures_of_their_own() -> None:
    assert list(figures([run()]).subsets) == [EVERYONE]
    made = figures([run(unseen=(False, True, False, True))])
    assert list(made.subsets) == [EVERYONE, KNOWN, UNSEEN]
    assert made.subsets[UNSEEN].methods["model"]["error_ratio"].value == pytest.approx(4 / 3)
    assert made.subsets[KNOWN].methods["model"]["error_ratio"].value == pytest.approx(1.0)
    assert made.subsets[EVERYONE].methods["model"]["error_ratio"].value == pytest.approx(7 / 6)


def test_a_gain_is_what_the_model_has_over_the_variant_in_every_resample() -> None:
    gains = figures([run()]).subsets[EVERYONE].gains
    assert gains["without plan"]["error_ratio"].value == pytest.approx(11 / 6 - 7 / 6)
    assert verdict(gains["without plan"]["error_ratio"]) == "helps"
    assert gains["without evidence"]["error_ratio"].value == 0.0
    assert verdict(gains["without evidence"]["error_ratio"]) == "no difference shown"
    assert verdict(Interval(-0.2, -0.3, -0.1)) == "hurts"


def test_every_pattern_has_gains_and_plans_of_its_own() -> None:
    one = run(unseen=(False, True, False, True))
    worse = {**one.patterns["audio"].methods, "without plan": method([1.0, 2.0, 2.0, 2.0])}
    audio = one.patterns["audio"].model_copy(update={"methods": worse})
    made = figures([one.model_copy(update={"patterns": {**one.patterns, "audio": audio}})])
    gains = {
        pattern: subsets[EVERYONE].gains["without plan"]["error_ratio"].value
        for pattern, subsets in made.by_pattern.items()
    }
    assert gains == pytest.approx({"audio": 0.0, "text+audio": 11 / 6 - 7 / 6})
    assert set(made.by_pattern["audio"]) == {EVERYONE, KNOWN, UNSEEN}
    assert made.subsets[EVERYONE].gains["without plan"]["error_ratio"].value == pytest.approx(1 / 3)


def test_plans_are_right_so_often_on_known_and_on_unseen_contents() -> None:
    made = figures([run(unseen=(False, True, False, True))])
    right = {
        subset: {who: {name: one.value for name, one in row.items()} for who, row in found.plans.items()}
        for subset, found in made.subsets.items()
    }
    assert right[EVERYONE]["model"] == {"Entity": 0.25, "Sentiment": 0.5}
    assert right[KNOWN] == {
        EXACT: {"Entity": 0.5, "Sentiment": 1.0},
        "model": {"Entity": 0.5, "Sentiment": 0.0},
    }
    assert right[UNSEEN] == {
        EXACT: {"Entity": 1.0, "Sentiment": 1.0},
        "model": {"Entity": 0.0, "Sentiment": 1.0},
    }


def test_swaps_are_pooled_over_the_clips_that_take_part() -> None:
    assert figures([run()]).followed["model"]["plan"].value == pytest.approx(0.5)


def test_goals_are_upper_bounds_of_errors_and_lower_bounds_of_accuracies() -> None:
    assert reached("error_ratio", Interval(1.1, 1.0, 1.2))
    assert not reached("energy_ratio", Interval(1.11, 1.0, 1.2))
    assert reached("degree_ratio", Interval(0.95, 0.9, 1.0))
    assert not reached("sign_ratio", Interval(0.94, 0.9, 1.0))


def test_the_tables_tell_of_every_goal_gain_and_plan() -> None:
    text = markdown([figures([run(unseen=(True, False, True, False))])], {"modes": "Which mode?"})
    assert "## modes\n\nWhich mode?" in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    # all patterns and both of them, each with all clips, known and unseen ones
    places = [
        f"| modes | {observed} | {subset} |"
        for observed in ("all patterns", "audio", "text+audio")
        for subset in (EVERYONE, KNOWN, UNSEEN)
    ]
    goals, errors, energies, entities = (
        [line for line in rows if line.startswith("| modes |")][start::step][:9]
        for start, step in ((0, 1), (9, 1), (18, 1), (27, 2))
    )
    for table in (goals, errors, energies, entities):
        assert all(line.startswith(place) for line, place in zip(table, places, strict=True))
    assert goals[0] == (
        "| modes | all patterns | all clips | 1.167 [1.000, 1.500]: missed | 1.000 [1.000, 1.000]: reached "
        "| 1.000 [1.000, 1.000]: reached | 1.000 [1.000, 1.000]: reached |"
    )
    assert errors[0].split(" | ")[3:] == [
        "+0.667 [+0.500, +1.000]: helps",
        "+0.000 [+0.000, +0.000]: no difference shown",
        "- |",
    ]
    assert entities[0].split(" | ")[3:] == ["Entity", "0.250 [0.000, 0.500]", "0.750 [0.500, 1.000] |"]
    assert "| modes | 0.500 [0.500, 0.500] | - |" in rows
    for above, below in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if below.startswith("| ---"):
            assert above.count("|") == below.count("|")
