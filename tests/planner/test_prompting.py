"""What a language model is told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omg_graph.errors import ConfigError
from omg_graph.planner.prompting import json_schema, load_prompt, sample_message
from omg_graph.planner.schema import Schema
from omg_graph.planner.schema_files import load_schema

PROMPTS = Path(__file__).parents[2] / "prompts"
AFFECT = load_schema(PROMPTS / "schemas" / "affect.yaml")
CHAINED = Schema.model_validate(
    {
        "name": "chained",
        "fields": [
            {"name": "Half", "values": ["low", "high"]},
            {"name": "Place", "values": ["one", "two"], "within": {"low": ["one"], "high": ["one", "two"]}},
            {"name": "Remark", "max_words": 6},
        ],
        "text_form": "{Half} {Place} {Remark}",
    }
)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_prompt_names_every_field_and_value(language: str) -> None:
    prompt = load_prompt(language)  # type: ignore[arg-type]
    assert prompt.sha256 == hashlib.sha256((PROMPTS / f"planner_{language}.md").read_bytes()).hexdigest()
    assert prompt.version.isdigit()
    told = prompt.system_message(AFFECT)
    assert "{{" not in told
    assert not told.startswith("version")
    for field in AFFECT.fields:
        assert f" {field.name}" in told
        assert all(json.dumps(value) in told for value in field.values or ())
        assert all(meaning in told for meaning in field.meanings.values())
    assert "transcript" in told


def test_what_may_follow_what_and_how_many_words_are_told() -> None:
    told = load_prompt().system_message(CHAINED)
    assert 'after "low": "one"' in told
    assert "at most 6 words" in told


def test_another_language_is_refused() -> None:
    with pytest.raises(ConfigError, match="en, zh"):
        load_prompt("fr")  # type: ignore[arg-type]


@given(transcript=st.none() | st.text(st.characters(exclude_categories=["Cs"])))
def test_a_transcript_stays_a_string_in_one_json_document(transcript: str | None) -> None:
    message = sample_message(transcript, ["text"], ["audio"])
    assert json.loads(message) == {"observed": ["text"], "missing": ["audio"], "transcript": transcript}
    assert "\n" not in message


def test_half_a_letter_can_be_sent() -> None:
    assert json.loads(sample_message("a\ud800b", [], []).encode())["transcript"] == "a?b"


def test_the_json_schema_lists_fields_in_order() -> None:
    made = json_schema(CHAINED)
    assert list(made["properties"]) == made["required"] == ["Half", "Place", "Remark"]
    assert made["properties"]["Half"]["enum"] == ["low", "high"]
    assert "enum" not in made["properties"]["Remark"]
    assert made["additionalProperties"] is False
