"""The tables of ``omg planner-report`` in a terminal."""

from __future__ import annotations

from omg_graph.bench.commands.planner_report import halves


def test_a_narrow_terminal_gets_differences_in_a_table_of_their_own() -> None:
    table = [
        ["observed", "samples", "planner", "majority", "less majority", "regression on u_X", "less that"],
        ["text", "9", "77.8", "44.4", "+33.4 [+1.0, +60.0]", "70.0 [60.0, 80.0]", "+7.8"],
        ["average", "9", "77.8", "44.4", "+33.4", "–", "–"],
    ]
    figures, differences = halves(table).values()
    assert figures == [
        ["observed", "samples", "planner", "majority", "regression on u_X"],
        ["text", "9", "77.8", "44.4", "70.0"],
        ["average", "9", "77.8", "44.4", "–"],
    ]
    assert differences == [
        ["observed", "less majority", "less regression on u_X"],
        ["text", "+33.4", "+7.8"],
        ["average", "+33.4", "–"],
    ]


def test_without_differences_there_is_one_table() -> None:
    assert list(halves([["observed", "samples", "planner"], ["text", "9", "50.0"]])) == [""]
