"""Which schema a data set gets: the table of the docstring, one row and column at a time."""

from __future__ import annotations

import numpy as np
import pytest

from omg_graph.data.dataset import Labels, ModalitySpec, Split
from omg_graph.errors import SchemaError
from omg_graph.planner.schema import Field, Schema
from omg_graph.planner.schema_choice import choose_schema
from omg_graph.planner.schemas import load_schema

ENGLISH = "I really liked the music of this film", "The story was terrible and so were the actors"
CHINESE = "这部电影真好看", "故事太差了"
ROWS = 40
CLASSES = Labels("emotion", "classes", np.arange(ROWS) % 2.0, ("Joy", "Anger"))


def numbers(name: str, low: float, high: float) -> Labels:
    return Labels(name, "regression", np.linspace(low, high, ROWS))


def split(labels: Labels | None = None, texts: tuple[str, str] | None = None) -> Split:
    features = np.random.default_rng(0).standard_normal((ROWS, 4)).astype(np.float32)
    return Split(
        name="train",
        ids=tuple(str(row) for row in range(ROWS)),
        groups=tuple(str(row) for row in range(ROWS)),
        modalities=(ModalitySpec(name="m", kind="vector", shape=(4,)),),
        arrays={"m": features},
        observed={"m": np.ones(ROWS, dtype=bool)},
        raw_text=None if texts is None else tuple(texts[row % 2] for row in range(ROWS)),
        labels=labels,
    )


@pytest.mark.parametrize(
    ("labels", "texts", "fields", "target"),
    [
        (CLASSES, ENGLISH, "Entity Action Class", "Class"),
        (CLASSES, CHINESE, "Class", "Class"),
        (CLASSES, None, "Class", "Class"),
        (numbers("y_label", -3, 3), ENGLISH, "Entity Action Sentiment", "Sentiment"),
        (numbers("y_label", -3, 3), CHINESE, "Sentiment", "Sentiment"),
        (numbers("regression_labels", -3, 3), None, "Sentiment", "Sentiment"),
        (numbers("y_label", -3, 3), None, "Group Variant", None),
        (numbers("age_label", 0, 90), ENGLISH, "Entity Action", None),
        (numbers("age_label", 0, 90), CHINESE, "Group Variant", None),
        (numbers("regression_labels", 0, 3), None, "Group Variant", None),
        (None, ENGLISH, "Entity Action Sentiment", "Sentiment"),
        (None, CHINESE, "Group Variant", None),
        (None, None, "Group Variant", None),
    ],
)
def test_the_table(
    labels: Labels | None, texts: tuple[str, str] | None, fields: str, target: str | None
) -> None:
    data = split(labels, texts)
    choice = choose_schema(data)
    assert choice.schema.field_names == tuple(fields.split())
    assert choice.schema.target == target
    assert len(choice.plans) == ROWS
    for plan in choice.plans:
        assert plan is not None
        assert choice.schema.violations(plan) == ()
    assert choice.note.startswith(f"plans of {', '.join(fields.split())}: ")
    assert "--" not in choice.note
    assert choose_schema(data) == choice


def test_labels_of_one_third_of_the_scale_get_degrees_in_their_units() -> None:
    choice = choose_schema(split(numbers("regression_labels", -1, 1), CHINESE))
    assert choice.schema.degrees is not None
    assert max(choice.schema.degrees.values()) == pytest.approx(1.0)
    assert choice.plans[0] == ("strongly negative",)
    assert choice.plans[-1] == ("strongly positive",)


def test_samples_without_a_label_are_left_out_unless_the_words_tell() -> None:
    labels = numbers("regression_labels", -3, 3)
    labels.values[:4] = np.nan
    silent = choose_schema(split(labels, CHINESE))
    assert silent.plans[:4] == (None,) * 4
    assert None not in silent.plans[4:]
    assert "4 of 40" in silent.note
    assert None not in choose_schema(split(labels, ENGLISH)).plans
    labels.values[:] = np.nan
    assert choose_schema(split(labels, ENGLISH)).schema == load_schema("affect")


def test_a_schema_of_the_users_is_filled_from_labels_and_text() -> None:
    affect = load_schema("affect")
    choice = choose_schema(split(numbers("mood", -3, 3), ENGLISH), affect)
    assert choice.schema == affect
    assert choice.plans[0] == ("music", "praises", "strongly negative")
    mine = Schema(
        name="mine",
        fields=(Field(name="Feeling", values=("glad", "angry")),),
        text_form="feels {Feeling}",
        target="Feeling",
        class_names={"glad": "Joy", "angry": "Anger"},
    )
    assert choose_schema(split(CLASSES), mine).plans[:2] == (("glad",), ("angry",))


def test_a_schema_that_this_data_cannot_fill_is_refused() -> None:
    affect = load_schema("affect")
    with pytest.raises(SchemaError, match=r"Entity and Action .* there is no text"):
        choose_schema(split(numbers("y_label", -3, 3)), affect)
    with pytest.raises(SchemaError, match="holds classes"):
        choose_schema(split(CLASSES, ENGLISH), affect)
    degrees = Schema(
        name="two",
        fields=(Field(name="Mood", values=("low", "high")),),
        text_form="{Mood}",
        target="Mood",
        degrees={"low": 0, "high": 1},
    )
    with pytest.raises(SchemaError, match="no labels"):
        choose_schema(split(), degrees)
    plain = Schema(
        name="plain", fields=(Field(name="Mood", values=("Joy",)),), text_form="{Mood}", target="Mood"
    )
    with pytest.raises(SchemaError, match="class labels"):
        choose_schema(split(numbers("y_label", -3, 3)), plain)
    with pytest.raises(SchemaError, match="'Anger'"):
        choose_schema(split(CLASSES), plain)
    untold = Schema(name="untold", fields=(Field(name="Mood", values=("a", "b")),), text_form="{Mood}")
    with pytest.raises(SchemaError, match="'Mood'"):
        choose_schema(split(CLASSES), untold)


def test_text_and_labels_are_left_alone_on_request() -> None:
    choice = choose_schema(split(CLASSES, ENGLISH), annotator="labels")
    assert choice.schema.field_names == ("Class",)
    assert "as asked" in choice.note
    choice = choose_schema(split(CLASSES, ENGLISH), annotator="clusters")
    assert choice.schema.field_names == ("Group", "Variant")


@pytest.mark.parametrize(("texts", "why"), [(CHINESE, "could not read"), (None, "there is no text")])
def test_text_that_is_insisted_on_must_be_readable(texts: tuple[str, str] | None, why: str) -> None:
    assert "Entity" in choose_schema(split(CLASSES, ENGLISH), annotator="lexical").schema.field_names
    with pytest.raises(SchemaError, match=rf"lexical annotator was asked.*{why}.*--annotator"):
        choose_schema(split(CLASSES, texts), annotator="lexical")
