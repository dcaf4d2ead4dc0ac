"""Several models measured together: seeds, folds pooled over what each held out, and other data sets."""

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
from omg_graph.errors import ConfigError, DataError, ModelError
from omg_graph.evaluation.evaluate import EvaluationRequest, evaluate
from omg_graph.evaluation.intervals import Results, compare
from omg_graph.evaluation.models import model_folders
from omg_graph.evaluation.outcomes import Outcomes, Pairs, Part, pooled_outcomes
from omg_graph.evaluation.predictions import read_predictions
from omg_graph.evaluation.runner import METHOD
from omg_graph.metrics.features import PooledRatio
from omg_graph.model.collection import read_collection
from omg_graph.model.folder import read_manifest

PATTERNS = [["text"], ["audio", "vision"]]


@pytest.fixture(scope="module")
def pooled(tiny_folds_folder: Path, tiny_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("results") / "folds"
    evaluate(EvaluationRequest(tiny_folds_folder, tiny_data_file, output, patterns=PATTERNS, draws=0))
    return output


def document_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def test_every_row_is_measured_once_for_each_seed(pooled: Path, tiny_data_file: Path) -> None:
    data = read_data_file(tiny_data_file)
    ids = sorted((*data.splits["train"].ids, *data.splits["valid"].ids))
    document = document_of(pooled)
    seen = [(row["condition"], row["model_seed"], row["fold"], row["n"]) for row in document["rows"]]
    expected = [(c, s, None, len(ids)) for s in (0, 1) for c in ("text", "audio+vision")]
    assert sorted(seen) == sorted(expected)
    tables = read_predictions(pooled)
    assert len({table.method for table in tables}) > 5
    for table in tables:
        assert sorted(table.ids) == ids
    # each fold by itself stands beside, its rows adding up to all of them
    for condition in ("text", "audio+vision"):
        parts = [
            row["n"]
            for row in document["folds"]
            if (row["method"], row["condition"], row["model_seed"]) == (METHOD, condition, 0)
        ]
        assert sum(parts) == len(ids)
    assert any("each by the model that held it out" in text for text in document["notes"])
    assert not any("was trained on them" in text for text in document["notes"])


def test_a_row_is_measured_by_the_model_that_never_saw_it(
    pooled: Path, tiny_folds_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    """A fold's seeds, evaluated by themselves, say the same of their rows as all folds together."""
    request = EvaluationRequest(
        tiny_folds_folder / "fold-1", tiny_data_file, tmp_path / "one", patterns=PATTERNS, draws=0
    )
    evaluate(request)
    together = {
        (t.method, t.condition, t.model_seed): dict(zip(t.ids, t.value, strict=True))
        for t in read_predictions(pooled)
    }
    held = set(read_manifest(tiny_folds_folder / "fold-1/seed-0").data["fold"]["held_out"])
    tables = read_predictions(tmp_path / "one")
    assert {table.model_seed for table in tables} == {0, 1}
    for table in tables:
        assert set(table.ids) == held
        before = together[table.method, table.condition, table.model_seed]
        assert table.value == pytest.approx([before[sample] for sample in table.ids], rel=1e-4, abs=1e-4)


def test_metrics_are_of_all_rows_together(pooled: Path) -> None:
    """Not means of folds: the mean absolute error is that of the pooled predictions."""
    rows = {(row["condition"], row["model_seed"]): row for row in document_of(pooled)["rows"]}
    for table in read_predictions(pooled):
        if table.method == METHOD:
            error = float(np.abs(table.value - table.truth).mean())
            assert rows[table.condition, table.model_seed]["mae"] == pytest.approx(error, rel=1e-6)


def test_seeds_and_folds_are_paired(pooled: Path) -> None:
    tables = [table for table in read_predictions(pooled) if table.method == METHOD]
    one = Results("one", tables)
    assert all(d.difference.value == 0 for d in compare(one, one))
    # another number of seeds is no obstacle: each side is averaged over its own
    (first,) = [
        d for d in compare(Results("first", tables[:2]), one) if (d.metric, d.condition) == ("mae", "average")
    ]
    means = [
        np.mean([np.abs(t.value - t.truth).mean() for t in tables if t.model_seed == seed]) for seed in (0, 1)
    ]
    assert first.difference.value == pytest.approx(means[0] - np.mean(means), rel=1e-6)


def test_what_folds_can_t_be_measured_on(
    tiny_folds_folder: Path, tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    content = pickle.loads(tiny_data_file.read_bytes())  # our own file
    other = tmp_path / "other.pkl"
    other.write_bytes(pickle.dumps({"test": content["test"]}))
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"split": "test"}, ConfigError, "leave it out"),
        ({"data": other}, ConfigError, "another file"),
        ({"train_data": tiny_data_file}, ConfigError, "--train-data"),
        ({"floor_models": {"whole": tiny_model_folder}}, ModelError, "beside models of folds"),
    ]
    for changes, kind, message in cases:
        given = {
            "model": tiny_folds_folder,
            "data": tiny_data_file,
            "patterns": PATTERNS,
            "draws": 0,
        } | changes
        with pytest.raises(kind, match=message):
            evaluate(EvaluationRequest(output=tmp_path / "out", floors="none", **given))
    assert not (tmp_path / "out").exists()


def test_models_that_don_t_belong_together(
    tiny_folds_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    several = read_collection(tiny_folds_folder)
    assert several is not None
    assert model_folders(tiny_folds_folder) == [tiny_folds_folder / model.folder for model in several.models]
    mixed = tmp_path / "mixed"
    for seed, fold in enumerate(("fold-0/seed-0", "fold-1/seed-1")):
        shutil.copytree(tiny_folds_folder / fold, mixed / f"{seed}")
    # seed 0 of one fold, seed 1 of another: neither has predictions of all rows
    with pytest.raises(ModelError, match="evaluate all folds together"):
        evaluate(
            EvaluationRequest(
                mixed, tiny_data_file, tmp_path / "out", patterns=PATTERNS, draws=0, floors="none"
            )
        )
    unfinished = several.with_fingerprint(several.models[0].folder, "")
    unfinished.write(mixed)
    with pytest.raises(ModelError, match="--resume"):
        model_folders(mixed)


def test_parts_put_together() -> None:
    pairs = Pairs(np.arange(4), np.ones((4, 1), bool))
    outer = np.array([True, False, False, True])
    parts = [Part.of(pairs, [], rows, fold) for fold, rows in enumerate((outer, ~outer))]

    def made(*values: float) -> Outcomes:
        numbers = np.array(values)
        return Outcomes(
            "m", value=numbers, errors={"a": PooledRatio(numbers, 2 * numbers)}, energy={"a": -numbers}
        )

    whole = pooled_outcomes([(parts[0], made(0.0, 3.0)), (parts[1], made(1.0, 2.0))], 4)
    assert whole.value is not None
    assert whole.value.tolist() == [0, 1, 2, 3]
    assert whole.errors["a"].denominator.tolist() == [0, 2, 4, 6]
    assert whole.energy["a"].tolist() == [0, -1, -2, -3]
    assert whole.probabilities is None
    with pytest.raises(ModelError, match="2 of 4 pairs are by none"):
        pooled_outcomes([(parts[0], made(0.0, 3.0))], 4)
    with pytest.raises(ModelError, match="predict the same"):
        pooled_outcomes(
            [(parts[0], made(0.0, 3.0)), (parts[1], Outcomes("m", errors=made(1.0, 2.0).errors))], 4
        )


# another data set


@pytest.fixture
def foreign(tiny_data_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """The clips as another data set: changed features, in one split or several."""

    def write(**changes: Callable[[dict[str, Any]], None]) -> Path:
        content = pickle.loads(tiny_data_file.read_bytes())  # our own file
        for rows in content.values():
            rows["audio"] = rows["audio"] * 2 + 1
            for change in changes.values():
                change(rows)
        path = tmp_path / "foreign.pkl"
        path.write_bytes(pickle.dumps(content))
        return path

    return write


def test_all_rows_of_another_data_set(
    tiny_model_folder: Path, foreign: Callable[..., Path], tmp_path: Path
) -> None:
    def strangers(rows: dict[str, Any]) -> None:
        for name in rows.keys() & {"id", "group"}:
            rows[name] = [f"other-{value}" for value in rows[name]]

    path = foreign(strangers=strangers)
    request = EvaluationRequest(
        tiny_model_folder, path, tmp_path / "out", split="all", patterns=PATTERNS, draws=0, floors="none"
    )
    document = evaluate(request).document
    assert [row["n"] for row in document["rows"]] == [76, 76]
    assert document["data"]["sha256"] == read_data_file(path).sha256
    (model,) = document["model"]["models"]
    assert model["trained_on"] == {
        "file": "clips.pkl",
        "sha256": read_manifest(tiny_model_folder).data["sha256"],
    }
    assert not any("--unrelated" in text for text in document["notes"])


def test_equal_names_in_another_data_set_are_told(
    tiny_model_folder: Path, foreign: Callable[..., Path], tmp_path: Path
) -> None:
    def renumbered(rows: dict[str, Any]) -> None:
        rows["id"] = [f"{str(sample).split('$_$')[0]}$_$9{row}" for row, sample in enumerate(rows["id"])]

    for changes, told in (
        ({}, "unless equal ids are chance"),
        ({"ids": renumbered}, "equal names are chance"),
    ):
        path = foreign(**changes)
        request = EvaluationRequest(
            tiny_model_folder,
            path,
            tmp_path / "out",
            split="train",
            patterns=[["text"]],
            draws=0,
            floors="none",
        )
        with_groups = evaluate(request)
        assert any(told in text for text in with_groups.notes)
        without = evaluate(EvaluationRequest(**{**vars(request), "unrelated": True}))
        assert not any("chance" in text or "trained on them" in text for text in without.notes)
        assert without.document["data"]["unrelated"]
        # nothing is left out of the evidence any more, so it is another
        assert without.document["rows"][0]["c_evi"] != with_groups.document["rows"][0]["c_evi"]
        # results are by the file's own ids all the same
        (table,) = read_predictions(tmp_path / "out")
        assert table.ids == read_data_file(path).splits["train"].ids


def test_other_widths_are_refused(
    tiny_model_folder: Path, foreign: Callable[..., Path], tmp_path: Path
) -> None:
    def wider(rows: dict[str, Any]) -> None:
        rows["vision"] = np.concatenate([rows["vision"], rows["vision"]], axis=1)

    request = EvaluationRequest(tiny_model_folder, foreign(wider=wider), tmp_path / "out", split="all")
    with pytest.raises(DataError, match=r"'vision'.*expected 4 numbers a sample, got 8"):
        evaluate(request)
