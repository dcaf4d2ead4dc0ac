"""What a language model is told: the prompt files, with a schema and a sample put into words."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from omg_graph.errors import ConfigError
from omg_graph.planner.schema import Field, Schema

Language = Literal["en", "zh"]

MediaSetting = Literal["auto", "on", "off"]
"""Send the recordings that a model is known to take, send all of them, or send none."""

LANGUAGES: tuple[Language, ...] = ("en", "zh")
PLACE_OF_SCHEMA = "{{schema}}"
_VERSION = re.compile(r"version: (\S+)\n\s*")

_WORDS: dict[str, dict[str, str]] = {
    "en": {
        "fields": "The fields of the plan",
        "one of": "one of these values",
        "words": "at most {count} words of your own",
        "after": "after {before}",
    },
    "zh": {
        "fields": "计划的字段",
        "one of": "取下列值之一",
        "words": "自拟文字，不超过 {count} 个词",
        "after": "在 {before} 之后",
    },
}


@dataclass(frozen=True)
class Prompt:
    """A prompt file, as it was read."""

    text: str
    version: str
    sha256: str
    """Of the whole file, before a schema is put into it."""
    language: Language

    def system_message(self, schema: Schema) -> str:
        """The prompt with a schema in its place."""
        return self.text.replace(PLACE_OF_SCHEMA, _schema_in_words(schema, self.language))


def load_prompt(language: Language = "en") -> Prompt:
    """The planner's prompt, ``prompts/planner_<language>.md``.

    Raises:
        ConfigError: if there is none in this language, or the file has no version or no place for a schema.
    """
    if language not in LANGUAGES:
        raise ConfigError(f"the planner's prompt is there in {', '.join(LANGUAGES)}, {language!r} came")
    name = f"planner_{language}.md"
    content = files("omg_graph.prompts").joinpath(name).read_bytes()
    text = content.decode("utf-8").replace("\r\n", "\n")
    version = _VERSION.match(text)
    if version is None or text.count(PLACE_OF_SCHEMA) != 1:
        raise ConfigError(
            f"prompts/{name}: a first line 'version: N', and {PLACE_OF_SCHEMA} once, were expected: "
            "mend the file"
        )
    return Prompt(text[version.end() :], version[1], hashlib.sha256(content).hexdigest(), language)


def sample_message(transcript: str | None, observed: Sequence[str], missing: Sequence[str]) -> str:
    """A sample as one JSON document: whatever a transcript holds, it stays a string inside it."""
    sample = {"observed": list(observed), "missing": list(missing), "transcript": transcript}
    # half a surrogate pair can't be sent
    return json.dumps(sample, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")


def json_schema(schema: Schema) -> dict[str, Any]:
    """A schema as JSON schema, for models that can be held to one; ``within`` isn't in it."""
    properties: dict[str, Any] = {}
    for field in schema.fields:
        described = field.description or field.name
        if field.values is None:
            described += f" (at most {field.max_words} words)"
            properties[field.name] = {"type": "string", "description": described}
        else:
            properties[field.name] = {
                "type": "string",
                "description": described,
                "enum": list(field.values),
            }
    return {
        "title": "plan",
        "description": schema.description or f"a plan of schema {schema.name}",
        "type": "object",
        "properties": properties,
        "required": list(schema.field_names),
        "additionalProperties": False,
    }


def _schema_in_words(schema: Schema, language: Language) -> str:
    words = _WORDS[language]
    lines = [words["fields"], ""]
    if schema.description:
        lines = [schema.description, "", *lines]
    for number, field in enumerate(schema.fields, start=1):
        how = (
            words["one of"] if field.values is not None else words["words"].format(count=field.max_words or 1)
        )
        told = f". {field.description}" if field.description else ""
        lines.append(f"{number}. {field.name}: {how}{told}")
        lines += _values_in_words(field, words)
    return "\n".join(lines)


def _values_in_words(field: Field, words: dict[str, str]) -> list[str]:
    lines = []
    for value in field.values or ():
        meaning = field.meanings.get(value)
        lines.append(f"   - {json.dumps(value, ensure_ascii=False)}" + (f": {meaning}" if meaning else ""))
    for before, allowed in (field.within or {}).items():
        quoted = ", ".join(json.dumps(value, ensure_ascii=False) for value in allowed)
        told = words["after"].format(before=json.dumps(before, ensure_ascii=False))
        lines.append(f"   {told}: {quoted}")
    return lines
