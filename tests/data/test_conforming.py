"""A split made to fit a model, and modalities hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from omg_graph.data.dataset import ModalityKind, ModalitySpec, Split
from omg_graph.data.reader import read_mapping
from omg_graph.data.splits import conform, hide_modalities
from omg_graph.errors import DataError


def split_of(**fields: Any) -> Split:
    (split,) = read_mapping({"id": ["a", "b"], **fields}, source="memory").splits.values()
    return split


def spec(name: str, kind: ModalityKind, *shape: int) -> ModalitySpec:
    return ModalitySpec(name=name, kind=kind, shape=shape)


def test_what_fits_is_left_alone() -> None:
    split = split_of(x=np.ones((2, 3)), y=np.ones((2, 4, 2)))
    result, notes = conform(split, split.modalities, "file")
    assert not notes
    assert result.modalities == split.modalities
    for name in split.names:
        np.testing.assert_array_equal(result.arrays[name], split.arrays[name])


def test_an_absent_modality_is_missing_in_every_row_and_an_unknown_one_left_out() -> None:
    split = split_of(raw_text=["p", "q"], x=np.ones((2, 3)), z=np.ones((2, 9)))
    result, notes = conform(split, [spec("text", "sequence", 4, 5), spec("x", "vector", 3)], "file")
    assert result.names == ("text", "x")
    assert result.mask().tolist() == [[False, True], [False, True]]
    assert result.arrays["text"].shape == (2, 4, 5)
    assert result.raw_text == ("p", "q")
    assert any("text" in note for note in notes)
    assert any("z left out" in note for note in notes)


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        ((3,), spec("x", "sequence", 1, 3)),
        ((1, 3), spec("x", "vector", 3)),
        ((4, 3), spec("x", "image", 1, 4, 3)),
        ((1, 4, 3), spec("x", "image", 4, 3)),
        ((1, 1, 3), spec("x", "vector", 3)),
    ],
)
def test_axes_of_length_one_come_and_go(shape: tuple[int, ...], wanted: ModalitySpec) -> None:
    values = np.arange(2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    result, _ = conform(split_of(x=values), [wanted], "file")
    assert result.arrays["x"].shape == (2, *wanted.shape)
    assert result.arrays["x"].ravel().tolist() == values.ravel().tolist()


def test_shorter_sequences_are_padded() -> None:
    result, _ = conform(
        split_of(x=[np.ones((2, 3)), None], y=np.ones((2, 1))),
        [spec("x", "sequence", 4, 3), spec("y", "vector", 1)],
        "file",
    )
    assert result.arrays["x"].sum(axis=(1, 2)).tolist() == [6.0, 0.0]
    assert result.lengths["x"].tolist() == [2, 0]


def test_longer_sequences_are_cut_only_where_they_are_padding() -> None:
    wanted = [spec("x", "sequence", 2, 1)]
    padded = split_of(x=np.ones((2, 4, 1)), x_lengths=[2, 1])
    result, _ = conform(padded, wanted, "file")
    assert result.arrays["x"][:, :, 0].tolist() == [[1, 1], [1, 0]]
    with pytest.raises(DataError, match="at most 2 x 1"):
        conform(split_of(x=np.ones((2, 4, 1)), x_lengths=[2, 3]), wanted, "file")


@pytest.mark.parametrize(
    ("shape", "wanted", "words"),
    [
        ((4,), spec("x", "vector", 3), "3 numbers.*4 came"),
        ((2, 4), spec("x", "sequence", 2, 3), "2 x 3 .*2 x 4 came"),
        ((1, 5), spec("x", "sequence", 5, 1), "5 x 1"),
        ((6,), spec("x", "image", 2, 3), "2 x 3"),
    ],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], wanted: ModalitySpec, words: str) -> None:
    with pytest.raises(DataError, match=f"file: data: modality 'x'.*{words}"):
        conform(split_of(x=np.ones((2, *shape))), [wanted], "file")


def test_rows_with_nothing_observed() -> None:
    split = split_of(x=[[1.0], None], y=np.ones((2, 2)))
    wanted = [spec("x", "vector", 1)]
    with pytest.raises(DataError, match="nothing is observed in row 'b'"):
        conform(split, wanted, "file")
    dropped, notes = conform(split, wanted, "file", empty_rows="drop")
    assert dropped.ids == ("a",)
    assert any("1 rows" in note for note in notes)
    kept, _ = conform(split, wanted, "file", empty_rows="keep")
    assert kept.ids == ("a", "b")
    with pytest.raises(DataError, match="in any row"):
        conform(split, [spec("z", "vector", 1)], "file", empty_rows="drop")


def test_an_empty_split_is_refused() -> None:
    split = split_of(x=np.ones((2, 1))).take([])
    with pytest.raises(DataError, match="empty"):
        conform(split, split.modalities, "file")


def test_hiding() -> None:
    split = split_of(raw_text=["p", "q"], text=np.ones((2, 3)), audio=[[1.0], None])
    result, hidden = hide_modalities(split.take([0]), ["text", "text"])
    assert hidden.tolist() == [[True, False]]
    assert result.raw_text == (None,)
    assert not result.arrays["text"].any()
    # a row may be left with nothing, where others aren't
    assert hide_modalities(split, ["text"])[0].mask().tolist() == [[False, True], [False, False]]
    with pytest.raises(DataError, match=r"text, audio.*'video'"):
        hide_modalities(split, ["video"])


def test_hiding_what_is_missing_anyway_is_no_error() -> None:
    split = split_of(text=np.ones((2, 3)), audio=[[1.0], None])
    result, hidden = hide_modalities(split, ["audio"])
    assert hidden.tolist() == [[False, True], [False, False]]
    assert result.mask().tolist() == [[True, False], [True, False]]


def test_lost_frames_are_padded_with_their_sequence_and_need_one() -> None:
    frames = np.ones((2, 3, 2))
    frames[0, 1] = np.nan
    result, _ = conform(split_of(s=frames), [spec("s", "sequence", 5, 2)], "file")
    assert result.lost["s"].tolist() == [[False, True, False, False, False], [False] * 5]
    assert result.lengths["s"].tolist() == [3, 3]
    flat = frames[:, :, :1]
    with pytest.raises(DataError, match="the model knows no frames of it"):
        conform(split_of(s=flat), [spec("s", "vector", 3)], "file")


def test_a_hidden_sequence_keeps_its_gaps_out_of_sight() -> None:
    """What is lost stays known, so that errors leave it out; nothing that is observed has gaps then."""
    frames = np.ones((2, 3, 2))
    frames[0, 1] = np.nan
    hidden, _ = hide_modalities(split_of(s=frames, x=np.ones((2, 1))), ["s"])
    assert hidden.lost["s"].any()
    assert hidden.gaps("s") is None
