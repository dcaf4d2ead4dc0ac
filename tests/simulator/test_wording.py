from __future__ import annotations

import re

import numpy as np
import pytest

from omg_graph.simulator import AffectSimulator
from omg_graph.simulator.content import enumerate_contents
from omg_graph.simulator.wording import enumerate_sentences


def test_every_content_says_something_with_probability_one(simulator: AffectSimulator) -> None:
    probabilities = simulator.sentences.probabilities
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=0, atol=1e-12)


def test_sentences_are_different_and_all_can_be_said(simulator: AffectSimulator) -> None:
    texts = simulator.sentences.texts
    assert len(set(texts)) == len(texts)
    assert 1000 < len(texts) < 5000
    assert (simulator.sentences.probabilities.max(axis=0) > 0).all()


def test_sentences_read_as_english(simulator: AffectSimulator) -> None:
    for text in simulator.sentences.texts:
        assert re.fullmatch(r"[A-Z][A-Za-z ,:.'?]*[.?]", text), text
        assert "  " not in text
        assert not re.search(r"\b(characters|visuals|conversations|people in it) was\b", text), text
        assert not re.search(r"\b(story|plot|music|ending|part|thing) were\b", text), text


def test_a_probability_worked_out_by_hand() -> None:
    contents = enumerate_contents(entities=("story",), actions=("hesitates",))
    sentences = enumerate_sentences(contents)
    row = contents.degree.tolist().index(1)
    # named (.88) one of two ways, no open line (.66), one of two frames, weight 2 of 2 + 2 + .5
    expected = 0.88 / 2 * 0.66 / 2 * 2 / 4.5
    column = sentences.texts.index("I keep going back and forth on the plot, but I am leaning towards yes.")
    assert sentences.probabilities[row, column] == pytest.approx(expected)


def test_some_sentences_leave_polarity_and_entity_open(simulator: AffectSimulator) -> None:
    contents, possible = simulator.contents, simulator.sentences.probabilities > 0
    both = possible[contents.degree > 0].any(axis=0) & possible[contents.degree < 0].any(axis=0)
    entities = np.stack(
        [possible[column > 0].any(axis=0) for column in contents.entity_indicator.T], axis=0
    ).sum(axis=0)
    assert 0.05 < both.mean() < 0.5
    assert set(entities.tolist()) == {1, len(contents.entities)}
