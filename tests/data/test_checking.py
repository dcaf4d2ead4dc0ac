"""What is said of a file, good or bad."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.data.checking import DataReport, check_data


def check(folder: Path, content: Any, **options: Any) -> DataReport:
    path = folder / "data.pkl"
    path.write_bytes(pickle.dumps(content))
    report = check_data(path, **options)
    assert DataReport.model_validate_json(report.model_dump_json(exclude={"usable"})) == report
    return report


def said(report: DataReport, level: str) -> str:
    return "\n".join(finding.message for finding in report.findings if finding.level == level)


def test_a_sound_file(tmp_path: Path) -> None:
    x = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [0.0, 0.0]])
    y = np.ones((4, 3, 2))
    y[1] = np.nan
    split = {
        "id": ["a$_$1", "a$_$2", "b", "c"],
        "raw_text": ["x", "y", None, ""],
        "x": x,
        "y": y,
        "y_lengths": [3, 3, 1, 2],
        "observed": {"x": [True, True, False, True]},
        "regression_labels": np.array([1.2, -0.4, np.nan, 3.0]),
    }
    report = check(tmp_path, {"train": split})
    assert report.usable
    (train,) = report.splits
    assert (train.samples, train.ids, train.groups, train.largest_group, train.with_text) == (
        4,
        "given",
        3,
        2,
        2,
    )
    assert (train.nothing_observed, train.complete, train.repeated_rows) == (0, 2, 0)
    first, second = train.modalities
    assert (first.minimum, first.maximum, first.missing_rows, first.zero_rows) == (0.0, 5.0, 1, 1)
    assert (second.kind, second.shape, second.missing_rows) == ("sequence", (3, 2), 1)
    assert (second.shortest, second.longest, second.constant_features) == (1, 3, 2)
    assert train.labels is not None
    assert (train.labels.labelled, train.labels.minimum, train.labels.maximum) == (
        3,
        pytest.approx(-0.4),
        3.0,
    )
    assert train.labels.counts == {"0": 1, "1": 1, "3": 1}
    assert "zeros" in said(report, "warning")
    assert json.loads(report.model_dump_json())["usable"] is True


def test_broken_rows_are_counted_and_can_be_filled(tmp_path: Path) -> None:
    content = {"id": ["a", "b"], "x": np.array([[1.0, np.nan, np.inf], [1.0, 2.0, 3.0]])}
    report = check(tmp_path, content)
    assert not report.usable
    assert report.splits[0].modalities[0].nonfinite_rows == 1
    assert report.splits[0].modalities[0].nonfinite_values == 2
    assert "first in 'a'" in said(report, "error")
    assert check(tmp_path, content, fill_nonfinite="mean").usable


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    split = {
        "id": ["a", "a", "b"],
        "x": np.ones((2, 2)),
        "y": np.array([[1.0], [np.nan], [2.0]]),
        "z": np.array([[1.0, np.nan], [1.0, 2.0], [2.0, 3.0]]),
        "z_lengths": [1, 1, 1],
        "observed": {"video": [True, True, True]},
        "label": [1, 2],
    }
    errors = said(check(tmp_path, {"train": split}), "error")
    for word in ("'a' comes more than once", "'x'", "z:", "'video'", "label"):
        assert word in errors


def test_splits_are_compared(tmp_path: Path) -> None:
    train = {"id": ["a$_$1", "b"], "x": np.ones((2, 3))}
    report = check(tmp_path, {"train": train, "test": {"id": ["a$_$2"], "x": np.ones((1, 3))}})
    assert report.usable
    assert "1 groups are in both" in said(report, "warning")
    report = check(tmp_path, {"train": train, "test": {"id": ["b", "q"], "x": np.ones((2, 4))}})
    assert "1 ids are in both" in said(report, "warning")
    assert "x: (3,) in 'train', but (4,) in 'test'" in said(report, "error")


def test_empty_and_wholly_missing(tmp_path: Path) -> None:
    report = check(tmp_path, {"id": ["a", "b"], "x": [[np.nan], [np.nan]]})
    assert "nothing is observed in any row" in said(report, "error")
    report = check(
        tmp_path, {"train": {"id": ["a"], "x": [[1.0]]}, "test": {"id": [], "x": np.zeros((0, 1))}}
    )
    assert report.usable
    assert "empty" in said(report, "warning")
    assert not check(tmp_path, {"id": ["a", "b"], "raw_text": ["x", "y"]}).usable


def test_classes_and_repeated_rows(tmp_path: Path) -> None:
    content = {"id": ["a", "b", "c"], "x": np.ones((3, 2)), "label": ["p", "q", "p"]}
    report = check(tmp_path, content)
    assert report.splits[0].labels is not None
    assert report.splits[0].labels.counts == {"p": 2, "q": 1}
    assert report.splits[0].repeated_rows == 2


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    for content in (os.getcwd, [1], {}):
        report = check(tmp_path, content)
        assert not report.usable
        assert not report.splits
    assert not check_data(tmp_path / "none.pkl").usable


def test_splits_that_would_not_train_together_are_told(tmp_path: Path) -> None:
    train = {"id": ["a", "b"], "x": np.ones((2, 3)), "s": np.ones((2, 4, 5))}
    longer = {"id": ["c", "d"], "x": np.ones((2, 3)), "s": np.ones((2, 6, 5))}
    report = check(tmp_path, {"train": train, "valid": longer})
    assert "s: 6 frames, but 4 in 'train'" in said(report, "error")
    report = check(tmp_path, {"train": train, "test": longer})
    assert "s: 6 frames, but 4 in 'train'" in said(report, "warning")
    assert report.usable
    padded = longer | {"s_lengths": [4, 2]}
    assert "frames" not in said(check(tmp_path, {"train": train, "valid": padded}), "error")
    framed = {"id": ["c", "d"], "x": np.ones((2, 2, 3))}
    assert "x: (3,) in 'train', but (2, 3)" in said(
        check(tmp_path, {"train": train, "valid": framed}), "error"
    )


def test_names_that_results_have_no_place_for(tmp_path: Path) -> None:
    split = {"id": ["a", "b"], "x": np.ones((2, 3)), "x_std": np.ones((2, 3))}
    assert "x_std" in said(check(tmp_path, {"train": split}), "error")


def test_lost_frames_are_counted_and_are_no_error(tmp_path: Path) -> None:
    frames = np.ones((3, 4, 2))
    frames[0, 1] = frames[0, 2] = frames[2, 3] = np.nan
    report = check(tmp_path, {"id": ["a", "b", "c"], "s": frames})
    (modality,) = report.splits[0].modalities
    assert report.usable
    assert (modality.lost_frames, modality.lost_rows) == (3, 2)
    assert (modality.nonfinite_rows, modality.missing_rows, modality.zero_rows) == (0, 0, 0)
    assert "3 frames in 2 rows are lost" in said(report, "note")
    # without lengths, NaN at the end may be padding
    assert "1 rows end in such frames: give s_lengths" in said(report, "note")
    frames[1, 0, 0] = np.nan
    broken = check(tmp_path, {"id": ["a", "b", "c"], "s": frames})
    assert not broken.usable
    assert broken.splits[0].modalities[0].nonfinite_values == 1
