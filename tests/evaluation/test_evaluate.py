"""A whole evaluation: rows, files, and what must not depend on how it was run."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.data.dataset import Split
from omg_graph.data.masks import MaskFile
from omg_graph.data.reader import read_data_file
from omg_graph.data.splits import conform
from omg_graph.errors import ConfigError, ModelError
from omg_graph.evaluation import evaluate as module
from omg_graph.evaluation import runner
from omg_graph.evaluation.evaluate import EvaluationRequest, evaluate, model_folders
from omg_graph.evaluation.outcomes import Pairs
from omg_graph.evaluation.predictions import read_predictions
from omg_graph.evaluation.protocols import conditions_of
from omg_graph.evaluation.runner import METHOD, ModelRunner
from omg_graph.evaluation.tables import choose_target
from omg_graph.metrics.labels import score
from omg_graph.model.folder import load_model, read_manifest
from omg_graph.model.model import Model

LABEL_METRICS = {"acc2", "f1", "acc2_has0", "f1_has0", "acc7", "mae", "corr", "ece", "nll"}
ROW = {
    "observed",
    "missing",
    "rate",
    "realised_rate",
    "n",
    "model_seed",
    "mask_seed",
    "nmse",
    "energy_score",
    "coverage90",
    "c_sem",
    "c_evi",
    "same_polarity_share",
}


@pytest.fixture(scope="module")
def clips(tiny_model_folder: Path, tiny_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the fixed protocol on the clips."""
    output = tmp_path_factory.mktemp("results") / "fixed"
    evaluate(EvaluationRequest(tiny_model_folder, tiny_data_file, output, draws=19))
    return output


@pytest.fixture(scope="module")
def clip_model(tiny_model_folder: Path) -> Model:
    return load_model(tiny_model_folder)


@pytest.fixture(scope="module")
def clip_split(tiny_data_file: Path, clip_model: Model) -> Split:
    return conform(read_data_file(tiny_data_file).splits["test"], clip_model.config.modalities, "clips")[0]


def document_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def test_rows_have_what_was_promised(clips: Path) -> None:
    document = document_of(clips)
    assert len(document["rows"]) == 7
    for row in document["rows"]:
        assert row.keys() >= ROW | LABEL_METRICS
        assert set(row["nmse"]) == set(row["missing"]) == set(row["energy_score"]) == set(row["coverage90"])
        assert row["n"] == 12
        assert row["realised_rate"] == pytest.approx(len(row["missing"]) / 3)
        assert 0 <= row["c_sem"] <= 2
        if row["missing"]:
            assert 0 <= row["c_evi"] <= 2
            assert 0 <= row["same_polarity_share"] <= 1
        else:
            assert row["c_evi"] is None
    assert document["family"] == "mosi"
    assert document["model"]["models"][0]["model_seed"] == 0
    assert document["versions"]["omg-graph"]


def test_floors_have_the_same_rows(clips: Path) -> None:
    document = document_of(clips)
    methods = {row["method"] for row in document["floors"]}
    assert {"mean fill + ridge", "anchor", "evidence + ridge", "ridge per pattern"} <= methods
    for method in methods:
        rows = [row for row in document["floors"] if row["method"] == method]
        assert [row["observed"] for row in rows] == [row["observed"] for row in document["rows"]]
        assert all(row.keys() == document["rows"][0].keys() for row in rows)
    for row in document["floors"]:
        if row["method"] == "mean fill + ridge":
            # the mean that features are standardised by is the training mean
            assert all(0.5 < value < 1.5 for value in row["nmse"].values())


def test_predictions_lead_to_the_metrics(clips: Path) -> None:
    document = document_of(clips)
    tables = {(t.method, t.condition): t for t in read_predictions(clips)}
    for row in [*document["rows"], *document["floors"]]:
        table = tables[row["method"], row["condition"]]
        found = score("mosi", table.truth, value=table.value)
        for name in ("acc2", "f1", "acc7", "mae", "corr"):
            assert row[name] == (None if found[name] is None else pytest.approx(found[name]))
        for name, value in row["nmse"].items():
            assert table.errors[name].value == pytest.approx(value)
        assert {tuple(shown) for shown in table.observed} == {tuple(row["observed"])}
        assert len(table) == row["n"]


def test_masks_are_the_same_for_every_method(clips: Path) -> None:
    shown: dict[tuple[str, str], set[tuple[str, ...]]] = {}
    for table in read_predictions(clips):
        for sample, observed in zip(table.ids, table.observed, strict=True):
            shown.setdefault((table.condition, sample), set()).add(observed)
    assert {len(observed) for observed in shown.values()} == {1}


def test_the_masks_are_written(clips: Path) -> None:
    document = document_of(clips)
    assert len(document["mask_files"]) == 7
    for name, row in zip(document["mask_files"], document["rows"], strict=True):
        mask = MaskFile.read(clips / name)
        assert mask.realised_rate == pytest.approx(row["realised_rate"])
        assert len(mask.observed) == row["n"]


def test_the_page_has_a_section_for_each_condition(clips: Path) -> None:
    page = (clips / "table.md").read_text()
    for row in document_of(clips)["rows"]:
        assert f"### {row['condition']}\n" in page
    assert "metrics: mosi" in page
    assert "rough" in page  # three speakers


def test_intervals_hold_their_figures(clips: Path) -> None:
    intervals = document_of(clips)["intervals"]
    assert intervals["rough"]
    averaged = [f for f in intervals["figures"] if (f["method"], f["metric"]) == (METHOD, "mae")]
    rows = document_of(clips)["rows"]
    (mean,) = [f["value"] for f in averaged if f["condition"] == "average"]
    assert mean == pytest.approx(np.mean([row["mae"] for row in rows]))
    assert {difference["method"] for difference in intervals["differences"]} == {METHOD}


@pytest.mark.parametrize("batch", [1, 5])
def test_batches_and_order_change_nothing(
    batch: int, clip_model: Model, clip_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = choose_target(clip_model, clip_split.labels, "auto")

    def measure(split: Split) -> dict[tuple[str, bytes], tuple[float, ...]]:
        pairs = Pairs.of(conditions_of(split, "fixed", patterns=[["text"], ["audio", "vision"]]))
        made = ModelRunner(clip_model, split, target, draws=2).run(pairs).outcomes
        assert made.value is not None
        return {
            (split.ids[row], pattern.tobytes()): (
                made.value[place],
                made.errors["audio"].numerator[place],
                made.errors["text"].numerator[place],
                np.nan_to_num(made.energy["audio"][place]),
            )
            for place, (row, pattern) in enumerate(zip(pairs.rows, pairs.visible, strict=True))
        }

    once = measure(clip_split.take(range(6)))
    monkeypatch.setattr(runner, "MICRO_BATCH", batch)
    again = measure(clip_split.take([5, 0, 4, 1, 3, 2]))
    assert once.keys() == again.keys()
    for key, values in once.items():
        assert values == pytest.approx(again[key], rel=1e-4, abs=1e-4)


def test_rates_share_the_work_of_equal_patterns(clip_split: Split) -> None:
    pairs = Pairs.of(conditions_of(clip_split, "random", seeds=4))
    keys = {(int(row), pattern.tobytes()) for row, pattern in zip(pairs.rows, pairs.visible, strict=True)}
    assert len(keys) == len(pairs) <= 7 * len(clip_split)


def test_random_rates_and_what_the_tool_reads_back(
    tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    request = EvaluationRequest(
        tiny_model_folder,
        tiny_data_file,
        tmp_path / "random",
        protocol="random",
        rates=[0.3, 0.6],
        seeds=2,
        draws=0,
        floors="none",
    )
    first = evaluate(request).document
    assert [(row["rate"], row["mask_seed"]) for row in first["rows"]] == [
        (0.3, 0),
        (0.3, 1),
        (0.6, 0),
        (0.6, 1),
    ]
    assert all(row["observed"] is None for row in first["rows"])
    assert all(row["realised_rate"] == pytest.approx(row["rate"], abs=0.02) for row in first["rows"])
    assert all(row["energy_score"] == {} for row in first["rows"])
    mask = tmp_path / "random" / first["mask_files"][1]
    again = evaluate(
        replace(request, output=tmp_path / "file", protocol="file", rates=None, masks=(mask,))
    ).document
    for name in ("mae", "acc7", "n", "mask_seed", "realised_rate"):
        assert again["rows"][0][name] == pytest.approx(first["rows"][1][name])
    assert again["rows"][0]["nmse"] == pytest.approx(first["rows"][1]["nmse"])


def test_classes_gaps_by_nature_and_many_views(
    tiny_views_folder: Path, tiny_views_file: Path, tmp_path: Path
) -> None:
    request = EvaluationRequest(
        tiny_views_folder,
        tiny_views_file,
        tmp_path / "out",
        split="valid",
        patterns=[["fou"], ["fou", "zer", "kar"]],
        draws=2,
    )
    result = evaluate(request)
    truth = read_data_file(tiny_views_file).splits["valid"]
    alone, three = result.document["rows"]
    assert result.document["family"] == "classes"
    assert {"accuracy", "macro_f1", "ece", "nll"} <= alone.keys()
    assert alone["n"] == int(truth.observed["fou"].sum()) < len(truth)
    assert alone["same_polarity_share"] is None
    assert set(three["nmse"]) == {"fac", "pix", "mor"}
    tables = read_predictions(tmp_path / "out")
    for table in tables:
        for sample, observed in zip(table.ids, table.observed, strict=True):
            row = truth.ids.index(sample)
            assert all(truth.observed[name][row] for name in observed)
    # what is missing by nature has no truth, and so no error
    text = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    for line in map(json.loads, text):
        row = truth.ids.index(line["id"])
        assert all(truth.observed[name][row] for name in line["modalities"])
        assert line["truth"] in ("ant", "bee", "cat")


def test_without_labels_features_are_measured(
    tiny_plain_folder: Path, tiny_plain_file: Path, tmp_path: Path
) -> None:
    request = EvaluationRequest(
        tiny_plain_folder, tiny_plain_file, tmp_path / "out", patterns=[["keys"], ["photo", "grey"]], draws=2
    )
    document = evaluate(request).document
    assert document["family"] == "none"
    assert LABEL_METRICS.isdisjoint(document["rows"][0])
    assert set(document["rows"][1]["nmse"]) == {"keys", "a.b"}
    assert document["data"]["split"] == "test"


def test_a_folder_of_models_has_each_of_them_measured(
    tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    several = tmp_path / "models"
    for seed in (0, 1):
        shutil.copytree(tiny_model_folder, several / f"seed{seed}")
        manifest = read_manifest(tiny_model_folder).model_copy(update={"seed": seed}).sealed()
        (several / f"seed{seed}" / "manifest.json").write_text(manifest.model_dump_json())
    request = EvaluationRequest(
        several, tiny_data_file, tmp_path / "out", patterns=[["text"]], draws=0, limit=5, floors="none"
    )
    document = evaluate(request).document
    assert [row["model_seed"] for row in document["rows"]] == [0, 1]
    assert document["rows"][0]["mae"] == document["rows"][1]["mae"]
    assert document["rows"][0]["n"] == 5


def test_models_of_one_seed_are_refused(tiny_model_folder: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        shutil.copy(tiny_model_folder / "manifest.json", tmp_path / name / "manifest.json")
    with pytest.raises(ModelError, match="different seeds"):
        model_folders(tmp_path)


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="isn't a model"):
        model_folders(tmp_path)


def test_floors_fitted_on_the_training_file_are_those_of_the_knowledge_base(
    clips: Path, tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    request = EvaluationRequest(
        tiny_model_folder, tiny_data_file, tmp_path / "out", draws=0, train_data=tiny_data_file
    )
    result = evaluate(request)
    assert any("fitted on clips.pkl" in text for text in result.notes)
    before = {(row["method"], row["condition"]): row for row in document_of(clips)["floors"]}
    for row in result.document["floors"]:
        assert row["mae"] == pytest.approx(before[row["method"], row["condition"]]["mae"], rel=1e-3)


def test_the_model_that_was_trained_on_the_samples_is_pointed_out(
    tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    request = EvaluationRequest(
        tiny_model_folder,
        tiny_data_file,
        tmp_path / "out",
        patterns=[["text"]],
        draws=0,
        limit=4,
        floors="none",
    )
    on_train = evaluate(replace(request, split="train"))
    assert any("was trained on them" in text for text in on_train.notes)
    on_valid = evaluate(replace(request, split="valid"))
    assert any("flattered" in text for text in on_valid.notes)


def test_a_broken_number_takes_the_training_mean_as_in_a_run(
    tiny_model_folder: Path, tiny_data_file: Path, clip_model: Model, tmp_path: Path
) -> None:
    """Of the model, not of the file that is measured: a sample's figures then don't depend on its company."""
    rows = pickle.loads(tiny_data_file.read_bytes())["test"]  # our own file
    figures = []
    for number in (np.nan, clip_model.latent_space.feature_means["audio"].reshape(-1)[1]):
        rows["audio"][0, 1] = number
        path = tmp_path / "alone.pkl"
        path.write_bytes(pickle.dumps({"test": rows}))
        request = EvaluationRequest(
            tiny_model_folder,
            path,
            tmp_path / "out",
            patterns=[["audio"]],
            draws=0,
            floors="none",
            fill_nonfinite="mean",
        )
        figures.append(evaluate(request).document["rows"])
    assert figures[0] == figures[1]


def test_someone_elses_folder_is_left_alone(
    tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "thesis.tex").write_text("\\documentclass{book}")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        evaluate(EvaluationRequest(tiny_model_folder, tiny_data_file, tmp_path))
    assert (tmp_path / "thesis.tex").is_file()


def test_without_matplotlib_a_note_says_how_to_get_it(
    tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "plots_available", lambda: False)
    request = EvaluationRequest(
        tiny_model_folder,
        tiny_data_file,
        tmp_path / "out",
        patterns=[["text"]],
        draws=0,
        limit=4,
        floors="none",
    )
    result = evaluate(request)
    assert any("omg-graph[bench]" in text for text in result.notes)
    assert not (tmp_path / "out" / "plots").exists()


def test_plots_are_pictures(clips: Path) -> None:
    pytest.importorskip("matplotlib")
    names = document_of(clips)["plots"]
    assert {"plots/acc2.png", "plots/nmse.png"} <= set(names)
    assert all((clips / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_a_constant_gets_the_known_figures(data_folder: Path) -> None:
    """On MOSI's validation rows, -2 by hand: the share of negatives, and of the degree -2."""
    labels = read_data_file(data_folder / "mosi" / "mosi_train_valid.pkl").splits["valid"].labels
    assert labels is not None
    truth = labels.values
    found = score("mosi", truth, value=np.full(len(truth), -2.0))
    assert found["acc2"] == pytest.approx((truth[truth != 0] < 0).mean())
    assert found["acc7"] == pytest.approx((np.round(truth) == -2).mean())
    assert found["corr"] is None
