"""``omg simulate``."""

from __future__ import annotations

from pathlib import Path

import pytest

from omg_graph.cli import main
from omg_graph.cli.options import model_folder
from omg_graph.cli.simulate import speakers_of_splits
from omg_graph.data.reader import read_data_file
from omg_graph.model.folder import KNOWLEDGE_BASE
from omg_graph.retriever.entries import KnowledgeBase


@pytest.mark.parametrize("speakers", [1, 2, 3, 4, 10, 101])
def test_every_speaker_is_in_one_split(speakers: int) -> None:
    counts = speakers_of_splits(speakers)
    assert sum(counts.values()) == speakers
    assert min(counts.values()) >= 1
    assert counts["train"] == max(counts.values())


def test_three_speakers_are_enough_for_three_splits() -> None:
    assert speakers_of_splits(2) == {"train": 2}
    assert speakers_of_splits(3) == {"train": 1, "valid": 1, "test": 1}


@pytest.mark.parametrize("seed", [0, 3])
def test_speakers_are_strangers_to_the_embedded_model(
    tmp_path: Path, hashed_sentences: None, seed: int
) -> None:
    path = tmp_path / "clips.npz"
    assert (
        main(["simulate", "--output", str(path), "--speakers", "3", "--clips", "2", "--seed", str(seed)]) == 0
    )
    groups = {group for split in read_data_file(path).splits.values() for group in split.groups}
    assert groups == {f"synthetic-s{seed}-{number:04d}" for number in range(3)}
    assert not groups & set(KnowledgeBase.load(model_folder(None) / KNOWLEDGE_BASE).groups)
