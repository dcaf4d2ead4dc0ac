from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omg_graph.data.dataset import group_of
from omg_graph.errors import ConfigError, DataError, EncoderError
from omg_graph.simulator import AffectSimulator, Embed, SimulatorConfig


def test_a_sample_is_a_complete_split(simulator: AffectSimulator) -> None:
    drawn = simulator.sample(3, 4, seed=0, name="valid")
    split = drawn.split
    assert split.name == "valid"
    assert {name: array.shape for name, array in split.arrays.items()} == {
        "text": (12, 384),
        "audio": (12, 74),
        "vision": (12, 35),
    }
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in split.arrays.values())
    assert split.mask().all()
    assert len(set(split.ids)) == 12
    assert split.groups == tuple(group_of(sample_id) for sample_id in split.ids)
    assert all(sample_id.startswith("synthetic-") for sample_id in split.ids)


def test_rows_agree_with_what_they_say(simulator: AffectSimulator) -> None:
    drawn = simulator.sample(5, 4, seed=1)
    assert drawn.split.labels is not None
    assert drawn.split.raw_text is not None
    for row in range(20):
        assert drawn.split.labels.values[row] == simulator.content(drawn.contents[row]).degree
        assert drawn.split.raw_text[row] == simulator.sentences.texts[drawn.sentences[row]]
        assert simulator.sentences.probabilities[drawn.contents[row], drawn.sentences[row]] > 0
    np.testing.assert_array_equal(simulator.sentence_indices(drawn.split), drawn.sentences)


def test_a_clip_does_not_depend_on_how_many_are_drawn(simulator: AffectSimulator) -> None:
    few, many = simulator.sample(2, 3, seed=7), simulator.sample(6, 5, seed=7)
    late = simulator.sample(1, 2, seed=7, first_group=1)
    rows = {sample_id: row for row, sample_id in enumerate(many.split.ids)}
    for drawn in (few, late):
        index = [rows[sample_id] for sample_id in drawn.split.ids]
        np.testing.assert_array_equal(drawn.contents, many.contents[index])
        np.testing.assert_array_equal(drawn.sentences, many.sentences[index])
        for name, array in drawn.split.arrays.items():
            np.testing.assert_allclose(array, many.split.arrays[name][index], rtol=1e-5)


def test_another_seed_gives_other_clips(simulator: AffectSimulator) -> None:
    first, second = simulator.sample(2, 3, seed=0), simulator.sample(2, 3, seed=1)
    assert not np.allclose(first.split.arrays["audio"], second.split.arrays["audio"])


def test_the_splits_of_a_corpus_have_different_speakers(simulator: AffectSimulator) -> None:
    corpus = simulator.corpus({"train": 4, "valid": 2, "test": 3}, clips_per_group=2, seed=0)
    assert {name: len(drawn.split) for name, drawn in corpus.items()} == {"train": 8, "valid": 4, "test": 6}
    groups = [group for drawn in corpus.values() for group in set(drawn.split.groups)]
    assert len(groups) == len(set(groups)) == 9


def test_drawn_clips_have_the_stated_moments(simulator: AffectSimulator) -> None:
    drawn = simulator.sample(4000, 1, seed=3)
    for name in ("audio", "vision"):
        mean, sd = simulator.moments[name]
        standardised = (drawn.split.arrays[name] - mean) / sd
        assert np.abs(standardised.mean(axis=0)).max() < 5 / np.sqrt(4000)
        assert np.abs(standardised.std(axis=0) - 1).max() < 0.06


def test_contents_come_as_often_as_the_prior_says(small_simulator: AffectSimulator) -> None:
    drawn = small_simulator.sample(4000, 1, seed=4)
    prior = small_simulator.contents.prior
    found = np.bincount(drawn.contents, minlength=len(prior)) / 4000
    assert (np.abs(found - prior) < 4.5 * np.sqrt(prior * (1 - prior) / 4000)).all()


def test_clips_of_a_speaker_resemble_each_other(simulator: AffectSimulator) -> None:
    drawn = simulator.sample(800, 2, seed=5)
    mean, sd = simulator.moments["vision"]
    standardised = ((drawn.split.arrays["vision"] - mean) / sd).reshape(800, 2, -1)
    channel = simulator.channels["vision"]
    expected = (channel.speaker_loadings**2).sum(axis=1) / sd**2
    np.testing.assert_allclose((standardised[:, 0] * standardised[:, 1]).mean(axis=0), expected, atol=0.2)
    assert (standardised[:, 0] * standardised[:, 1]).mean() == pytest.approx(expected.mean(), abs=0.03)


@pytest.mark.parametrize("numbers", [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_senseless_sizes_are_refused(simulator: AffectSimulator, numbers: tuple[int, int, int]) -> None:
    groups, clips, first = numbers
    with pytest.raises(ConfigError, match="at least 1 group"):
        simulator.sample(groups, clips, seed=0, first_group=first)


def test_a_text_from_elsewhere_is_refused(simulator: AffectSimulator) -> None:
    split = simulator.sample(1, 2, seed=0).split
    arrays = dict(split.arrays)
    arrays["text"] = np.roll(arrays["text"], 1, axis=1)
    with pytest.raises(DataError, match="none of the simulator's"):
        simulator.sentence_indices(replace(split, arrays=arrays))


def test_encoders_that_cannot_serve_are_refused(hashed_embed: Embed) -> None:
    def short(texts: list[str]) -> np.ndarray:
        return hashed_embed(texts)[:1]

    def long(texts: list[str]) -> np.ndarray:
        return 2 * hashed_embed(texts)

    def blind(texts: list[str]) -> np.ndarray:
        return hashed_embed(texts[:1] * len(texts))

    config = SimulatorConfig(entities=("music",), actions=("hesitates",))
    for embed, reason in ((short, "one vector"), (long, "length 1"), (blind, "some are equal")):
        with pytest.raises(EncoderError, match=reason):
            AffectSimulator(config, embed).sample(1, 1, seed=0)
