"""Plans that a person changes: spelt as the schema does, and never against it."""

from __future__ import annotations

import pytest

from omg_graph.errors import PlanError
from omg_graph.planner.editing import edited_plan
from omg_graph.planner.schema import Field, Schema

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
        ({"Colour": "red"}, "one of the fields Shape, Size, Note was expected, 'Colour' came"),
        ({"Shape": "oval"}, "Shape can't be 'oval': one of circle, Square, square was expected"),
        ({"Shape": "Square"}, "Size can't be 'small' after 'Square': one of large was expected"),
        ({"Note": "far too many"}, "Note takes 1 to 2 words on one line, 'far too many' came"),
        ({"Note": " "}, "Note takes 1 to 2 words on one line, '' came"),
    ],
)
def test_what_the_schema_refuses(changes: dict[str, str], told: str) -> None:
    with pytest.raises(PlanError, match=told):
        edited_plan(SCHEMA, PLAN, changes)
