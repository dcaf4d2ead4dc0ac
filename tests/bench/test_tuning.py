"""The grid over lambda_s, lambda_p and lambda_e: what is trained, what is shared, what comes out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from omg_graph.bench.tuning import AGREEMENT, Grid, TuningRequest, changes_of, load_grid, table, tune
from omg_graph.errors import ConfigError, ModelError
from omg_graph.model.folder import read_manifest
from omg_graph.training.config import TrainingConfig, load_config
from omg_graph.training.graph import build_training_graph
from omg_graph.training.request import TrainingRequest

GRID = Grid(semantic=(0.3, 30.0), plan=(0.1, 0.5), evidence=(0.1,))


def request_of(data: Path, output: Path, settings: dict[str, Any], **more: Any) -> TuningRequest:
    training = TrainingRequest(data=str(data), output=str(output), overrides=settings, **more)
    return TuningRequest(training=training, grid=GRID, budget=1)


@dataclass(frozen=True)
class Tuned:
    """A tuning that was cut off while it validated lambda_p = 0.5, and went on."""

    document: dict[str, Any]
    output: Path
    request: TuningRequest
    before: list[tuple[str, str]]
    """Trial and stage of each event until it was cut off."""
    after: list[str]
    """Trial of each event from then on."""


@pytest.fixture(scope="module")
def tuned(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Tuned:
    folder = tmp_path_factory.mktemp("tuning")
    output = folder / "tuned"
    request = request_of(tiny_data_file, output, tiny_settings)
    before: list[tuple[str, str]] = []

    def cut_off(name: str, number: int, of: int, event: dict[str, Any]) -> None:
        assert 1 <= number <= of == 4
        before.append((name, event["stage"]))
        if "lambda_p=0.5" in name and event["stage"] == "validation":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune(request, cut_off)
    assert not output.exists()
    assert (folder / "tuned.training" / "trials" / "reranking.json").is_file()
    again = {"training": request.training.model_copy(update={"resume": True})}
    with pytest.raises(ConfigError, match="differ"):
        tune(request.model_copy(update={"budget": 2} | again))
    after: list[str] = []
    resumed = request.model_copy(update=again)
    document = tune(resumed, lambda name, *_: after.append(name))
    assert not (folder / "tuned.training").exists()
    return Tuned(document, output, resumed, before, after)


def test_a_run_that_is_cut_off_goes_on(tuned: Tuned) -> None:
    # candidates and psi are made once, and only the executor again
    names = list(dict.fromkeys(name for name, _ in tuned.before))
    assert len([name for name, stage in tuned.before if stage == "observation encoder"]) == 2  # two epochs
    stages = {stage for name, stage in tuned.before if name == names[2]}
    assert not {"planner", "query projection"} & stages
    assert names[1] not in tuned.after  # lambda_p = 0.1 was finished


def test_results_are_kept_and_not_overwritten(tuned: Tuned) -> None:
    assert {path.name for path in tuned.output.iterdir()} == {"tuning.json", "table.md", "best.yaml"}
    assert json.loads((tuned.output / "tuning.json").read_text()) == tuned.document
    assert "| 0.1 |" in (tuned.output / "table.md").read_text()
    assert tune(tuned.request) == tuned.document
    anew = tuned.request.training.model_copy(update={"resume": False})
    with pytest.raises(ModelError, match="--overwrite"):
        tune(tuned.request.model_copy(update={"training": anew}))


def test_each_weight_is_the_best_of_its_values(tuned: Tuned, tiny_settings: dict[str, Any]) -> None:
    steps = tuned.document["steps"]
    assert [step["weight"] for step in steps] == ["lambda_s", "lambda_p", "lambda_e"]
    assert [step["criterion"] for step in steps] == [AGREEMENT, "mae", "mae"]
    for step in steps:
        sign = 1 if step["lower_is_better"] else -1
        scores = {row["value"]: sign * row["score"] for row in step["values"]}
        assert scores[step["chosen"]] == min(scores.values())
    # lambda_e was tried at one value only, and with the best lambda_p: a training that was there
    (last,) = steps[2]["values"]
    assert last["score"] in [row["score"] for row in steps[1]["values"]]
    best = load_config(tuned.output / "best.yaml")
    assert best.planner.semantic_weight == steps[0]["chosen"]
    assert best.objective.plan == steps[1]["chosen"]
    assert best.optimiser.epochs == tiny_settings["optimiser"]["epochs"]  # the budget is of the tuning
    assert best.name == "tuned"


def test_a_trial_is_the_training_of_its_settings(
    tuned: Tuned, tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    reranking, plans, _ = tuned.document["steps"]
    settings = tiny_settings | {
        "planner": tiny_settings.get("planner", {}) | {"semantic_weight": reranking["chosen"]},
        "objective": {"plan": 0.5},
        "optimiser": tiny_settings["optimiser"] | {"epochs": 1},
    }
    build_training_graph().invoke(
        {"data": str(tiny_data_file), "output": str(tmp_path / "model"), "overrides": settings}
    )
    rows = read_manifest(tmp_path / "model").metrics["rows"]
    mean = sum(row["mae"] for row in rows) / len(rows)
    (trial,) = [row for row in plans["values"] if row["value"] == 0.5]
    assert trial["score"] == pytest.approx(mean, rel=1e-9)


def test_where_no_plan_is_known_lambda_s_stays(
    tiny_plain_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """Clusters are of training rows: nothing says what a validation row's plan should be."""
    request = request_of(tiny_plain_file, tmp_path / "tuned", tiny_settings).model_copy(
        update={"grid": Grid(semantic=(0.1, 1.0), plan=(0.1,), evidence=(0.1,))}
    )
    document = tune(request)
    assert document["steps"][0]["chosen"] == 0.3
    assert any("lambda_s stays at 0.3" in text for text in document["notes"])
    assert document["steps"][1]["criterion"] == "nmse"
    assert "–" in table(document)


def test_a_criterion_that_the_data_don_t_have(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """It is refused before anything is trained, and leaves nothing behind."""
    request = request_of(tiny_data_file, tmp_path / "tuned", tiny_settings)
    with pytest.raises(ConfigError, match="one of auto, nmse, mae"):
        tune(request.model_copy(update={"criterion": "accuracy"}))
    assert list(tmp_path.iterdir()) == []


def test_grids(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("plan: [1, 0.1, 1]\n")
    assert load_grid(path).plan == (0.1, 1.0)
    assert load_grid(path).semantic == load_grid(None).semantic
    for content in ("plan: []", "plan: [-1]", "plan: [.nan]", "plna: [1]", "[1, 2]", "plan: [a", ""):
        path.write_text(content)
        with pytest.raises(ConfigError, match="--grid"):
            load_grid(path)
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_grid(tmp_path / "none.yaml")


@pytest.mark.parametrize("name", ["paper", "mosi"])
def test_settings_come_back_from_their_changes(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    path = tmp_path / "best.yaml"
    path.write_text(yaml.safe_dump(changes_of(config)))
    assert load_config(path) == config
    assert changes_of(TrainingConfig()) == {}
