"""Floors in a whole evaluation: which are measured, how often, and beside which other models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.bench.baselines import choice
from omg_graph.bench.baselines.fitted import Fitting
from omg_graph.bench.baselines.networks import NetworkSettings
from omg_graph.cli import main
from omg_graph.errors import ConfigError, ModelError
from omg_graph.evaluation.evaluate import EvaluationRequest, choose_floors, evaluate
from omg_graph.evaluation.predictions import read_predictions
from omg_graph.evaluation.tables import LabelTarget
from omg_graph.metrics.labels import ECE, MetricFamily

TRAINED = {
    "MLP with mask",
    "modality dropout",
    "logistic per pattern",
    "specialist",
    "AE",
    "CRA",
    "CCA",
    "DCCA",
    "DCCAE",
}


@pytest.fixture(scope="module")
def request_(tiny_model_folder: Path, tiny_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    output = tmp_path_factory.mktemp("floors") / "out"
    return EvaluationRequest(
        tiny_model_folder, tiny_data_file, output, patterns=[["text"]], draws=0, floors="all", floor_seeds=2
    )


@pytest.fixture(scope="module")
def document(request_: EvaluationRequest) -> dict[str, Any]:
    """All floors, the trained ones twice, for three epochs."""
    pytest.importorskip("sklearn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choice, "NetworkSettings", lambda **_: NetworkSettings(hidden=8, epochs=3))
        evaluate(request_)
        again = evaluate(request_).document
    assert any("0 fits made" in text for text in again["notes"])
    return again


def test_trained_floors_have_a_row_for_each_training(document: dict[str, Any]) -> None:
    seeds: dict[str, list[int | None]] = {}
    for row in document["floors"]:
        seeds.setdefault(row["method"], []).append(row["floor_seed"])
    assert seeds.keys() > TRAINED
    assert all(seeds[name] == ([0, 1] if name in TRAINED else [None]) for name in seeds)
    values = [row["mae"] for row in document["floors"] if row["method"] == "modality dropout"]
    assert values[0] != values[1]


def test_floors_that_predict_the_label_alone_have_no_features(document: dict[str, Any]) -> None:
    for row in document["floors"]:
        alone = row["method"] in ("modality dropout", "logistic per pattern")
        assert (row["nmse"] == {}) == alone
        assert row["acc2"] is not None


def test_a_floor_is_compared_like_any_result(
    document: dict[str, Any], request_: EvaluationRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(request_.output)
    assert main(["compare", f"{out}:specialist", out, "--metrics", "mae", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (against,) = told["comparisons"]
    row = next(row for row in against["differences"] if row["condition"] == "average")
    specialist = np.mean([row["mae"] for row in document["floors"] if row["method"] == "specialist"])
    assert row["first"] == pytest.approx(specialist)
    assert row["second"] == pytest.approx(document["rows"][0]["mae"])
    assert main(["compare", f"{out}:nobody", out]) == 2
    assert "'nobody'" in capsys.readouterr().err


def test_ece_is_recomputed_from_what_is_written(
    document: dict[str, Any], request_: EvaluationRequest
) -> None:
    found = 0
    for table in read_predictions(request_.output):
        rows = [
            row
            for row in (*document["rows"], *document["floors"])
            if (row["method"], row["floor_seed"]) == (table.method, table.floor_seed)
        ]
        assert len(rows) == 1
        if rows[0]["ece"] is not None:
            found += 1
            assert ECE.of(table.labels) == pytest.approx(rows[0]["ece"], abs=1e-6)
    assert found > 2
    figures = document["intervals"]["figures"]
    assert any(figure["metric"] == "ece" and figure["method"] == "omg" for figure in figures)


def test_another_model_stands_among_the_floors(
    request_: EvaluationRequest, tiny_model_folder: Path, tmp_path: Path
) -> None:
    models = {"twin": tiny_model_folder}
    request = replace(request_, floors="none", floor_models=models, output=tmp_path / "out")
    found = evaluate(request).document
    (twin,) = found["floors"]
    assert twin["method"] == "twin"
    same = found["rows"][0] | {"method": "twin"}
    assert twin == same
    differences = [d for d in found["intervals"]["differences"] if d["against"] == "twin"]
    assert differences
    assert all(d["difference"] == 0 for d in differences)


def test_a_model_of_other_modalities_is_no_floor(
    request_: EvaluationRequest, tiny_views_folder: Path, tmp_path: Path
) -> None:
    request = replace(
        request_, floors="none", floor_models={"views": tiny_views_folder}, output=tmp_path / "out"
    )
    with pytest.raises(ModelError, match="same modalities"):
        evaluate(request)


@pytest.mark.parametrize(
    ("floors", "seeds", "models", "complaint"),
    [
        ("some", 1, {}, "one of fast, all, networks, none"),
        ("all", 0, {}, "--floor-seeds"),
        ("fast", 1, {"omg": Path("x")}, "has that name"),
        ("all", 1, {"specialist": Path("x")}, "has that name"),
    ],
)
def test_choices_that_make_no_sense(floors: str, seeds: int, models: dict[str, Path], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        choose_floors(floors, seeds, models)


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("mosi", ["MLP with mask", "modality dropout"]),
        ("classes", ["MLP with mask", "modality dropout"]),
        ("none", ["MLP with mask"]),
    ],
)
def test_networks_are_the_trained_floors_that_serve_every_pattern(
    family: MetricFamily, names: list[str]
) -> None:
    target = LabelTarget(family)
    assert [floor.name for floor in choice.shared_networks(target, Fitting())] == names
    every = [floor.name for floor in choice.trained_floors(target, Fitting())]
    assert every[: len(names)] == names
    assert len(set(every)) == len(every)


def test_without_scikit_learn_all_floors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "available", lambda: False)
    with pytest.raises(ConfigError, match=r"omg-graph\[bench\]"):
        choose_floors("all", 1, {})
    choose_floors("fast", 1, {})
    choose_floors("networks", 1, {})
