"""What a language model is shown: prompt files with a schema, a sample's text and recordings."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal

from omg_graph.data.media import Pixels, image_bytes, wav_bytes
from omg_graph.data.recordings import Recording, shortened
from omg_graph.errors import ConfigError
from omg_graph.planner.interface import PlannerInput
from omg_graph.planner.schema import Schema
from omg_graph.record.trajectory import SeenRecording

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

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
        raise ConfigError(f"the planner's prompt: expected {' or '.join(LANGUAGES)}, got {language!r}")
    name = f"planner_{language}.md"
    content = files("omg_graph.prompts").joinpath(name).read_bytes()
    text = content.decode("utf-8").replace("\r\n", "\n")
    version = _VERSION.match(text)
    if version is None or text.count(PLACE_OF_SCHEMA) != 1:
        raise ConfigError(
            f"prompts/{name}: expected a first line 'version: N', and {PLACE_OF_SCHEMA} once: mend the file"
        )
    return Prompt(text[version.end() :], version[1], hashlib.sha256(content).hexdigest(), language)


def sample_text(observations: PlannerInput, row: int) -> str:
    """One sample as a JSON document: transcript, what is observed and what is missing.

    Whatever a transcript holds, it stays a string inside it.
    """
    observed = list(observations.observed[row]) if observations.observed else []
    missing = [name for name in observations.modalities if name not in observed]
    sample = {"observed": observed, "missing": missing, "transcript": observations.raw_text[row]}
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
        if field.values is not None:
            properties[field.name]["enum"] = list(field.values)
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
        what = words["words"].format(count=field.max_words or 1) if field.values is None else words["one of"]
        description = f". {field.description}" if field.description else ""
        lines.append(f"{number}. {field.name}: {what}{description}")
        for value in field.values or ():
            meaning = f": {field.meanings[value]}" if field.meanings.get(value) else ""
            lines.append(f"   - {_quoted(value)}{meaning}")
        for before, allowed in (field.within or {}).items():
            after = words["after"].format(before=_quoted(before))
            lines.append(f"   {after}: {', '.join(map(_quoted, allowed))}")
    return "\n".join(lines)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


MediaKind = Literal["audio", "image"]
"""What a model must take; a video is sent as images."""

KINDS: tuple[MediaKind, ...] = ("audio", "image")

SOUND_RATE = 16_000
"""Hz, of one channel."""

MOST_SECONDS = 60
"""Of one sound: 2 MB."""

MOST_FRAMES = 8
"""Of one video."""

LONGEST_SIDE = 1024
"""Pixels, of one image."""

MOST_IMAGE_BYTES = 500_000
"""Of one image: one that takes more is scaled down further."""

BOUNDS = (SOUND_RATE, MOST_SECONDS, MOST_FRAMES, LONGEST_SIDE, MOST_IMAGE_BYTES)


@dataclass(frozen=True)
class Attachment:
    """One recording of a sample; two with the same content are equal."""

    modality: str
    sha256: str
    recording: Recording = dataclasses.field(compare=False)

    @property
    def kind(self) -> MediaKind:
        """What a model must take."""
        return sent_as(self.recording)

    @property
    def identity(self) -> tuple[str, str]:
        """What an answer to it depends on."""
        return self.modality, self.sha256

    @cached_property
    def blocks(self) -> tuple[dict[str, Any], ...]:
        """The modality's name, and what follows it.

        Raises:
            DataError: if it can't be read.
            ConfigError: if its sound must be converted and SciPy isn't installed.
        """
        if self.kind == "audio":
            sound = self.recording.waveform(SOUND_RATE)[: MOST_SECONDS * SOUND_RATE]
            parts = [_block("audio", wav_bytes(sound, SOUND_RATE), "audio/wav")]
        else:
            frames = self.recording.frames(MOST_FRAMES)
            parts = [_block("image", small_image(frame), "image/jpeg") for frame in frames]
        return ({"type": "text", "text": f"{self.modality}:"}, *parts)

    @property
    def shortened(self) -> str | None:
        """A note on a recording that isn't sent whole."""
        return shortened(self.modality, self.recording, most_seconds=MOST_SECONDS, most_frames=MOST_FRAMES)


def recordings_of(observations: PlannerInput, row: int) -> dict[str, Recording]:
    """The recordings of one sample by modality, in order."""
    found = {name: recordings[row] for name, recordings in observations.recordings.items()}
    return {name: one for name, one in found.items() if one is not None}


def sent_as(recording: Recording) -> MediaKind:
    """What a model must take to be sent a recording."""
    return "audio" if recording.kind == "audio" else "image"


def seen(modality: str, recording: Recording) -> SeenRecording:
    """What a trajectory says of a recording that a planner was given.

    Raises:
        DataError: if it can't be read.
    """
    extent = recording.extent
    return SeenRecording(
        modality=modality,
        kind=recording.kind,
        sha256=recording.sha256,
        seconds=None if extent.seconds is None else round(extent.seconds, 3),
        frames=extent.frames,
        width=extent.width,
        height=extent.height,
    )


def accepted_kinds(model: BaseChatModel, setting: MediaSetting) -> frozenset[MediaKind]:
    """What a model is sent: by ``auto`` what its profile, LangChain's data about known models, says of it."""
    if setting != "auto":
        return frozenset(KINDS if setting == "on" else ())
    profile: Mapping[str, Any] = getattr(model, "profile", None) or {}
    return frozenset(kind for kind in KINDS if profile.get(f"{kind}_inputs"))


def small_image(pixels: Pixels) -> bytes:
    """A JPEG file of an image, as large as is sent at most."""
    side = LONGEST_SIDE
    while len(content := image_bytes(pixels, "JPEG", longest_side=side)) > MOST_IMAGE_BYTES:
        side = side * 3 // 4
    return content


def _block(kind: MediaKind, content: bytes, mime_type: str) -> dict[str, Any]:
    return {"type": kind, "base64": base64.b64encode(content).decode(), "mime_type": mime_type}
