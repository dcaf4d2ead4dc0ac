"""What a language model is shown: prompts, one JSON document a sample, recordings within bounds."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI
from PIL import Image

from omg_graph.data.media import wav_bytes
from omg_graph.data.recordings import Recording
from omg_graph.errors import ConfigError, DataError
from omg_graph.planner import calling
from omg_graph.planner.chat import ChatPlanner
from omg_graph.planner.interface import PlannerInput, Sampling
from omg_graph.planner.prompting import (
    MOST_IMAGE_BYTES,
    json_schema,
    load_prompt,
    sample_text,
    small_image,
)
from omg_graph.planner.schema import Schema
from omg_graph.planner.schemas import load_schema

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
    text = prompt.system_message(AFFECT)
    assert "{{" not in text
    assert not text.startswith("version")
    for field in AFFECT.fields:
        assert f" {field.name}" in text
        assert all(json.dumps(value) in text for value in field.values or ())
        assert all(meaning in text for meaning in field.meanings.values())
    assert "transcript" in text
    chained = load_prompt().system_message(CHAINED)
    assert 'after "low": "one"' in chained
    assert "at most 6 words" in chained
    with pytest.raises(ConfigError, match="en or zh"):
        load_prompt("fr")  # type: ignore[arg-type]


@given(transcript=st.none() | st.text(st.characters(exclude_categories=["Cs"])))
def test_a_transcript_stays_a_string_in_one_json_document(transcript: str | None) -> None:
    message = sample_text(batch({"audio": tone(0.01)}, texts=(transcript,)), 0)
    assert json.loads(message) == {
        "observed": ["text", "audio"],
        "missing": ["vision"],
        "transcript": transcript,
    }
    assert "\n" not in message
    half_a_letter = sample_text(batch({}, texts=("a\ud800b",)), 0)
    assert json.loads(half_a_letter.encode())["transcript"] == "a?b"


def test_the_json_schema_lists_fields_in_order() -> None:
    made = json_schema(CHAINED)
    assert list(made["properties"]) == made["required"] == ["Half", "Place", "Remark"]
    assert made["properties"]["Half"]["enum"] == ["low", "high"]
    assert "enum" not in made["properties"]["Remark"]
    assert made["additionalProperties"] is False


SCHEMA = Schema.model_validate(
    {"name": "tone", "fields": [{"name": "Sentiment", "values": ["good", "bad"]}], "text_form": "{Sentiment}"}
)
GOOD = '{"Sentiment": "good"}'
BAD = '{"Sentiment": "bad"}'
HEARS = {"audio_inputs": True, "image_inputs": True}
Make = Callable[..., ChatPlanner]


def tone(seconds: float, rate: int = 44_100) -> Recording:
    return Recording("audio", np.sin(np.arange(int(seconds * rate)) / 20).astype(np.float32), rate)


def picture(value: int = 9, height: int = 30, width: int = 40) -> Recording:
    return Recording("image", np.full((height, width, 3), value, np.uint8))


def batch(*samples: dict[str, Recording], texts: tuple[str | None, ...] | None = None) -> PlannerInput:
    names = ("text", "audio", "vision")
    return PlannerInput(
        tuple(f"clip{number}" for number in range(len(samples))),
        np.zeros((len(samples), 4), np.float32),
        texts or ("Well.",) * len(samples),
        names,
        tuple(("text", *sample) for sample in samples),
        {name: tuple(sample.get(name) for sample in samples) for name in names[1:]},
    )


def parts(request: dict[str, Any]) -> list[dict[str, Any]]:
    content: str | list[dict[str, Any]] = request["messages"][-1]["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def kinds(request: dict[str, Any]) -> list[str]:
    return [part["type"] for part in parts(request)]


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calling, "FIRST_WAIT", 0.01)


@pytest.fixture
def make(chat_server: Any) -> Make:
    def made(profile: dict[str, Any] | None = HEARS, **settings: Any) -> ChatPlanner:
        model = ChatOpenAI(
            model="tiny", base_url=chat_server.url, api_key="sk-x", max_retries=0, profile=profile
        )
        return ChatPlanner(model, SCHEMA, **{"concurrency": 1, **settings})

    return made


def test_sound_and_images_arrive_after_their_modalitys_name(make: Make, chat_server: Any) -> None:
    chat_server.reply = lambda *_: GOOD
    video = Recording(
        "video", np.arange(20, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8), 10
    )
    (plans,) = make().propose(batch({"audio": tone(0.5), "vision": video}), Sampling(1), seed=0)
    (request,) = chat_server.requests
    assert kinds(request) == ["text", "text", "input_audio", "text", *["image_url"] * 8]
    blocks = parts(request)
    assert json.loads(blocks[0]["text"])["transcript"] == "Well."
    assert (blocks[1]["text"], blocks[3]["text"]) == ("audio:", "vision:")
    assert blocks[2]["input_audio"]["format"] == "wav"
    with wave.open(io.BytesIO(base64.b64decode(blocks[2]["input_audio"]["data"]))) as sound:
        assert (sound.getframerate(), sound.getnchannels(), sound.getnframes()) == (16_000, 1, 8_000)
    shades = []
    for part in blocks[4:]:
        head, _, content = part["image_url"]["url"].partition(",")
        assert head == "data:image/jpeg;base64"
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            shades.append(int(np.asarray(image.convert("L")).mean().round()))
    assert shades == pytest.approx([1, 3, 6, 8, 11, 13, 16, 18], abs=1)
    origin = plans[0].origin
    assert origin is not None
    sound_seen, video_seen = origin.recordings
    assert (sound_seen.modality, sound_seen.kind, sound_seen.seconds) == ("audio", "audio", 0.5)
    assert (video_seen.kind, video_seen.frames, video_seen.seconds) == ("video", 20, 2.0)
    assert video_seen.sha256 == video.sha256
    assert origin.note == "planner chat was sent 8 of 20 frames of vision"


def test_what_is_sent_is_bounded(make: Make, chat_server: Any) -> None:
    chat_server.reply = lambda *_: GOOD
    noise = np.random.default_rng(0).integers(0, 256, (1_500, 3_000, 3), dtype=np.uint8)
    assert len(small_image(noise)) <= MOST_IMAGE_BYTES
    sample = {"audio": tone(61.0, 8_000), "vision": Recording("image", noise)}
    (plans,) = make().propose(batch(sample), Sampling(1), seed=0)
    blocks = parts(chat_server.requests[0])
    with wave.open(io.BytesIO(base64.b64decode(blocks[2]["input_audio"]["data"]))) as sound:
        assert sound.getnframes() == 60 * 16_000
    content = base64.b64decode(blocks[4]["image_url"]["url"].partition(",")[2])
    with Image.open(io.BytesIO(content)) as image:
        assert max(image.size) <= 1_024
        assert image.width == 2 * image.height
    assert plans[0].origin is not None
    assert plans[0].origin.note == "planner chat was sent the first 60 of 61 s of audio"


@pytest.mark.parametrize(
    ("setting", "profile", "expected", "words"),
    [
        ("auto", HEARS, ["audio", "vision"], None),
        ("auto", {"image_inputs": True, "audio_inputs": False}, ["vision"], "recording of audio"),
        ("auto", None, [], "--planner-media on"),
        ("on", None, ["audio", "vision"], None),
        ("off", HEARS, [], None),
    ],
)
def test_what_a_model_is_known_to_take_or_what_is_asked_for(
    make: Make, chat_server: Any, setting: str, profile: Any, expected: list[str], words: str | None
) -> None:
    chat_server.reply = lambda *_: GOOD
    observations = batch({"audio": tone(0.1), "vision": picture()})
    (plans,) = make(profile, media=setting).propose(observations, Sampling(1), seed=0)
    named = [part["text"].rstrip(":") for part in parts(chat_server.requests[0]) if part["type"] == "text"][
        1:
    ]
    assert named == expected
    origin = plans[0].origin
    assert origin is not None
    assert [one.modality for one in origin.recordings] == expected
    assert origin.note is None if words is None else words in str(origin.note)


def test_a_refused_kind_is_found_out_once_and_said_of_every_sample(make: Make, chat_server: Any) -> None:
    def reply(request: dict[str, Any], _: int) -> Any:
        if "input_audio" in kinds(request):
            return 400, {}, {"error": {"message": "no sound", "type": "invalid_request_error"}}
        return GOOD

    chat_server.reply = reply
    samples = [{"audio": tone(0.1), "vision": picture(1)}, {"audio": tone(0.2)}, {"vision": picture(2)}]
    planner = make()
    plans = planner.propose(batch(*samples, texts=("a", "b", "c")), Sampling(2), seed=0)
    # one request too many; from then on only images are sent
    assert planner.calls == 1 + 2 * 3
    assert sum("input_audio" in kinds(request) for request in chat_server.requests) == 1
    assert all(request["response_format"] and request["logprobs"] for request in chat_server.requests)
    origins = [rows[0].origin for rows in plans]
    assert [[one.modality for one in origin.recordings] for origin in origins if origin] == [
        ["vision"],
        [],
        ["vision"],
    ]
    assert [origin and origin.note for origin in origins] == [
        "planner chat wasn't sent the recording of audio: the provider refused one",
        "planner chat wasn't sent the recording of audio: the provider refused one",
        None,
    ]
    planner.propose(batch({"audio": tone(0.3)}), Sampling(1), seed=0)
    assert kinds(chat_server.requests[-1]) == ["text"]


def test_recordings_are_blamed_only_for_what_is_taken_without_them(make: Make, chat_server: Any) -> None:
    chat_server.reply = lambda request, _: (400, {}, {}) if "response_format" in request else GOOD
    (plans,) = make().propose(batch({"audio": tone(0.1)}), Sampling(2), seed=0)
    assert plans[0].origin is not None
    assert [one.modality for one in plans[0].origin.recordings] == ["audio"]
    assert plans[0].origin.note is None


def test_nothing_refused_passes_for_taken_where_the_provider_fails(make: Make, chat_server: Any) -> None:
    chat_server.reply = lambda request, n: (400, {}, {}) if n == 0 else (500, {}, {}) if n == 1 else GOOD
    planner = make()
    (plans,) = planner.propose(batch({"audio": tone(0.1)}), Sampling(1), seed=0)
    assert plans[0].origin is not None
    assert plans[0].origin.recordings == ()
    assert planner.calls == 3


def test_a_model_that_langchain_has_no_form_of_a_recording_for(make: Make) -> None:
    class Reads(GenericFakeChatModel):
        def _generate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(messages[-1].content, list):
                raise ValueError("Block of type audio is not supported.")
            return super()._generate(messages, *args, **kwargs)

    model = Reads(messages=iter([AIMessage(GOOD)] * 2))
    (plans,) = ChatPlanner(model, SCHEMA, media="on", concurrency=1).propose(
        batch({"audio": tone(0.1)}), Sampling(2), seed=0
    )
    assert plans[0].origin is not None
    assert "refused" in str(plans[0].origin.note)


def test_an_answer_is_kept_for_the_recordings_it_was_given_for(
    make: Make, chat_server: Any, tmp_path: Path
) -> None:
    chat_server.reply = lambda *_: GOOD
    first = make(cache=tmp_path).propose(batch({"audio": tone(0.1)}), Sampling(2), seed=0)
    again = make(cache=tmp_path)
    assert again.propose(batch({"audio": tone(0.1)}), Sampling(2), seed=0) == first
    assert again.calls == 0
    for other in ({"audio": tone(0.2)}, {"vision": picture()}, {}):
        planner = make(cache=tmp_path)
        planner.propose(batch(other), Sampling(2), seed=0)
        assert planner.calls == 2
    files = [path.read_bytes() for path in tmp_path.rglob("*.json")]
    assert len(files) == 8
    assert not any(b"RIFF" in content or b"base64" in content for content in files)


def test_samples_that_look_the_same_are_asked_for_once(make: Make, chat_server: Any) -> None:
    chat_server.reply = lambda *_: GOOD
    samples = [{"audio": tone(0.1)}, {"audio": tone(0.1)}, {"audio": tone(0.2)}]
    planner = make()
    planner.propose(batch(*samples), Sampling(1), seed=0)
    assert planner.calls == 2
    deaf = make(None)
    plans = deaf.propose(batch(*samples, {}), Sampling(1), seed=0)
    assert deaf.calls == 2  # what isn't sent makes no difference, but that it is there does
    assert [bool(rows[0].origin and rows[0].origin.note) for rows in plans] == [True, True, True, False]


def test_a_recording_that_cannot_be_read_is_an_error(make: Make, chat_server: Any, tmp_path: Path) -> None:
    chat_server.reply = lambda *_: GOOD
    path = tmp_path / "a.wav"
    path.write_bytes(wav_bytes(np.zeros(1_000), 16_000)[:-500])
    with pytest.raises(DataError, match=r"a\.wav.*ends before"):
        make().propose(batch({"audio": Recording("audio", path)}), Sampling(1), seed=0)
    assert not chat_server.requests
