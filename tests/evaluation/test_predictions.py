"""``predictions.jsonl`` is read back as it was written, and refused where it isn't ours."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest

from omg_graph.errors import DataError
from omg_graph.evaluation.intervals import Results, compare
from omg_graph.evaluation.predictions import FILE, read_predictions, write_predictions
from omg_graph.evaluation.tables import SampleTable, metrics_of

TableOf = Callable[..., SampleTable]


@pytest.mark.parametrize("family", ["mosi", "classes"])
def test_what_is_written_is_read_back(table_of: TableOf, family: str, tmp_path: Path) -> None:
    tables = [
        table_of(family),
        table_of(family, mask_seed=1, seed=1),
        table_of(family, method="mean fill", floor_seed=2),
    ]
    with (tmp_path / FILE).open("w") as file:
        assert write_predictions(tables, file) == 3 * 60
    again = read_predictions(tmp_path)
    for ours, theirs in zip(tables, again, strict=True):
        assert (ours.method, ours.place, ours.floor_seed) == (theirs.method, theirs.place, theirs.floor_seed)
        assert (ours.ids, ours.groups) == (theirs.ids, theirs.groups)
        assert [m.of(ours) for m in metrics_of([ours])] == pytest.approx(
            [m.of(theirs) for m in metrics_of([theirs])], rel=1e-7
        )
    found = compare(Results("a", again[:2]), Results("b", tables[:2]))
    assert all(abs(row.difference.value) < 1e-7 for row in found)


def test_classes_keep_their_names(table_of: TableOf, tmp_path: Path) -> None:
    table = table_of("classes", names=("zebra", "ant", "newt", "cat"))
    with (tmp_path / FILE).open("w") as file:
        write_predictions([table], file)
    (again,) = read_predictions(tmp_path)
    assert [again.names[int(code)] for code in again.truth] == [table.names[int(c)] for c in table.truth]


@pytest.mark.parametrize("content", ["", "{}\n", "not json\n", '{"method": "omg"}\n'])
def test_a_file_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(DataError) as refused:
        read_predictions(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_line_that_comes_twice_is_refused(table_of: TableOf, tmp_path: Path) -> None:
    text = io.StringIO()
    write_predictions([table_of()], text)
    (tmp_path / FILE).write_text(text.getvalue() + text.getvalue().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="come twice"):
        read_predictions(tmp_path)


def test_a_folder_without_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="omg evaluate wrote"):
        read_predictions(tmp_path)
