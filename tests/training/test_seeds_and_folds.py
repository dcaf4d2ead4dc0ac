"""Several models in one folder: one for each seed and fold, blind to what they hold out."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.data.reader import read_data_file
from omg_graph.errors import ConfigError, ModelError
from omg_graph.model.collection import MODELS, read_collection
from omg_graph.model.folder import load_model, read_manifest
from omg_graph.training import seeds_and_folds as module
from omg_graph.training.folds import fold_of, rows_of_folds
from omg_graph.training.request import TrainingRequest
from omg_graph.training.seeds_and_folds import planned_models, train_collection


def request_of(data: Path, output: Path, settings: dict[str, Any], **more: Any) -> TrainingRequest:
    return TrainingRequest(data=str(data), output=str(output), overrides=settings, **more)


@pytest.fixture
def folds(tiny_folds_folder: Path) -> Path:
    """Two folds with two seeds each."""
    return tiny_folds_folder


def test_places_of_models() -> None:
    assert [model.folder for model in planned_models(3, 2, None)] == ["seed-3", "seed-4"]
    assert [model.folder for model in planned_models(3, None, 2)] == ["fold-0", "fold-1"]
    both = planned_models(1, 2, 2)
    assert [model.folder for model in both] == [f"fold-{k}/seed-{s}" for k in (0, 1) for s in (1, 2)]
    assert [(model.fold, model.seed) for model in both] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_one_file_names_all_models(folds: Path) -> None:
    several = read_collection(folds)
    assert several is not None
    assert several.finished
    assert {path.name for path in folds.iterdir()} == {"fold-0", "fold-1", MODELS}
    for model in several.models:
        manifest = read_manifest(folds / model.folder)
        assert manifest.fingerprint == model.fingerprint
        assert (manifest.seed, manifest.data["fold"]["fold"]) == (model.seed, model.fold)
    assert len({model.fingerprint for model in several.models}) == 4
    assert not folds.with_name("folds.training").exists()


def test_every_row_is_held_out_once_for_each_seed(folds: Path, tiny_data_file: Path) -> None:
    data = read_data_file(tiny_data_file)
    rows = {sample for name in ("train", "valid") for sample in data.splits[name].ids}
    held = [set(read_manifest(folds / f"fold-{k}/seed-0").data["fold"]["held_out"]) for k in (0, 1)]
    assert held[0] | held[1] == rows
    assert not held[0] & held[1]
    assert held[0] == set(read_manifest(folds / "fold-0/seed-1").data["fold"]["held_out"])


def test_nothing_of_a_held_out_group_is_in_a_model(folds: Path) -> None:
    for k in (0, 1):
        model = load_model(folds / f"fold-{k}/seed-0")
        held = set(model.manifest.data["fold"]["held_out"])
        assert not held & set(model.knowledge_base.ids)
        assert not {sample.split("$_$")[0] for sample in held} & set(model.knowledge_base.groups)


def test_altered_held_out_rows_change_no_weight(
    folds: Path, tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    held = set(read_manifest(folds / "fold-1/seed-0").data["fold"]["held_out"])
    content: dict[str, dict[str, Any]] = pickle.loads(tiny_data_file.read_bytes())  # our own file
    altered = 0
    for rows in content.values():
        for place, sample in enumerate(rows["id"]):
            if str(sample) in held:
                for name in ("text", "audio", "vision"):
                    rows[name][place] = 100.0 - rows[name][place]
                rows["regression_labels"][place] = -rows["regression_labels"][place]
                rows["raw_text"][place] = "music criticises"
                altered += 1
    assert altered == len(held)
    changed = tmp_path / tiny_data_file.name
    changed.write_bytes(pickle.dumps(content))
    assert read_data_file(changed).sha256 != read_data_file(tiny_data_file).sha256
    train = request_of(changed, tmp_path / "again", tiny_settings, folds=2, fold=1)
    for _ in module._events(train):
        pass
    again = read_manifest(tmp_path / "again")
    assert again.files == read_manifest(folds / "fold-1/seed-0").files


def test_a_seed_among_several_is_the_model_that_is_trained_alone(
    tiny_data_file: Path, tiny_model_folder: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    """Also when the run is cut off between two models: the finished one isn't touched."""
    request = request_of(tiny_data_file, tmp_path / "seeds", tiny_settings)

    def stop(model: str, _number: int, _of: int, event: dict[str, Any]) -> None:
        if model == "seed-1" and event["stage"] == "executor":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_collection(request, seeds=2, on_event=stop)
    assert not (tmp_path / "seeds").exists()
    work = tmp_path / "seeds.training"
    first = work / "seed-0" / "manifest.json"
    written = first.stat().st_mtime_ns
    with pytest.raises(ConfigError, match="--resume goes on"):
        train_collection(request.model_copy(update={"resume": True}), seeds=3)
    begun: list[str] = []
    models = train_collection(
        request.model_copy(update={"resume": True}), seeds=2, on_event=lambda model, *_: begun.append(model)
    )
    assert set(begun) == {"seed-1"}
    assert (tmp_path / "seeds" / "seed-0" / "manifest.json").stat().st_mtime_ns == written
    assert not work.exists()
    assert [model.named.seed for model in models] == [0, 1]
    alone = read_manifest(tiny_model_folder)
    assert read_manifest(tmp_path / "seeds" / "seed-0").files == alone.files
    # all of it is there: nothing is left to do, and nobody is told of anything
    again = train_collection(request.model_copy(update={"resume": True}), seeds=2, on_event=stop)
    assert [model.named for model in again] == [model.named for model in models]
    with pytest.raises(ModelError, match="--overwrite"):
        train_collection(request, seeds=2)


def test_what_is_at_the_output_stays(
    tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    request = request_of(tiny_data_file, tmp_path / "mine", tiny_settings, overwrite=True)
    with pytest.raises(ModelError, match="holds no models"):
        train_collection(request, seeds=2)
    shutil.move(tmp_path / "mine", tmp_path / "new.training")
    with pytest.raises(ConfigError, match="something else is there"):
        train_collection(request.model_copy(update={"output": str(tmp_path / "new")}), seeds=2)
    assert (tmp_path / "new.training" / "thesis.txt").read_text() == "all of it"


def test_a_list_that_names_what_lies_elsewhere_is_refused(folds: Path, tmp_path: Path) -> None:
    content = json.loads((folds / MODELS).read_text())
    content["models"][0]["folder"] = "../elsewhere"
    (tmp_path / MODELS).write_text(json.dumps(content))
    with pytest.raises(ModelError, match="outside"):
        read_collection(tmp_path)
    (tmp_path / MODELS).write_text("{}")
    with pytest.raises(ModelError, match="can't be read"):
        read_collection(tmp_path)
    assert read_collection(tmp_path / "none") is None


def test_groups_are_held_out_whole(tiny_data_file: Path) -> None:
    data = read_data_file(tiny_data_file)
    rows = rows_of_folds(data)
    assert len(rows) == len(data.splits["train"]) + len(data.splits["valid"])
    assert not set(rows.ids) & set(data.splits["test"].ids)
    group_of = dict(zip(rows.ids, rows.groups, strict=True))
    for number in range(3):
        fold = fold_of(data, number, 3)
        held = {group_of[sample] for sample in fold.held_out}
        assert not held & set(fold.data.splits["train"].groups)
        assert len(fold.held_out) + len(fold.data.splits["train"]) == len(rows)


def test_folds_that_can_t_be(tiny_data_file: Path, tiny_settings: dict[str, Any], tmp_path: Path) -> None:
    data = read_data_file(tiny_data_file)
    for number, of, culprit in ((0, 1, "2 or more"), (2, 2, "fold among them"), (0, 99, "at most 16")):
        with pytest.raises(ConfigError, match=culprit):
            fold_of(data, number, of)
    request = request_of(tiny_data_file, tmp_path / "m", tiny_settings, fill_nonfinite="mean")
    with pytest.raises(ConfigError, match="mean"):
        train_collection(request, folds=2)


# a single model


def test_a_kill_after_the_model_is_whole_leaves_nothing_behind(
    tiny_data_file: Path,
    tiny_settings: dict[str, Any],
    tiny_stages: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from omg_graph.training.cache import StageCache
    from omg_graph.training.graph import build_training_graph

    request = {
        "data": str(tiny_data_file),
        "output": str(tmp_path / "model"),
        "overrides": tiny_settings,
        "shared_stages": str(tiny_stages),
    }
    with monkeypatch.context() as patch:
        patch.setattr(StageCache, "remove", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            build_training_graph().invoke(request)
    left = tmp_path / "model.training"
    before = read_manifest(tmp_path / "model")
    assert left.is_dir()
    result = build_training_graph().invoke(request | {"resume": True})
    assert not left.exists()
    assert result["fingerprint"] == before.fingerprint
    assert result["metrics"] == before.metrics
    assert any("nothing left to do" in text for text in result["notes"])
    # another request for the same place is no continuation of it
    with pytest.raises(ModelError, match="--overwrite"):
        build_training_graph().invoke(request | {"resume": True, "seed": 5})


# a missing rate


def test_a_model_for_one_missing_rate_says_so(
    tiny_data_file: Path, train_tiny: Callable[..., Path], tiny_settings: dict[str, Any]
) -> None:
    folder = train_tiny(
        tiny_data_file, "clips-rate", overrides=tiny_settings | {"missing_rate": 0.6, "name": "rated"}
    )
    manifest = read_manifest(folder)
    assert manifest.config["missing_rate"] == 0.6
    assert manifest.data["missing_rate"]["realised"] == pytest.approx(0.6, abs=1e-3)
    assert any("missing rate 0.6" in text for text in manifest.notes)
    assert np.isfinite([value for row in manifest.metrics["rows"] for value in row["nmse"].values()]).all()
