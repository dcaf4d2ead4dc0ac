"""The lexical annotator: its rules on sentences, the languages it refuses, and real transcripts."""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from omg_graph.errors import DataError, SchemaError
from omg_graph.planner.annotator import LexicalAnnotator, PhraseTable, UnreadableTextError, english, words_of
from omg_graph.planner.schema import Field, Schema
from omg_graph.planner.schemas import class_schema, load_schema, reading_schema

AFFECT = load_schema("affect")
ANNOTATOR = LexicalAnnotator(AFFECT)


@pytest.mark.parametrize(
    ("text", "entity", "action"),
    [
        ("The plot was brilliant.", "story", "praises"),
        ("THE ACTING WAS TERRIBLE", "acting", "criticises"),
        ("AND THE SPECIAL EFFECTS WERE GREAT IN THIS MOVIE", "visuals", "praises"),
        ("I really didn't like this movie", "whole", "criticises"),
        ("Don't waste your money on this film", "whole", "warns"),
        ("I would recommend this phone to anybody", "product", "recommends"),
        ("The staff were friendly and helpful", "service", "praises"),
        ("the soundtrack is better than the first one", "music", "compares"),
        ("I guess the ending was okay, I don't know", "ending", "hesitates"),
        ("He walks into the room", "something", "describes"),
        ("a great film with a great film score, and the score lifts it", "music", "praises"),
        ("", "something", "describes"),
    ],
)
def test_what_a_sentence_is_about_and_what_it_does(text: str, entity: str, action: str) -> None:
    words = words_of(text)
    assert (ANNOTATOR.entity(words), ANNOTATOR.action(words)) == (entity, action)


def test_case_and_punctuation_change_nothing() -> None:
    text = "I didn't like the story; it wasn't good, was it?"
    plain = "I DIDNT LIKE THE STORY IT WASNT GOOD WAS IT"
    assert ANNOTATOR.annotate([text]) == ANNOTATOR.annotate([plain])


def test_valence_knows_negation_and_intensifiers() -> None:
    def valence(text: str) -> float:
        return english().valence(words_of(text))

    assert valence("it was very good") > valence("it was good") > valence("it was a little good") > 0
    assert valence("it was bad") < valence("it was not good") < 0 < valence("it was not bad")
    assert valence("the table is wooden") == 0
    assert -3 <= valence("terrible " * 30) <= valence("amazing " * 30) <= 3


def test_words_that_yaml_takes_for_booleans_stay_words() -> None:
    assert english().known_share(["no", "on"]) == 1.0
    assert english().valence(words_of("no good")) < 0


def test_the_longest_phrase_counts_and_stars_stand_for_endings() -> None:
    table = PhraseTable.of({"a": ["one two", "star*"], "b": ["one", "two three"]})
    assert table.find(["one", "two", "three", "starry", "one"]) == [
        (0, 2, "a"),
        (3, 1, "a"),
        (4, 1, "b"),
    ]


def test_sentiment_follows_the_label_and_the_words_only_without_one() -> None:
    text = "The acting was terrible"
    plans = ANNOTATOR.annotate([text, text, None, None], [2.2, math.nan, -0.4, math.nan])
    assert plans[0] == ("acting", "criticises", "positive")
    assert plans[1] == ("acting", "criticises", "strongly negative")
    assert plans[2] == ("something", "describes", "neutral")
    assert plans[3] is None
    # degrees in other units follow the words as well
    (plan,) = LexicalAnnotator(AFFECT.scaled(1 / 3)).annotate([text])
    assert plan == ("acting", "criticises", "strongly negative")


def test_classes_come_from_the_labels_alone() -> None:
    schema = class_schema(["Very Happy!", "3"], reading_schema().fields)
    plans = LexicalAnnotator(schema).annotate(["I love the music"] * 3, ["Very Happy!", "3", None])
    assert plans == [("music", "praises", "very happy!"), ("music", "praises", "3"), None]


@pytest.mark.parametrize(
    "texts",
    [
        ["这部电影真好看", "演员很好"],
        ["Der Film war leider sehr langweilig und die Schauspieler haben mir nicht gefallen."],
        ["Le film est très beau mais la fin est ratée, et les acteurs jouent mal."],
        ["La película no me gustó nada, aunque la música es muy buena."],
        ["Dit is een hele mooie film die we met plezier hebben gezien."],
        ["sehr gut", "schlecht", "Фильм"],
        ["12", "7"],
    ],
)
def test_other_languages_are_refused_with_a_way_out(texts: list[str]) -> None:
    with pytest.raises(UnreadableTextError, match=r"reads English .*100%.*--annotator labels"):
        ANNOTATOR.check_language(texts)


def test_english_is_read_even_in_two_words_or_with_a_foreign_line_among_it() -> None:
    ANNOTATOR.check_language(["great phone", "bad battery", None])
    many = ["I really liked the story and the music of it"] * 9
    ANNOTATOR.check_language([*many, "这部电影真好看"])
    assert ANNOTATOR.unread([*many, "这部电影真好看", None]).tolist() == [False] * 9 + [True, False]
    with pytest.raises(UnreadableTextError, match="there is none"):
        ANNOTATOR.check_language([None, "  "])


def test_a_schema_that_no_rule_fills_is_refused() -> None:
    mood = Schema(name="m", fields=(Field(name="Mood", values=("calm", "tense")),), text_form="{Mood}")
    with pytest.raises(SchemaError, match="'Mood'"):
        LexicalAnnotator(mood)
    for values in (("story", "weather", "something"), ("story", "acting")):
        entity = Schema(name="e", fields=(Field(name="Entity", values=values),), text_form="{Entity}")
        with pytest.raises(SchemaError, match="Entity"):
            LexicalAnnotator(entity)


def test_a_schema_with_fewer_entities_uses_those() -> None:
    few = Schema(
        name="few", fields=(Field(name="Entity", values=("music", "something")),), text_form="{Entity}"
    )
    plans = LexicalAnnotator(few).annotate(["the plot, the plot and the music", "the plot"])
    assert plans == [("music",), ("something",)]


def test_labels_must_match_the_texts() -> None:
    with pytest.raises(DataError, match="2 texts"):
        ANNOTATOR.annotate(["a", "b"], [1.0])


@pytest.mark.data
def test_real_transcripts_are_read_sensibly() -> None:
    folder = os.environ.get("OMG_DATA")
    if not folder:
        pytest.skip("OMG_DATA names no folder of real data")
    from omg_graph.data.reader import read_data_file

    split = read_data_file(Path(folder) / "mosi" / "mosi_train_valid.pkl").splits["train"]
    assert split.raw_text is not None
    assert split.labels is not None
    ANNOTATOR.check_language(split.raw_text)
    assert ANNOTATOR.unread(split.raw_text).mean() < 0.02
    truth = split.labels.values
    plans = [plan for plan in ANNOTATOR.annotate(split.raw_text, truth.tolist()) if plan is not None]
    assert len(plans) == len(split)
    entities = Counter(plan[0] for plan in plans)
    actions = Counter(plan[1] for plan in plans)
    assert entities["something"] < 0.6 * len(split)
    assert all(entities[value] > 10 for value in ("story", "acting", "characters", "visuals", "whole"))
    assert set(actions) == set(AFFECT.fields[1].values or ())
    by_action = {value: truth[[plan[1] == value for plan in plans]] for value in actions}
    assert by_action["praises"].mean() > 1 > -1 > by_action["criticises"].mean()
    assert by_action["recommends"].mean() > 0 > by_action["warns"].mean()
    valence = np.array([english().valence(words_of(text or "")) for text in split.raw_text])
    assert np.corrcoef(valence, truth)[0, 1] > 0.5
