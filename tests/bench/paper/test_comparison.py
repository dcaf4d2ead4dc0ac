"""A model's figures beside the paper's: which cells meet, what is warned of, what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from omg_graph.bench.paper.comparison import (
    Column,
    Comparison,
    PaperFigures,
    Subject,
    beside_paper,
    columns_for,
    section,
)
from omg_graph.data.dataset import ModalitySpec, Split
from omg_graph.errors import ConfigError
from omg_graph.evaluation.intervals import Interval, Summary
from omg_graph.evaluation.protocols import conditions_of

ORDER = ("audio", "text", "vision")
"""Of the data, which isn't the paper's."""
PAPER_WIDTHS = {"text": 768, "vision": 35, "audio": 74}


def split_of(names: Sequence[str] = ORDER, absent: str | None = None) -> Split:
    rows = 6
    return Split(
        name="test",
        ids=tuple(map(str, range(rows))),
        groups=tuple(map(str, range(rows))),
        modalities=tuple(ModalitySpec(name=name, kind="vector", shape=(3,)) for name in names),
        arrays={name: np.ones((rows, 3), np.float32) for name in names},
        observed={name: np.full(rows, name != absent) for name in names},
    )


def summary_of(figures: dict[tuple[str, str, str], float], methods: Sequence[str] = ("omg",)) -> Summary:
    return Summary(
        conditions=tuple(dict.fromkeys(condition for _, _, condition in figures)),
        methods=tuple(methods),
        metrics=("acc2", "f1", "acc7"),
        lower_is_better=frozenset(),
        figures={key: Interval(value, value, value) for key, value in figures.items()},
        differences={},
        note="",
        rough=False,
    )


def subject_of(widths: dict[str, int], *, samples: int = 686, split: str = "test") -> Subject:
    specs = tuple(ModalitySpec(name=name, kind="sequence", shape=(5, widths[name])) for name in ORDER)
    return Subject(specs, split, samples, 0.0, 5)


def compared(acc2: float = 0.5, subject: Subject | None = None) -> Comparison:
    columns = (Column("audio", "A"), Column("audio+text", "LA"))
    figures = {
        ("omg", "acc2", "audio"): acc2,
        ("omg", "acc2", "audio+text"): 0.75,
        ("ridge|floor", "acc2", "audio"): 0.25,
    }
    summary = summary_of(figures, ("omg", "ridge|floor"))
    return beside_paper("mosi", "fixed", columns, summary, subject or subject_of(PAPER_WIDTHS))


def test_patterns_are_known_by_names_whatever_their_order() -> None:
    split = split_of()
    columns = columns_for("mosi", "fixed", conditions_of(split, "fixed"), split)
    letters = {"audio": "A", "text": "L", "vision": "V"}
    assert [column.paper for column in columns] == ["A", "V", "L", "VA", "LA", "LV", "LVA"]
    for column in columns:
        assert {letters[name] for name in column.condition.split("+")} == set(column.paper)


def test_rates_are_known_by_their_number_and_others_left_out() -> None:
    split = split_of()
    conditions = conditions_of(split, "random", rates=[0.7, 0.25, 0.0], seeds=2)
    columns = columns_for("mosei", "random", conditions, split)
    assert columns == (Column("rate 0", "0.0"), Column("rate 0.7", "0.7"))


def test_what_the_paper_has_nothing_for_is_refused() -> None:
    split = split_of()
    with pytest.raises(ConfigError, match="missing rates"):
        columns_for("mosi", "random", conditions_of(split, "random", rates=[0.25], seeds=1), split)
    uneven = conditions_of(split, "imbalanced", rates={"text": 0.5}, seeds=1)
    with pytest.raises(ConfigError, match="fixed or random"):
        columns_for("mosi", "imbalanced", uneven, split)
    for names in (("text", "audio"), ("text", "audio", "video"), (*ORDER, "gaze")):
        other = split_of(names)
        with pytest.raises(ConfigError, match="text, vision, audio"):
            columns_for("mosi", "fixed", conditions_of(other, "fixed"), other)
    silent = split_of(absent="audio")
    with pytest.raises(ConfigError, match="nobody has audio"):
        columns_for("mosi", "fixed", conditions_of(silent, "fixed"), silent)


def test_other_metrics_are_refused() -> None:
    PaperFigures("mosi").check_family("mosi")
    with pytest.raises(ConfigError, match="classes"):
        PaperFigures("mosi").check_family("classes")


def test_figures_are_percentages_beside_the_printed_ones() -> None:
    comparison = compared()
    audio, both = comparison.columns
    assert comparison.here("omg", "acc2", audio) == 50.0
    assert comparison.here("omg", "f1", audio) is None
    assert comparison.there("Ours", "acc2", audio) == 64.4
    assert comparison.there("Ours", "acc7", both) == 47.2
    assert comparison.best_of_the_others("acc2", audio) == ("MPLMM", 62.7)
    assert comparison.best_of_the_others("acc2", both) == ("TATE", 85.8)


def test_the_document_has_every_method_and_the_notes() -> None:
    document = compared().as_json()
    audio = document["conditions"][0]
    assert audio["condition"] == "audio"
    assert audio["here"]["omg"] == {"acc2": 50.0, "f1": None, "acc7": None}
    assert len(audio["paper"]) == 16
    assert audio["paper"]["CorrKD"] == {"acc2": 60.1, "f1": 47.7, "acc7": 21.9}
    assert audio["best_of_the_others"]["acc7"] == {"method": "IMDer", "value": 22.0}
    assert document["widths"] == {"here": PAPER_WIDTHS, "paper": PAPER_WIDTHS}
    shown = {tuple(cell) for note in document["notes"] for cell in note["cells"]}
    assert ("CorrKD", "A") in shown
    assert {condition for _, condition in shown} <= {"A", "LA"}


def test_the_page_marks_doubtful_cells_and_keeps_names_harmless() -> None:
    lines = section(compared()).splitlines()
    assert lines[0] == "## Beside the paper: Table 1, CMU-MOSI"
    assert "| omg | 50.0 | 75.0 |" in lines
    assert "| ridge\\|floor | 25.0 | – |" in lines
    assert "| paper: Ours | 64.4 | 86.6 |" in lines
    assert "| paper: CorrKD | 47.7 † | 85.0 |" in lines
    assert sum(line.startswith("| paper: ") for line in lines) == 3 * 16
    assert any(
        line.startswith("- F1 is more than ten points below") and "CorrKD: A)" in line for line in lines
    )


def test_warnings_name_widths_samples_and_training() -> None:
    same = " ".join(compared().warnings)
    assert "text 768, vision 35, audio 74" in same
    assert "the same widths, which doesn't make them the same features" in same
    assert "other samples" not in same
    other = compared(
        subject=subject_of({"text": 384, "vision": 100, "audio": 73}, samples=229, split="valid")
    )
    told = " ".join(other.warnings)
    assert "text 384, vision 100, audio 73: not the same" in told
    assert "229 of 'valid'" in told
    assert "help of the labels" in told
    assert "the paper trained a model for each missing rate" not in told
    columns = (Column("rate 0.7", "0.7"),)
    random = beside_paper(
        "mosi", "random", columns, summary_of({("omg", "acc2", "rate 0.7"): 0.9}), subject_of(PAPER_WIDTHS)
    )
    assert any("a model for each missing rate" in warning for warning in random.warnings)


@pytest.mark.parametrize(("acc2", "warned"), [(0.64, False), (0.693, False), (0.70, True), (0.80, True)])
def test_a_single_modality_far_above_everyone_is_pointed_out(acc2: float, warned: bool) -> None:
    """Audio alone reaches 64.4 at best in the paper."""
    found = [warning for warning in compared(acc2).warnings if "alone reaches" in warning]
    assert bool(found) == warned
