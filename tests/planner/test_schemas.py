"""Schemas made from labels: names survive, and degrees are in the labels' units."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omg_graph.errors import SchemaError
from omg_graph.planner.schemas import class_schema, class_values, degree_schema, reading_schema


def test_names_are_tidied_for_the_plan_and_kept_for_the_output() -> None:
    schema = class_schema(["3", "Very  Happy!", "joy"])
    assert schema.class_names == {"3": "3", "very happy!": "Very  Happy!", "joy": "joy"}
    assert schema.target == "Class"
    assert schema.text(("very happy!",)) == "class: very happy!"
    longer = class_schema(["joy", "anger"], reading_schema().fields)
    assert longer.text(("music", "praises", "joy")) == "music: praises, joy"


def test_names_that_differ_in_case_only_keep_it() -> None:
    assert class_values(["A", "a", "B"]) == {"A": "A", "a": "a", "b": "B"}


def test_names_that_no_plan_can_hold_are_numbered() -> None:
    values = class_values(["", "a b", "a  b", "x" * 500, "class 0"])
    assert list(values.values()) == ["", "a b", "a  b", "x" * 500, "class 0"]
    assert list(values) == ["class 0 again", "class 1", "class 2", "class 3", "class 0"]


@given(st.lists(st.text(max_size=8), min_size=1, max_size=12, unique=True))
def test_any_names_make_a_schema_that_gives_each_of_them_back(names: list[str]) -> None:
    schema = class_schema(names)
    assert schema.class_names is not None
    assert list(schema.class_names.values()) == names
    assert all(schema.violations((value,)) == () for value in schema.class_names)


def test_no_classes_or_doubled_ones_are_refused() -> None:
    with pytest.raises(SchemaError, match="expected class names, got none"):
        class_schema([])
    with pytest.raises(SchemaError, match="differ"):
        class_schema(["a", "a"])


def test_degrees_are_in_the_labels_units() -> None:
    schema = degree_schema(1 / 3)
    assert schema.nearest_value(1.0) == "strongly positive"
    assert schema.nearest_value(-0.3) == "weakly negative"
    assert schema.text(("neutral",)) == "neutral sentiment"
    assert degree_schema().nearest_value(1.0) == "weakly positive"
