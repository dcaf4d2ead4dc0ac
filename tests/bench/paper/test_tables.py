"""The paper's figures as printed, and notes that say what a look through all of them finds."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable

import pytest

from omg_graph.bench.paper.tables import (
    DATASETS,
    METRICS,
    TABLES,
    CellKey,
    Metric,
    PaperRow,
    TableName,
    dataset_named,
    paper_tables,
)
from omg_graph.errors import ConfigError

PAPER = paper_tables()
PATTERNS = ("A", "V", "L", "VA", "LA", "LV", "LVA")
RATES = tuple(f"0.{tenth}" for tenth in range(8))
PLAIN: tuple[TableName, ...] = ("fixed", "cross_dataset", "random")
"""The tables that are no ablations."""
SIZES: dict[TableName, int] = {
    "fixed": 2 * 16 * 7,
    "cross_dataset": 4 * 7,
    "ablation": 2 * 6,
    "random": 2 * 15 * 8,
    "retrieval": 2 * 3,
    "injection": 2 * 4,
}
NEGATIVE_SHARE = 0.578
"""Of CMU-MOSI's test labels other than 0."""


def rows(table: TableName) -> tuple[PaperRow, ...]:
    return PAPER.tables[table].rows


def figures(row: PaperRow) -> tuple[float, float, float]:
    return (row.acc2, row.f1, row.acc7)


def cells_noted(start: str) -> set[CellKey]:
    """Cells of the notes whose text begins so: there is one at least."""
    notes = [note for note in PAPER.notes if note.text.startswith(start)]
    assert notes, start
    return {key for note in notes for key in PAPER.cells_of(note)}


def keys(table: TableName, found: Iterable[PaperRow], *metrics: str) -> set[CellKey]:
    return {
        (table, row.dataset, row.method, row.condition, metric)
        for row in found
        for metric in METRICS
        if metric in (metrics or METRICS)
    }


def test_every_table_is_there_whole() -> None:
    assert {name: len(rows(name)) for name in TABLES} == SIZES
    for name in TABLES:
        found = [(row.dataset, row.method, row.condition) for row in rows(name)]
        assert len(found) == len(set(found))
    for dataset in DATASETS:
        assert PAPER.tables["fixed"].conditions(dataset) == PATTERNS
        assert PAPER.tables["random"].conditions(dataset) == RATES
        assert len(PAPER.tables["fixed"].methods(dataset)) == 16
        assert len(PAPER.tables["random"].methods(dataset)) == 15
    assert {row.dataset for row in rows("cross_dataset")} == {"mosi"}
    for name in ("ablation", "retrieval", "injection"):
        assert {row.condition for row in rows(name)} == {"0.7"}


def test_figures_are_percentages_with_one_digit() -> None:
    for row in itertools.chain.from_iterable(rows(name) for name in TABLES):
        for figure in figures(row):
            assert 10 < figure < 95
            assert round(figure, 1) == figure
        assert row.acc7 < row.acc2


@pytest.mark.parametrize(
    ("table", "dataset", "method", "condition", "printed"),
    [
        ("fixed", "mosi", "AE", "A", (49.9, 47.6, 15.9)),
        ("fixed", "mosi", "Ours", "LVA", (89.2, 89.1, 48.3)),
        ("fixed", "mosi", "PMSM", "L", (86.7, 86.5, 39.1)),
        ("fixed", "mosei", "SMCMSA", "VA", (65.5, 64.8, 49.3)),
        ("fixed", "mosei", "Ours", "VA", (72.3, 72.2, 47.2)),
        ("cross_dataset", "mosi", "PMSM", "L", (82.3, 41.9, 43.6)),
        ("cross_dataset", "mosi", "Ours", "A", (60.5, 57.2, 20.9)),
        ("ablation", "mosei", "w/o L_evi", "0.7", (73.2, 72.7, 44.1)),
        ("ablation", "mosi", "Direct Classification", "0.7", (72.2, 71.3, 30.3)),
        ("random", "mosi", "CCA", "0.0", (74.7, 74.1, 29.9)),
        ("random", "mosei", "MPMTM", "0.3", (76.7, 75.3, 47.7)),
        ("random", "mosei", "Ours", "0.7", (77.4, 75.0, 48.5)),
        ("retrieval", "mosi", "Random-Plan Retrieval", "0.7", (71.2, 71.0, 26.7)),
        ("injection", "mosei", "Reversed-Injection", "0.7", (71.5, 72.2, 43.3)),
    ],
)
def test_cells_are_as_printed(
    table: TableName, dataset: str, method: str, condition: str, printed: tuple[float, ...]
) -> None:
    assert figures(PAPER.tables[table].row(dataset_named(dataset), method, condition)) == printed


def test_the_same_setting_has_the_same_figures_in_every_table_of_ablations() -> None:
    for dataset in DATASETS:
        ours = PAPER.tables["random"].row(dataset, "Ours", "0.7")
        for name, method in (
            ("ablation", "Ours"),
            ("injection", "Ours"),
            ("retrieval", "Plan-Driven Retrieval"),
        ):
            assert figures(PAPER.tables[name].row(dataset, method, "0.7")) == figures(ours)


def test_what_the_text_adds() -> None:
    assert PAPER.acc2_drops["w/o Planner"] == {"mosi": 3.2, "mosei": 5.3}
    assert set(PAPER.acc2_drops) == {"w/o Planner", "w/o Re-ranking", "w/o Retriever", "w/o Sparse Attn"}
    latency = PAPER.latency
    assert latency.milliseconds == 84
    assert latency.planning_share + latency.retrieval_and_execution_share == pytest.approx(1)
    assert PAPER.widths == {"text": 768, "vision": 35, "audio": 74}


def test_a_method_has_one_name_however_it_is_spelt() -> None:
    for dataset in DATASETS:
        known = {PAPER.known_as(method) for method in PAPER.tables["random"].methods(dataset)}
        assert known <= set(PAPER.tables["fixed"].methods(dataset))
        assert len(known) == 15


def test_every_place_of_every_note_is_a_cell() -> None:
    for note in PAPER.notes:
        for place in note.cells:
            table = PAPER.tables[place.table]
            found = [row for row in table.rows if place.holds(row)]
            assert found, (note.text, place)
            assert {row.method for row in found} >= set(place.methods or ()), note.text
            assert {row.condition for row in found} >= set(place.conditions or ()), note.text
    assert PAPER.doubtful["cross_dataset", "mosi", "PMSM", "L", "f1"]
    assert ("fixed", "mosi", "Ours", "LVA", "acc2") not in PAPER.doubtful


def test_rows_that_repeat_are_noted() -> None:
    """Equal rows, save a method's full modality column and its rate of 0, which ought to be equal."""
    same: dict[tuple[float, ...], list[tuple[TableName, PaperRow]]] = defaultdict(list)
    for name in PLAIN:
        for row in rows(name):
            same[figures(row)].append((name, row))
    for repeated in same.values():
        settings = {
            (row.dataset, PAPER.known_as(row.method), "LVA" if row.condition == "0.0" else row.condition)
            for _, row in repeated
        }
        for name, row in repeated if len(settings) > 1 else ():
            assert keys(name, [row]) & set(PAPER.doubtful) or row.condition == "0.0", row


def test_rows_without_anything_missing_that_differ_are_noted() -> None:
    differing = []
    for row in rows("random"):
        if row.condition == "0.0":
            full = PAPER.tables["fixed"].row(row.dataset, PAPER.known_as(row.method), "LVA")
            if figures(full) != figures(row):
                differing.append(row)
    assert keys("random", differing) == cells_noted("At missing rate 0 nothing is hidden")


def test_figures_of_a_constant_answer_are_noted() -> None:
    found = {
        key
        for name in PLAIN
        for key in keys(name, [r for r in rows(name) if abs(constant_f1(r.acc2) - r.f1) < 0.1], "acc2", "f1")
    }
    assert found == cells_noted("Accuracy and F1 are those of a constant answer")


def test_f1_too_far_from_accuracy_is_noted() -> None:
    low, high = set(), set()
    for name in PLAIN:
        low |= keys(name, [row for row in rows(name) if row.acc2 - row.f1 > 10], "f1")
        high |= keys(name, [r for r in rows(name) if r.dataset == "mosi" and r.f1 - r.acc2 > 0.99], "f1")
    assert low == cells_noted("F1 is more than ten points below") | cells_noted("F1 is 40 points below")
    assert high == cells_noted("On CMU-MOSI, with 58 %")


def test_how_far_f1_can_exceed_accuracy() -> None:
    """The bounds that two notes rely on, from all confusion matrices at an accuracy above one half."""
    mosi = max(excess(NEGATIVE_SHARE, hundredth / 100) for hundredth in range(50, 95))
    assert 0.2 < mosi < 0.35
    assert max(excess(share / 100, 0.633) for share in range(50, 81)) < 4.2
    lowest = min(weighted_f1s(NEGATIVE_SHARE, 0.823))
    assert lowest > 75  # 41.9, as printed, can't be


def test_rates_that_leave_one_modality_are_held_against_single_modalities() -> None:
    found = []
    for row in rows("random"):
        if row.condition == "0.7":
            method = PAPER.known_as(row.method)
            single = [PAPER.tables["fixed"].row(row.dataset, method, letter).acc2 for letter in "LVA"]
            if abs(sum(single) / 3 - row.acc2) > 4 + 1e-6:
                found.append(row)
    assert keys("random", found, "acc2") == cells_noted("At two thirds each sample keeps one modality")


@pytest.mark.parametrize(("metric", "constant"), [("acc2", 57.8), ("acc7", 22.7)])
def test_what_a_constant_beats_is_noted(metric: Metric, constant: float) -> None:
    found = {
        key
        for name in PLAIN
        for key in keys(
            name,
            [row for row in rows(name) if row.dataset == "mosi" and row.figure(metric) < constant],
            metric,
        )
    }
    assert found == cells_noted(f"The constant -2 gets {constant}")


def test_figures_that_rise_with_the_missing_rate_are_noted() -> None:
    found: set[CellKey] = set()
    for before, after in itertools.pairwise(rows("random")):
        if (before.dataset, before.method) == (after.dataset, after.method):
            rising = [metric for metric in METRICS if after.figure(metric) > before.figure(metric)]
            found |= keys("random", [after], *rising) if rising else set()
    assert found == cells_noted("A figure rises although")


def test_more_modalities_that_do_worse_are_noted() -> None:
    found: set[CellKey] = set()
    for few, many in itertools.permutations(rows("fixed"), 2):
        same = (few.dataset, few.method) == (many.dataset, many.method)
        if same and set(few.condition) < set(many.condition) and few.acc2 > many.acc2 + 0.5:
            found |= keys("fixed", [few, many], "acc2")
    assert found == cells_noted("More modalities do worse")


def test_claims_that_the_table_does_not_bear_out() -> None:
    """Ours is said to have the best F1 in every pattern, and to improve ACC7."""
    printed = PAPER.tables["fixed"]
    pairs = [(row, printed.row(row.dataset, "Ours", row.condition)) for row in printed.rows]
    higher = [row for row, ours in pairs if row.acc7 > ours.acc7]
    assert keys("fixed", higher, "acc7") == cells_noted("SMCMSA has a higher ACC7")
    beaten = [ours for row, ours in pairs if row.f1 > ours.f1]
    assert keys("fixed", beaten, "f1") == cells_noted("The text claims the best or tied-best F1")


def test_other_data_sets_are_refused() -> None:
    assert dataset_named("mosei") == "mosei"
    with pytest.raises(ConfigError, match="got 'sims'"):
        dataset_named("sims")


def constant_f1(accuracy: float) -> float:
    """Weighted F1 of one answer for all, both in percent."""
    p = accuracy / 100
    return 100 * 2 * p * p / (1 + p)


def weighted_f1s(negative: float, accuracy: float) -> list[float]:
    """In percent, over all splits of the errors between both classes."""
    found, wrong, positive = [], 1 - accuracy, 1 - negative
    for step in range(1001):
        missed, raised = wrong * step / 1000, wrong * (1 - step / 1000)
        if missed <= positive and raised <= negative:
            f1s = [
                2 * (n - own) / (2 * (n - own) + wrong) for n, own in ((positive, missed), (negative, raised))
            ]
            found.append(100 * (positive * f1s[0] + negative * f1s[1]))
    return found


def excess(negative: float, accuracy: float) -> float:
    return max(weighted_f1s(negative, accuracy)) - 100 * accuracy
