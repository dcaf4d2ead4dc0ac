"""Paired differences: refused where nothing can be paired, and plain about what isn't shown."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omg_graph.errors import DataError
from omg_graph.evaluation.intervals import AVERAGE, Difference, Results, compare
from omg_graph.evaluation.predictions import FILE, read_predictions, write_predictions
from omg_graph.evaluation.tables import SampleTable
from omg_graph.metrics.features import PooledRatio

ROWS = 80
CONDITIONS = (("text", None), ("rate 0.5", 0), ("rate 0.5", 1))


def tables_of(noise: float, seed: int = 0, model_seed: int = 0, method: str = "omg") -> list[SampleTable]:
    truth = np.random.default_rng(7).uniform(-3, 3, ROWS)
    random = np.random.default_rng(seed)
    out = []
    for condition, mask_seed in CONDITIONS:
        out.append(
            SampleTable(
                method=method,
                family="mosi",
                protocol="random",
                condition=condition,
                rate=0.5,
                mask_seed=mask_seed,
                model_seed=model_seed,
                ids=tuple(f"v{row // 2}$_${row}" for row in range(ROWS)),
                groups=tuple(f"v{row // 2}" for row in range(ROWS)),
                observed=(("text",),) * ROWS,
                truth=truth,
                value=truth + noise * random.normal(size=ROWS),
                label=np.full(ROWS, np.nan),
                probability=np.full(ROWS, np.nan),
                errors={"audio": PooledRatio(noise * random.random(ROWS), np.ones(ROWS))},
            )
        )
    return out


def averaged(found: list[Difference], metric: str) -> Difference:
    return next(row for row in found if row.metric == metric and row.condition == AVERAGE)


def test_a_clear_difference_is_shown_the_right_way_round() -> None:
    good, bad = Results("good", tables_of(0.3)), Results("bad", tables_of(3.0, seed=1))
    found = compare(good, bad)
    assert averaged(found, "acc7").verdict == "better"
    assert averaged(found, "mae").verdict == "better"
    assert averaged(found, "mae").difference.value < 0
    swapped = compare(bad, good)
    assert averaged(swapped, "nmse").verdict == "worse"
    assert averaged(swapped, "mae").difference.value == pytest.approx(
        -averaged(found, "mae").difference.value
    )


def test_the_same_results_show_no_difference() -> None:
    found = compare(Results("a", tables_of(1.0)), Results("b", tables_of(1.0)))
    assert {row.verdict for row in found} == {"no difference shown"}
    assert all(row.difference.value == 0 for row in found)


def test_seeds_are_averaged_before_conditions() -> None:
    first, second = tables_of(1.0), tables_of(2.0, seed=5)
    found = compare(Results("a", first), Results("b", second))

    def mae(tables: list[SampleTable]) -> float:
        each = [float(np.abs(table.value - table.truth).mean()) for table in tables]
        return (each[0] + (each[1] + each[2]) / 2) / 2

    assert averaged(found, "mae").difference.value == pytest.approx(mae(first) - mae(second))
    assert {row.condition for row in found} == {AVERAGE, "text", "rate 0.5"}


def test_several_models_of_one_method_are_averaged() -> None:
    two = [*tables_of(1.0), *tables_of(1.0, seed=9, model_seed=1)]
    found = compare(Results("a", two), Results("b", tables_of(1.0)))
    expected = np.mean([float(np.abs(t.value - t.truth).mean()) for t in two if t.condition == "text"])
    row = next(row for row in found if (row.metric, row.condition) == ("mae", "text"))
    assert row.first == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"truth": np.zeros(ROWS)}, "truths"),
        ({"observed": (("audio",),) * ROWS}, "same masks"),
        ({"ids": tuple(f"w{row}" for row in range(ROWS))}, "same samples"),
        ({"condition": "vision"}, "same conditions"),
        ({"mask_seed": 4}, "same conditions"),
        ({"family": "number"}, "same metrics"),
        ({"groups": tuple(f"g{row}" for row in range(ROWS))}, "groups"),
    ],
)
def test_what_cannot_be_paired_is_refused(change: dict[str, object], complaint: str) -> None:
    other = tables_of(1.0)
    other[0] = replace(other[0], **change)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=complaint) as told:
        compare(Results("a", tables_of(1.0)), Results("b", other))
    assert "\n" not in str(told.value)


def test_the_order_of_samples_does_not_matter() -> None:
    other = [
        replace(
            table,
            ids=table.ids[::-1],
            groups=table.groups[::-1],
            truth=table.truth[::-1],
            value=table.value[::-1],
            errors={"audio": table.errors["audio"].take(np.arange(ROWS)[::-1])},
        )
        for table in tables_of(1.0)
    ]
    found = compare(Results("a", tables_of(1.0)), Results("b", other))
    assert all(abs(row.difference.value) < 1e-12 for row in found)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    tables = [*tables_of(1.0), *tables_of(2.0, method="mean fill")]
    with (tmp_path / FILE).open("w") as file:
        assert write_predictions(tables, file) == 6 * ROWS
    again = read_predictions(tmp_path)
    assert [(t.method, t.place, t.ids, t.groups) for t in again] == [
        (t.method, t.place, t.ids, t.groups) for t in tables
    ]
    for ours, theirs in zip(tables, again, strict=True):
        assert np.allclose(ours.value, theirs.value, rtol=1e-8)
        assert np.allclose(ours.errors["audio"].numerator, theirs.errors["audio"].numerator, rtol=1e-8)
    assert all(row.difference.value == 0 for row in compare(Results("a", again[:3]), Results("b", again[:3])))


@pytest.mark.parametrize("content", ["", "{}\n", "not json\n", '{"method": "omg"}\n'])
def test_a_file_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(DataError) as told:
        read_predictions(tmp_path)
    assert "\n" not in str(told.value)


def test_a_line_that_comes_twice_is_refused(tmp_path: Path) -> None:
    text = io.StringIO()
    write_predictions(tables_of(1.0)[:1], text)
    (tmp_path / FILE).write_text(text.getvalue() + text.getvalue().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="come twice"):
        read_predictions(tmp_path)


def test_a_folder_without_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="omg evaluate wrote"):
        read_predictions(tmp_path)


def test_classes_keep_their_names(tmp_path: Path) -> None:
    table = replace(
        tables_of(1.0)[0],
        family="classes",
        names=("zebra", "ant"),
        truth=np.tile([0.0, 1.0], ROWS // 2),
        label=np.zeros(ROWS),
        value=np.full(ROWS, np.nan),
    )
    with (tmp_path / FILE).open("w") as file:
        write_predictions([table], file)
    (again,) = read_predictions(tmp_path)
    assert [again.names[int(code)] for code in again.truth[:2]] == ["zebra", "ant"]
    found = compare(Results("a", [table]), Results("b", [again]))
    assert averaged(found, "accuracy").first == averaged(found, "accuracy").second == 0.5
