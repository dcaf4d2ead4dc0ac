"""``omg simulate``."""

from __future__ import annotations

import pytest

from omg_graph.cli.simulate import speakers_of_splits


@pytest.mark.parametrize("speakers", [1, 2, 3, 4, 10, 101])
def test_every_speaker_is_in_one_split(speakers: int) -> None:
    counts = speakers_of_splits(speakers)
    assert sum(counts.values()) == speakers
    assert min(counts.values()) >= 1
    assert counts["train"] == max(counts.values())


def test_three_speakers_are_enough_for_three_splits() -> None:
    assert speakers_of_splits(2) == {"train": 2}
    assert speakers_of_splits(3) == {"train": 1, "valid": 1, "test": 1}
