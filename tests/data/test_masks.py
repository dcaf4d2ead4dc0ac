"""Masks of an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from omg_graph.data.dataset import Split
from omg_graph.data.masks import MaskFile, all_patterns, random_masks
from omg_graph.data.reader import read_mapping
from omg_graph.errors import DataError


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 5))), st.floats(0, 1), st.integers(0, 9))
def test_random_masks(observed: np.ndarray, rate: float, seed: int) -> None:
    hidden = random_masks(observed, rate, seed)
    rows, columns = observed.shape
    left = observed & ~hidden
    assert not (hidden & ~observed).any()
    assert (left.any(axis=1) == observed.any(axis=1)).all()
    wanted = round(min(rate, 1 - 1 / columns) * rows * columns)
    by_nature = int((~observed).sum())
    if observed.any(axis=1).all():
        assert int((~left).sum()) == max(wanted, by_nature)
    np.testing.assert_array_equal(hidden, random_masks(observed, rate, seed))


def test_the_seed_decides() -> None:
    everything = np.ones((30, 3), bool)
    assert (random_masks(everything, 0.5, 0) != random_masks(everything, 0.5, 1)).any()
    assert random_masks(everything, 0.7, 0).mean() == pytest.approx(2 / 3, abs=1e-9)
    with pytest.raises(DataError, match=r"from 0 to 1.*1\.5"):
        random_masks(everything, 1.5, 0)


def test_all_patterns() -> None:
    assert all_patterns(2).tolist() == [[True, False], [False, True], [True, True]]
    for count in (1, 3, 6):
        patterns = all_patterns(count)
        assert len({tuple(row) for row in patterns.tolist()}) == len(patterns) == 2**count - 1
        assert patterns.any(axis=1).all()
    with pytest.raises(DataError):
        all_patterns(0)


def three() -> Split:
    content = {"id": ["a", "b", "é"], "x": np.ones((3, 1)), "y": [[1.0], None, [2.0]]}
    return read_mapping(content, source="memory").splits["data"]


def test_a_mask_is_written_and_read_by_id(tmp_path: Path) -> None:
    split = three()
    hidden = np.array([[True, False], [False, True], [False, True]])
    mask = MaskFile.of(split, hidden, seed=3, nominal_rate=0.5)
    path = tmp_path / "deep" / "mask.json"
    mask.write(path)
    mask.write(path)
    assert [file.name for file in path.parent.iterdir()] == ["mask.json"]
    again = MaskFile.read(path)
    assert again == mask
    assert again.observed == {"a": (0, 1), "b": (1, 0), "é": (1, 0)}
    assert again.realised_rate == 0.5
    assert again.hidden(split).tolist() == [[True, False], [False, False], [False, True]]
    assert again.hidden(split.take([2, 0])).tolist() == [[False, True], [True, False]]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"modalities": ["x"], "seed": 1, "nominal_rate": 0.1}',
        '{"modalities": ["x"], "seed": 1, "nominal_rate": 0.1, "observed": {"a": [2]}}',
        '{"modalities": ["x"], "seed": 1, "nominal_rate": 0.1, "observed": {"a": [1, 1]}}',
    ],
)
def test_what_is_no_mask(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mask.json"
    path.write_text(content)
    with pytest.raises(DataError, match="expected a mask file") as caught:
        MaskFile.read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="expected a mask file"):
        MaskFile.read(tmp_path / "none.json")


def test_a_mask_of_other_data_is_refused() -> None:
    split = three()
    mask = MaskFile(modalities=("x", "y"), seed=0, nominal_rate=0.0, observed={"a": (1, 1)})
    with pytest.raises(DataError, match="'b'"):
        mask.hidden(split)
    with pytest.raises(DataError, match="'y'"):
        MaskFile(modalities=("x",), seed=0, nominal_rate=0.0, observed={}).hidden(split)
