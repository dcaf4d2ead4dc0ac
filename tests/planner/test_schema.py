"""Schemas: what obeys them, the text that g embeds, numbers to words, and files that make no sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omg_graph.errors import PlanError, SchemaError
from omg_graph.planner.schema import Field, Schema, edited_plan
from omg_graph.planner.schemas import load_schema, parse_schema, schema_names

AFFECT = load_schema("affect")

GOOD = """\
name: shapes
fields:
  - name: Shape
    values: [circle, square]
  - name: Size
    values:
      - small
      - large
text_form: "{Size} {Shape}"
target: Size
degrees: {small: 0, large: 1}
"""


def test_the_default_schema_is_entity_action_sentiment_in_seven_degrees() -> None:
    assert AFFECT.field_names == ("Entity", "Action", "Sentiment")
    assert AFFECT.degrees is not None
    assert sorted(AFFECT.degrees.values()) == [-3, -2, -1, 0, 1, 2, 3]
    assert AFFECT.target_index == 2
    assert schema_names() == ("affect", "affect_zh")
    for field in AFFECT.fields:
        assert field.description
        assert all(value == value.lower() for value in field.values or ())


def test_the_chinese_one_has_the_same_fields_and_the_degrees_of_ch_sims() -> None:
    schema = load_schema("affect_zh")
    assert schema.field_names == AFFECT.field_names
    assert schema.text(("作品", "称赞", "积极")) == "作品：称赞，积极"
    assert [schema.nearest_value(number) for number in (-1.0, -0.6, 0.0, 0.2, 0.8)] == [
        "强烈消极",
        "消极",
        "中性",
        "略微积极",
        "积极",
    ]
    for field in schema.fields:
        assert set(field.meanings) <= set(field.values or ())
        assert not any("a" <= letter.lower() <= "z" for value in field.values or () for letter in value)


def test_texts_of_a_plan() -> None:
    plan = ("story", "praises", "strongly positive")
    assert AFFECT.text(plan) == "story: praises, strongly positive"
    assert AFFECT.constraint_texts(plan) == (
        "Entity: story",
        "Action: praises",
        "Sentiment: strongly positive",
    )
    with pytest.raises(PlanError, match="3 constraints"):
        AFFECT.text(plan[:2])


def test_violations_name_the_field_at_fault() -> None:
    assert AFFECT.violations(("story", "praises", "neutral")) == ()
    assert AFFECT.violations(("story", "praises")) == ("expected 3 constraints, got 2",)
    wrong = AFFECT.violations(("story", "Praises", "great"))
    assert [phrase.split()[0] for phrase in wrong] == ["Action", "Sentiment"]


def test_free_text_is_counted_in_words_on_one_line() -> None:
    schema = Schema(name="free", fields=(Field(name="Note", max_words=2),), text_form="{Note}")
    assert schema.violations(("two words",)) == ()
    for bad in ("", "one two three", "one\ntwo", " one", "one  two"):
        assert schema.violations((bad,)), bad


def test_values_within_depend_on_the_field_before() -> None:
    schema = Schema(
        name="fine",
        fields=(
            Field(name="Coarse", values=("a", "b")),
            Field(name="Fine", values=("x", "y"), within={"a": ("x",), "b": ("x", "y")}),
        ),
        text_form="{Coarse} {Fine}",
    )
    assert schema.violations(("b", "y")) == ()
    assert "after 'a'" in schema.violations(("a", "y"))[0]
    assert schema.violations(("c", "x"))


@given(st.floats(-5, 5))
def test_the_nearest_word_is_that_of_acc7(number: float) -> None:
    degree = float(np.round(np.clip(number, -3, 3)))
    assert AFFECT.degrees is not None
    assert AFFECT.degrees[AFFECT.nearest_value(number)] == degree


@given(st.floats(-3, 3).filter(lambda number: abs(abs(number) % 1 - 0.5) > 1e-6))
def test_scaled_degrees_give_the_same_words(number: float) -> None:
    assert AFFECT.scaled(1 / 3).nearest_value(number / 3) == AFFECT.nearest_value(number)


def test_a_schema_without_degrees_has_no_nearest_word() -> None:
    schema = Schema(name="s", fields=(Field(name="A", values=("a",)),), text_form="{A}")
    assert schema.scaled(2.0) is schema
    with pytest.raises(PlanError, match="no numeric target"):
        schema.nearest_value(1.0)


def test_json_keeps_everything_and_the_fingerprint_follows_the_content() -> None:
    again = Schema.from_json(AFFECT.to_json())
    assert again == AFFECT
    assert again.fingerprint == AFFECT.fingerprint
    assert AFFECT.scaled(2.0).fingerprint != AFFECT.fingerprint
    with pytest.raises(SchemaError, match="fields"):
        Schema.from_json('{"name": "x", "text_form": ""}')


def test_a_users_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, encoding="utf-8")
    assert load_schema(path).text(("circle", "large")) == "large circle"
    with pytest.raises(SchemaError, match=r"affect.*can't be read"):
        load_schema(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("old", "new", "line", "reason"),
    [
        ("[circle, square]", "[circle, circle]", 4, "twice"),
        ("[circle, square]", "[yes, no]", 4, "quotes"),
        ("[circle, square]", "[]", 4, "no values"),
        ("[circle, square]", "[' circle', square]", 4, "single spaces"),
        ("    values: [circle, square]\n", "", 3, "either values or max_words"),
        ("    values: [circle, square]\n", "    max_words: 99\n", 4, "max_words"),
        ("      - large\n", "      - 3\n", 8, "quotes"),
        ("- name: Size", "- name: Shape", 5, "two fields"),
        ("- name: Size", "- name: a b", 5, "letters"),
        ("{Size} {Shape}", "{Size} {Colour}", 9, "'Colour'"),
        ("{Size} {Shape}", "{Size}", 9, "leaves out Shape"),
        ("{Size} {Shape}", "{Size} {Shape", 9, "can't be read"),
        ("{Size} {Shape}", "{Size!r} {Shape}", 9, "nothing added"),
        ("target: Size", "target: Colour", 10, "'Colour'"),
        ("target: Size\n", "", 10, "needs a target"),
        ("large: 1", "huge: 1", 11, "'huge'"),
        ("large: 1", "large: 0", 11, "same meaning"),
        ("large: 1", "large: .inf", 11, "finite"),
        ("name: shapes", "name: shapes\nname: forms", 2, "twice"),
        ("name: shapes", "name: shapes\nsize: 3", 2, "not a setting"),
        ("name: shapes", "name: [", 3, "not YAML"),
    ],
)
def test_a_schema_that_makes_no_sense_is_refused_at_its_line(
    old: str, new: str, line: int, reason: str
) -> None:
    assert old in GOOD
    with pytest.raises(SchemaError) as refusal:
        parse_schema(GOOD.replace(old, new, 1), "mine.yaml")
    message = str(refusal.value)
    assert message.startswith(f"mine.yaml, line {line}: ")
    assert reason in message
    assert "\n" not in message


def test_what_is_no_mapping_is_refused() -> None:
    for text in ("", "- a\n", "3"):
        with pytest.raises(SchemaError, match="line 1: a schema is a mapping"):
            parse_schema(text, "mine.yaml")


SCHEMA = Schema(
    name="toy",
    fields=(
        Field(name="Shape", values=("circle", "Square", "square")),
        Field(
            name="Size",
            values=("small", "large"),
            within={"circle": ("small",), "Square": ("large",), "square": ("small", "large")},
        ),
        Field(name="Note", max_words=2),
    ),
    text_form="{Shape}, {Size}: {Note}",
)
PLAN = ("circle", "small", "plain")


def test_values_are_put_in_and_the_others_stay() -> None:
    assert edited_plan(SCHEMA, PLAN, {}) == PLAN
    assert edited_plan(SCHEMA, PLAN, {"Note": "  with   holes "}) == ("circle", "small", "with holes")
    assert edited_plan(SCHEMA, PLAN, {"Shape": "square", "Size": "large"}) == ("square", "large", "plain")


def test_case_is_as_the_schema_writes_it_where_it_leaves_no_doubt() -> None:
    assert edited_plan(SCHEMA, PLAN, {"SHAPE": "CIRCLE", "size": "Small"}) == PLAN
    with pytest.raises(PlanError, match="Shape can't be 'SQUARE'"):
        edited_plan(SCHEMA, PLAN, {"Shape": "SQUARE"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"Colour": "red"}, "expected one of the fields Shape, Size, Note, got 'Colour'"),
        ({"Shape": "oval"}, "Shape can't be 'oval': one of circle, Square, square was expected"),
        ({"Shape": "Square"}, "Size can't be 'small' after 'Square': one of large was expected"),
        ({"Note": "far too many"}, "Note takes 1 to 2 words on one line, not 'far too many'"),
        ({"Note": " "}, "Note takes 1 to 2 words on one line, not ''"),
    ],
)
def test_what_the_schema_refuses(changes: dict[str, str], told: str) -> None:
    with pytest.raises(PlanError, match=told):
        edited_plan(SCHEMA, PLAN, changes)
