"""The page of results: figures where they belong, and text from files kept harmless."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omg_graph.evaluation.intervals import AVERAGE, Interval, Summary, summarise
from omg_graph.evaluation.report import draw_plots, figure_text, markdown, title
from omg_graph.evaluation.tables import SampleTable
from omg_graph.metrics.features import PooledRatio

TableOf = Callable[..., SampleTable]


@pytest.fixture
def summary(table_of: TableOf) -> Summary:
    truth = np.random.default_rng(0).uniform(-3, 3, 60)
    return summarise(
        [
            table_of(
                "number",
                groups=60,
                method=method,
                condition=condition,
                truth=truth,
                value=truth + noise,
                probability=np.full(60, np.nan),
                errors={} if condition == "full" else {"audio": PooledRatio(np.full(60, noise), np.ones(60))},
                energy={},
                coverage={},
            )
            for method, noise in (("omg", 0.25), ("a|b", 0.5))
            for condition in ("text", "full")
        ]
    )


def test_averages_are_over_conditions_that_have_the_metric(summary: Summary) -> None:
    for method, noise in (("omg", 0.25), ("a|b", 0.5)):
        for metric in ("mae", "nmse"):
            figure = summary.averaged(method, metric)
            assert figure is not None
            assert figure.value == pytest.approx(noise)
    assert ("omg", "nmse", "full") not in summary.figures
    gain = summary.gain("a|b", "mae")
    assert gain is not None
    assert gain.condition == AVERAGE
    assert gain.difference.value == pytest.approx(-0.25)
    assert gain.verdict == "better"


def test_the_page(summary: Summary) -> None:
    page = markdown(summary, heading="omg on file.pkl", facts=["60 samples"])
    lines = page.splitlines()
    assert lines[0] == "# omg on file.pkl"
    assert "- 60 samples" in lines
    assert any("samples (there are no groups)" in line for line in lines)
    assert "### text" in lines
    assert "### full" in lines
    full = lines[lines.index("### full") :]
    assert "NMSE" not in full[2]
    for line in lines:  # a name can't break the table
        if line.startswith("| a"):
            assert line.startswith("| a\\|b |")
    tables = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    averaged = tables[: tables.index(next(row for row in tables if row.startswith("| floor")))]
    assert len({row.count("|") for row in averaged}) == 1


def test_figures_in_words() -> None:
    assert figure_text(None) == figure_text(Interval(np.nan, np.nan, np.nan)) == "–"
    assert figure_text(Interval(0.5, 0.25, 0.75)) == "0.500"
    assert figure_text(Interval(0.5, 0.25, 0.75), interval=True) == "0.500 [0.250, 0.750]"
    assert figure_text(Interval(0.5, np.nan, np.nan), interval=True) == "0.500"
    assert figure_text(Interval(-0.5, -0.75, -0.25), interval=True, signed=True) == "-0.500 [-0.750, -0.250]"


def test_arrows_say_which_way_is_better(summary: Summary) -> None:
    assert title("mae", summary).endswith("↓")
    assert title("corr", summary).endswith("↑")


@pytest.mark.parametrize("rates", [{}, {"text": 0.3, "full": 0.0}])
def test_pictures_of_what_the_model_has(summary: Summary, rates: dict[str, float], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    made = draw_plots(summary, rates, tmp_path / "plots")
    assert {path.name for path in made} == {"mae.png", "nmse.png"}
    alone = replace(
        summary, figures={key: value for key, value in summary.figures.items() if key[:2] != ("omg", "nmse")}
    )
    assert {path.name for path in draw_plots(alone, rates, tmp_path / "other")} == {"mae.png"}
