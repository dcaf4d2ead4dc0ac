"""Words to tokens, and the grammar: exactly the schema's plans, no more and no fewer."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omg_graph.errors import ModelError, PlanError, SchemaError
from omg_graph.planner.schema import Field, Plan, Schema
from omg_graph.planner.schemas import load_schema
from omg_graph.planner.vocabulary import Vocabulary

PHRASES = st.lists(st.sampled_from(["a", "b", "c", "<end>"]), min_size=1, max_size=3).map(" ".join)


def every_plan(vocabulary: Vocabulary, plan: Plan = (), written: tuple[int, ...] = ()) -> Iterator[Plan]:
    """Walk everything that the grammar allows."""
    if len(plan) == len(vocabulary.schema.fields):
        yield plan
        return
    for token in vocabulary.following(plan, written):
        if token == vocabulary.end:
            yield from every_plan(vocabulary, (*plan, vocabulary.text_of(written)))
        else:
            yield from every_plan(vocabulary, plan, (*written, token))


@given(st.lists(PHRASES, min_size=1, max_size=6, unique=True), st.data())
def test_the_grammar_allows_what_the_schema_allows(values: list[str], data: st.DataObject) -> None:
    fine = ("x", "x y", "z")
    within = {
        value: tuple(data.draw(st.lists(st.sampled_from(fine), min_size=1, unique=True))) for value in values
    }
    schema = Schema(
        name="s",
        fields=(Field(name="A", values=tuple(values)), Field(name="B", values=fine, within=within)),
        text_form="{A} {B}",
    )
    found = list(every_plan(Vocabulary(schema)))
    wanted = {plan for plan in product(values, fine) if not schema.violations(plan)}
    assert len(found) == len(set(found))
    assert set(found) == wanted


def test_free_text_has_one_to_max_words() -> None:
    schema = Schema(name="s", fields=(Field(name="Note", max_words=2),), text_form="{Note}")
    found = set(every_plan(Vocabulary(schema, ["b a"])))
    assert found == {("a",), ("b",), ("a a",), ("a b",), ("b a",), ("b b",)}
    beside = Schema(
        name="s", fields=(Field(name="A", values=("x y",)), *schema.fields), text_form="{A} {Note}"
    )
    assert {plan[1] for plan in every_plan(Vocabulary(beside, ["b"]))} == {"b", "b b"}
    with pytest.raises(SchemaError, match="free text"):
        Vocabulary(schema, [" "])


def test_scaffolding_counts_for_no_field() -> None:
    vocabulary = Vocabulary(load_schema("affect"))
    encoded = vocabulary.encode(("story", "praises", "strongly positive"))
    assert [vocabulary.tokens[token] for token in encoded.tokens] == [
        "<Entity>", "story", "<end>", "<Action>", "praises", "<end>",
        "<Sentiment>", "strongly positive", "<end>",
    ]  # fmt: skip
    assert encoded.levels == (-1, 0, 0, -1, 1, 1, -1, 2, 2)
    with pytest.raises(PlanError, match="Sentiment"):
        vocabulary.encode(("story", "praises", "great"))


def test_json_keeps_the_tokens_and_belongs_to_its_schema() -> None:
    schema = Schema(
        name="s",
        fields=(Field(name="A", values=("x", "y z")), Field(name="Note", max_words=2)),
        text_form="{A}: {Note}",
    )
    vocabulary = Vocabulary(schema, ["seen", "y often"])
    assert Vocabulary.from_json(vocabulary.to_json(), schema).tokens == vocabulary.tokens
    earlier = vocabulary.to_json().replace('"whole_values": true', '"whole_values": false')
    with pytest.raises(ModelError, match="train the model again"):
        Vocabulary.from_json(earlier, schema)
    with pytest.raises(ModelError, match="others"):
        Vocabulary.from_json(vocabulary.to_json(), load_schema("affect"))
    with pytest.raises(ModelError, match="damaged"):
        Vocabulary.from_json("{", schema)
