"""Reading answers: strict JSON, log-probabilities by offsets, and agreement."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omg_graph.planner.answers import (
    FROM_AGREEMENT,
    FROM_MODEL,
    Answer,
    MalformedAnswerError,
    agreement,
    candidates_of,
    read_arguments,
    read_text,
)
from omg_graph.planner.schema import Schema
from omg_graph.record.trajectory import PlanOrigin

SCHEMA = Schema.model_validate(
    {
        "name": "two",
        "fields": [{"name": "What", "max_words": 4}, {"name": "How", "values": ["good", "bad"]}],
        "text_form": "{What}: {How}",
    }
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def spelt(*pieces: tuple[str | bytes, float]) -> list[dict[str, Any]]:
    """Tokens as chat completions report them."""
    tokens = []
    for piece, probability in pieces:
        raw = piece if isinstance(piece, bytes) else piece.encode()
        tokens.append({"token": raw.decode("utf-8", "replace"), "bytes": list(raw), "logprob": probability})
    return tokens


@given(what=TEXT, how=TEXT, indent=st.sampled_from([None, 2]), ascii_only=st.booleans())
def test_whatever_json_writes_is_read(what: str, how: str, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps({"What": what, "How": how}, indent=indent, ensure_ascii=ascii_only)
    assert read_text(text, SCHEMA) == Answer((what, how))
    assert read_text(f"```json\n{text}\n```\n", SCHEMA) == Answer((what, how))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What: story, How: good",
        '{"What": "story", "How": "good"',
        '{"What": "story"}',
        '{"How": "good", "What": "story"}',
        '{"What": "story", "How": "good", "Why": "so"}',
        '{"What": "story", "What": "music", "How": "good"}',
        '{"What": 3, "How": "good"}',
        '{"What": ["story"], "How": "good"}',
        '{"What": "\\ud800", "How": "good"}',
        '[{"What": "story", "How": "good"}]',
        '{"What": "story", "How": "good"} {"What": "story", "How": "bad"}',
        'Here it is: {"What": "story", "How": "good"}',
    ],
)
def test_anything_else_is_malformed(text: str) -> None:
    with pytest.raises(MalformedAnswerError) as raised:
        read_text(text, SCHEMA)
    assert "story" not in str(raised.value)


def test_sums_run_over_a_values_tokens_and_its_closing_quote() -> None:
    tokens = spelt(
        ('{"', -9.0), ("What", -9.0), ('":"', -9.0), ("the", -1.0), (" story", -2.0), ('","', -4.0),
        ("How", -9.0), ('":', -9.0), (' "go', -0.5), ("od", -0.25), ('"', -0.125), ("}", -9.0),
    )  # fmt: skip
    text = "".join(token["token"] for token in tokens)
    answer = read_text(text, SCHEMA, tokens)
    assert answer.plan == ("the story", "good")
    assert answer.log_probabilities == (-7.0, -0.875)
    assert answer.token_counts == (3, 3)


def test_a_token_may_be_part_of_a_letter_and_others_may_stand_around_the_text() -> None:
    first, second = "映".encode()[:1], "映".encode()[1:]
    tokens = spelt(
        ("<begin>", -9.0), ('{"What":"', -9.0), (first, -1.0), (second, -2.0), ("画", -4.0), ('"', -8.0),
        (',"How":"', -9.0), ('bad"', -16.0), ("}", -9.0), ("<end>", -9.0),
    )  # fmt: skip
    answer = read_text('{"What":"映画","How":"bad"}', SCHEMA, tokens)
    assert answer.log_probabilities == (-15.0, -16.0)
    assert answer.token_counts == (4, 1)


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        spelt(('{"What":"a","How":"good"}', -1.0)),
        spelt(('{"What":"a","How":"bad"}', -math.inf)),
        [{"token": '{"What":"a","How":"bad"}'}],
        [{"bytes": [300], "logprob": -1.0}],
    ],
)
def test_tokens_that_do_not_spell_the_answer_tell_nothing(tokens: list[dict[str, Any]]) -> None:
    assert read_text('{"What":"a","How":"bad"}', SCHEMA, tokens) == Answer(("a", "bad"))


def test_arguments_of_a_tool_call() -> None:
    assert read_arguments({"What": "a", "How": "bad"}, SCHEMA) == Answer(("a", "bad"))
    for wrong in ({"How": "bad", "What": "a"}, {"What": "a"}, {"What": "a", "How": None}):
        with pytest.raises(MalformedAnswerError):
            read_arguments(wrong, SCHEMA)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("cd")), min_size=1, max_size=9))
def test_agreement_is_the_chain_of_shares(plans: list[tuple[str, str]]) -> None:
    for plan in plans:
        whole = sum(agreement(plan, plans))
        assert whole == pytest.approx(math.log(plans.count(plan) / len(plans)))
        assert max(agreement(plan, plans)) <= 0


def test_agreement_by_hand() -> None:
    plans = [("a", "c"), ("a", "c"), ("a", "d"), ("b", "c")]
    assert agreement(("a", "c"), plans) == pytest.approx((math.log(3 / 4), math.log(2 / 3)))


def test_one_answer_without_probabilities_makes_all_of_them_agreement() -> None:
    told, silent = Answer(("a", "bad"), (-1.0, -2.0), (2, 3)), Answer(("a", "bad"))
    about = PlanOrigin(planner="p", prompt_version="1", prompt_sha256="0")
    (known,) = candidates_of(SCHEMA, [told], about)
    assert (known.log_probabilities, known.token_counts) == ((-1.0, -2.0), (2, 3))
    assert known.origin is not None
    assert known.origin.confidence == FROM_MODEL
    for mixed in candidates_of(SCHEMA, [told, silent], about):
        assert mixed.log_probabilities == (0.0, 0.0)
        assert mixed.token_counts == (0, 0)
        assert mixed.origin is not None
        assert mixed.origin.confidence == FROM_AGREEMENT
