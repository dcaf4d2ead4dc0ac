"""The cache of what floors have learned: other rows, seeds or settings are other fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omg_graph.bench.baselines.fitted import Arrays, FittedCache, Fitting
from omg_graph.evaluation.floor_data import TrainingRows
from omg_graph.evaluation.tables import LabelTarget

TARGET = LabelTarget("number")
ROWS = TrainingRows(
    latents={"a": np.arange(6.0).reshape(3, 2)},
    observed=np.ones((3, 1), bool),
    ids=("x", "y", "z"),
    groups=("g", "g", "h"),
    labels=np.array([0.0, 1.0, np.nan]),
    source="here",
)


def ask(fitting: Fitting, rows: TrainingRows = ROWS, floor: str = "floor", **settings: int) -> Arrays:
    return fitting.arrays(floor, settings, rows, TARGET, lambda: {"fit": np.array([fitting.cache.fitted])})


def test_the_same_question_is_answered_once(tmp_path: Path) -> None:
    fitting = Fitting(0, FittedCache(tmp_path))
    assert ask(fitting)["fit"] == ask(fitting)["fit"]
    assert (fitting.cache.fitted, fitting.cache.found) == (1, 1)
    later = Fitting(0, FittedCache(tmp_path))
    ask(later)
    assert (later.cache.fitted, later.cache.found) == (0, 1)


@pytest.mark.parametrize(
    "rows",
    [
        replace(ROWS, latents={"a": ROWS.latents["a"] + 1.0}),
        replace(ROWS, latents={"b": ROWS.latents["a"]}),
        replace(ROWS, labels=np.array([0.0, 2.0, np.nan])),
        replace(ROWS, groups=("g", "h", "h")),
        replace(ROWS, observed=np.array([[True], [True], [False]])),
    ],
    ids=["latents", "names", "labels", "groups", "gaps"],
)
def test_other_rows_are_another_fit(rows: TrainingRows, tmp_path: Path) -> None:
    fitting = Fitting(0, FittedCache(tmp_path))
    ask(fitting)
    ask(fitting, rows)
    assert fitting.cache.fitted == 2


def test_another_seed_floor_or_setting_is_another_fit(tmp_path: Path) -> None:
    cache = FittedCache(tmp_path)
    ask(Fitting(0, cache))
    ask(Fitting(1, cache))
    ask(Fitting(0, cache), floor="another")
    ask(Fitting(0, cache), width=3)
    assert (cache.fitted, cache.found) == (4, 0)


def test_a_damaged_file_is_fitted_anew(tmp_path: Path) -> None:
    fitting = Fitting(0, FittedCache(tmp_path))
    ask(fitting)
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"half of it")
    ask(fitting)
    assert fitting.cache.fitted == 2
    ask(fitting)
    assert fitting.cache.fitted == 2


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    fitting = Fitting(0, FittedCache(tmp_path / "file" / "cache"))
    ask(fitting)
    ask(fitting)
    assert fitting.cache.fitted == 2
    assert "none is kept" in fitting.cache.note
