from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from omg_graph.errors import ConfigError
from omg_graph.simulator.content import DEGREES, enumerate_contents


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
