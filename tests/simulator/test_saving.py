"""Simulated clips as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from omg_graph.data.dataset import Split
from omg_graph.data.reader import read_data_file
from omg_graph.errors import DataError
from omg_graph.simulator import AffectSimulator
from omg_graph.simulator.saving import save_corpus


@pytest.fixture
def splits(small_simulator: AffectSimulator) -> dict[str, Split]:
    corpus = small_simulator.corpus({"train": 3, "valid": 1}, 2, seed=0)
    return {name: simulated.split for name, simulated in corpus.items()}


@pytest.mark.parametrize("name", ["clips.npz", "clips.pkl"])
def test_what_is_read_is_what_was_written(splits: dict[str, Split], tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    save_corpus(path, splits)
    read = read_data_file(path).splits
    assert list(read) == list(splits)
    for key, split in splits.items():
        came = read[key]
        assert (came.ids, came.groups, came.raw_text) == (split.ids, split.groups, split.raw_text)
        assert came.modalities == split.modalities
        assert came.mask().all()
        for modality in split.names:
            np.testing.assert_array_equal(came.arrays[modality], split.arrays[modality])
        assert came.labels is not None
        assert split.labels is not None
        assert (came.labels.name, came.labels.kind) == (split.labels.name, split.labels.kind)
        np.testing.assert_array_equal(came.labels.values, split.labels.values)


@pytest.mark.parametrize("name", ["clips.npz", "clips.pkl"])
def test_the_same_clips_give_the_same_bytes(splits: dict[str, Split], tmp_path: Path, name: str) -> None:
    save_corpus(tmp_path / f"a-{name}", splits)
    save_corpus(tmp_path / f"b-{name}", splits)
    assert (tmp_path / f"a-{name}").read_bytes() == (tmp_path / f"b-{name}").read_bytes()


def test_another_ending_is_refused(splits: dict[str, Split], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\.npz or \.pkl"):
        save_corpus(tmp_path / "clips.csv", splits)
    assert not list(tmp_path.iterdir())


def test_incomplete_clips_are_refused(splits: dict[str, Split], tmp_path: Path) -> None:
    train = splits["train"]
    missing = np.zeros(train.mask().shape, dtype=bool)
    missing[0, 1] = True
    for broken in (train.hide(missing), train.without_labels(), replace(train, raw_text=None)):
        with pytest.raises(DataError, match="complete clips"):
            save_corpus(tmp_path / "clips.npz", {"train": broken})
