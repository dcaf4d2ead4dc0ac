"""Measuring a planner: figures that a person can check, and floors that see as much."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from omg_graph.bench.baselines import machines
from omg_graph.bench.planning.planning import measure_planner
from omg_graph.bench.planning.report import PlannerReport, TargetAccuracy
from omg_graph.bench.planning.speed import speeds
from omg_graph.cli.app import app
from omg_graph.data.dataset import Split
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model
from omg_graph.planner.interface import PlannerInput, Sampling
from omg_graph.planner.schema import Plan, Schema
from omg_graph.planner.schemas import load_schema, target_values
from omg_graph.record.trajectory import CandidatePlan
from omg_graph.training.model_rows import ModelRows, read_model_rows


class Knowing:
    """Says the truth of every second sample, with a known probability, and of the others another degree."""

    name = "knowing"
    follows_sampling = False

    def __init__(self, schema: Schema, split: Split, probability: float) -> None:
        assert schema.target_index is not None
        truths = target_values(schema, split.labels)
        assert truths is not None
        self.schema = schema
        self._probability = math.log(probability)
        self._values = schema.fields[schema.target_index].values or ()
        self._truth = {
            sample: self._values.index(value or "") for sample, value in zip(split.ids, truths, strict=True)
        }
        self._order = {sample: number for number, sample in enumerate(split.ids)}

    def propose(self, observations: PlannerInput, sampling: Sampling, seed: int) -> list[list[CandidatePlan]]:
        """Two plans: a likely one, and one that is less likely by far."""
        return [
            [self._plan(sample, 0, self._probability), self._plan(sample, 1, self._probability - 9.0)]
            for sample in observations.ids
        ]

    def rescore(self, observations: PlannerInput, plans: Sequence[Plan]) -> list[CandidatePlan | None]:
        """Every plan at once is as likely."""
        return [
            self.schema.candidate(plan, (math.log(0.25),) * len(plan), (2,) * len(plan)) for plan in plans
        ]

    def _plan(self, sample: str, off: int, log_probability: float) -> CandidatePlan:
        place = (self._truth[sample] + self._order[sample] % 2 + off) % len(self._values)
        values = tuple(
            self._values[place] if level == self.schema.target_index else (entry.values or ("",))[0]
            for level, entry in enumerate(self.schema.fields)
        )
        zeros = [0.0] * len(values)
        zeros[self.schema.target_index or 0] = log_probability
        return self.schema.candidate(values, zeros, (1,) * len(values))


@pytest.fixture(autouse=True)
def _few_regressions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The regressions beside a planner are most of what measuring it costs: one C does for a test."""
    monkeypatch.setattr(machines, "LOGISTIC_COSTS", (0.03,))


@pytest.fixture(scope="module")
def room(tiny_model_folder: Path, tiny_data_file: Path) -> tuple[Model, ModelRows]:
    model = load_model(tiny_model_folder)
    return model, read_model_rows(model, tiny_data_file)


def average(report: PlannerReport, question: str = "degree") -> TargetAccuracy:
    (row,) = [row for row in report.averages() if row.question == question]
    return row


def test_the_figures_are_those_that_a_person_counts(room: tuple[Model, ModelRows]) -> None:
    model, rows = room
    count = len(rows.valid)
    planner = Knowing(model.schema, rows.valid, 0.8)
    report = measure_planner(model, rows.valid, train=rows.train, planner=planner, timing=False)
    right = -(-count // 2) / count
    degrees = [row for row in report.accuracy if row.question == "degree"]
    assert len(degrees) > 1
    assert "side" not in {row.question for row in report.accuracy}  # it can't be asked for probabilities
    for row in degrees:
        assert row.planner.value == pytest.approx(right)
        assert row.majority is not None
        assert row.over_majority is not None
        assert row.over_majority.value == pytest.approx((row.planner.value or 0) - (row.majority.value or 0))
        assert row.reranking is not None
        assert row.reranking.value == 0.0
    assert report.valid == 1.0
    assert (report.reranked, report.reranked_target) == (0.0, 0.0)
    assert report.calibration is not None
    assert report.calibration.ece == pytest.approx(abs(0.8 - right))
    each = sum(row.samples for row in degrees if row.observed is not None)
    assert sum(one.samples for one in report.calibration.bins) == each
    assert average(report).samples == each
    assert report.perplexity is not None
    fields = len(model.schema.fields)
    assert report.perplexity.token == pytest.approx(2.0)  # a quarter over two tokens
    assert report.perplexity.plan == pytest.approx(4.0**fields)


def test_the_model_s_own_planner(room: tuple[Model, ModelRows]) -> None:
    model, rows = room
    report = measure_planner(
        model, rows.valid, train=rows.train, timing=False, teacher={"name": "someone", "ms": 3.0}
    )
    assert report.planner == "distilled"
    assert report.valid == 1.0
    assert {row.question for row in report.accuracy} == {"sign", "side", "degree"}
    assert average(report).regression is not None
    assert average(report, "side").over_features is not None
    page = report.markdown()
    assert "someone" in page
    assert PlannerReport.model_validate_json(report.to_json()) == report
    fewer = measure_planner(model, rows.valid, limit=3, timing=False)
    assert fewer.samples == 3
    assert any("no training rows" in note for note in fewer.notes)


def test_without_labels_there_is_no_accuracy(room: tuple[Model, ModelRows]) -> None:
    model, rows = room
    report = measure_planner(model, replace(rows.valid, labels=None), timing=False)
    assert report.accuracy == ()
    assert report.calibration is None
    assert any("labels" in note for note in report.notes)


def test_planning_takes_time(room: tuple[Model, ModelRows]) -> None:
    model, rows = room
    one, many = speeds(model, rows.valid, batches=(1, 4), repeats=2, cold=True)
    assert (one.batch, many.batch) == (1, 4)
    assert min(one.observe, one.propose, one.rerank) > 0
    assert one.rerank_cold is not None
    assert one.plan == one.propose + one.rerank


def test_the_command(tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path) -> None:
    command = ["planner-report", "--model", str(tiny_model_folder), "--data", str(tiny_data_file)]
    told = CliRunner().invoke(app, [*command, "--limit", "4", "--output", str(tmp_path / "out"), "--json"])
    assert told.exit_code == 0, told.output
    (document,) = json.loads(told.stdout)
    assert document["planner"] == "distilled"
    assert document["samples"] == 4
    assert json.loads((tmp_path / "out" / "planner_report.json").read_text())["samples"] == 4
    assert "distilled" in (tmp_path / "out" / "planner_report.md").read_text()
    wrong = CliRunner().invoke(app, [*command, "--split", "nowhere"])
    assert wrong.exit_code != 0
    assert "nowhere" in str(wrong.exception)


def test_the_sign_of_a_word_and_the_side_of_a_distribution() -> None:
    """A word for 0 is not positive; the side asks where most of the probability is."""
    from omg_graph.bench.planning.accuracy import questions
    from omg_graph.data.dataset import Labels

    schema = load_schema("affect")
    values = np.array([2.0, -1.0, 0.0, 0.3, np.nan])
    split = Split(
        name="s",
        ids=tuple("abcde"),
        groups=tuple("abcde"),
        modalities=(),
        arrays={},
        observed={},
        labels=Labels("regression", "regression", values),
    )
    sign, side, degree = questions(schema, split)
    assert sign.truths(schema, split).tolist() == [1, 0, -1, 1, -1]
    assert side.truths(schema, split).tolist() == [1, 0, -1, 1, -1]
    assert sign.codes_of(["neutral", "positive"]).tolist() == [0, 1]
    assert degree.truths(schema, split)[4] == -1
    assert degree.truths(schema, split)[2] == degree.codes_of(["neutral"])[0]
