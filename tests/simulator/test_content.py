"""What clips can say, and the sentences that say it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from omg_graph.errors import ConfigError
from omg_graph.simulator import AffectSimulator
from omg_graph.simulator.content import DEGREES, enumerate_contents, enumerate_sentences


def test_the_prior_is_a_distribution_over_different_contents() -> None:
    contents = enumerate_contents()
    assert len(set(contents.items)) == len(contents) == len(contents.prior)
    assert contents.prior.min() > 0
    assert contents.prior.sum() == pytest.approx(1.0)


def test_every_degree_carries_its_word() -> None:
    contents = enumerate_contents()
    for item in contents.items:
        assert item.sentiment == contents.words[item.degree + 3]
    assert set(contents.degree.tolist()) == set(DEGREES.tolist())


def test_all_words_are_those_of_the_affect_schema() -> None:
    schema = Path(__file__).parents[2] / "prompts" / "schemas" / "affect.yaml"
    entities, actions, sentiments = (
        field["values"] for field in yaml.safe_load(schema.read_text(encoding="utf-8"))["fields"]
    )
    contents = enumerate_contents()
    assert set(contents.entities) <= set(entities)
    assert set(contents.actions) <= set(actions)
    assert list(contents.words) == sentiments


def test_action_and_sentiment_are_correlated() -> None:
    contents = enumerate_contents()
    praise = contents.action_indicator[:, contents.actions.index("praises")] > 0
    warning = contents.action_indicator[:, contents.actions.index("warns")] > 0
    assert (contents.degree[praise] > 0).all()
    assert (contents.degree[warning] < 0).all()


def test_a_degree_that_no_action_allows_is_left_out() -> None:
    contents = enumerate_contents(entities=("music",), actions=("praises",))
    assert sorted(contents.degree.tolist()) == [1, 2, 3]
    # With one entity and one action, the prior is that of the degrees themselves: 16, 19 and 14.
    np.testing.assert_allclose(contents.prior[np.argsort(contents.degree)], np.array([16, 19, 14]) / 49)


@pytest.mark.parametrize("names", [(), ("music", "music"), ("weather",)])
def test_names_that_make_no_sense_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="entities must be different names among whole, story"):
        enumerate_contents(entities=names)


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
