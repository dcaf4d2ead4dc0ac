"""Answers of a chat model: strict JSON in, a plan and its log-probabilities out, kept on disk."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from omg_graph.files import KeyedFiles
from omg_graph.planner.schema import Plan, Schema
from omg_graph.record.trajectory import CandidatePlan, PlanOrigin

FROM_MODEL = "model log-probabilities"
FROM_AGREEMENT = "agreement among candidates"

_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\r\n]*")
_FENCED = re.compile(r"\s*```(?:json)?[ \t]*\n(.*)\n[ \t]*```\s*", re.DOTALL)


class MalformedAnswerError(Exception):
    """An answer that no plan can be read from; its text says why and quotes nothing of the answer."""


@dataclass(frozen=True)
class Answer:
    """One plan as a model wrote it, which the schema may still refuse."""

    plan: Plan
    log_probabilities: tuple[float, ...] | None = None
    """Of each value's tokens and its closing quote, in nats; None where the provider gave none."""
    token_counts: tuple[int, ...] | None = None


def read_text(text: str, schema: Schema, tokens: Sequence[Mapping[str, Any]] | None = None) -> Answer:
    """A plan from a JSON object in text, alone or in one code fence.

    Args:
        text: The whole answer.
        schema: Whose fields are expected, all of them, in order: an order of its own would be another chain
            of conditions.
        tokens: ``{"token", "logprob", "bytes"}`` of each token, as chat completions report them.

    Raises:
        MalformedAnswerError: if it is anything but that.
    """
    fenced = _FENCED.fullmatch(text)
    start = 0 if fenced is None else fenced.start(1)
    end = len(text) if fenced is None else fenced.end(1)
    values, spans = _members(text[:end], start, schema)
    found = None if tokens is None else _log_probabilities(text, spans, tokens)
    return Answer(values) if found is None else Answer(values, *found)


def read_arguments(arguments: Mapping[str, Any], schema: Schema) -> Answer:
    """A plan from the arguments of a tool call, for whose tokens no provider gives probabilities.

    Raises:
        MalformedAnswerError: if they aren't the schema's fields in order, each a string.
    """
    if tuple(arguments) != schema.field_names:
        raise MalformedAnswerError(f"its fields are not {', '.join(schema.field_names)}, in this order")
    for name, value in arguments.items():
        if not isinstance(value, str) or not _is_text(value):
            raise MalformedAnswerError(f"{name} is not a text")
    return Answer(tuple(arguments.values()))


def _members(text: str, place: int, schema: Schema) -> tuple[Plan, list[tuple[int, int]]]:
    """The values, and where each stands between its quotes, the closing one included."""
    values: list[str] = []
    spans: list[tuple[int, int]] = []
    place = _expect(text, place, "{")
    for number, name in enumerate(schema.field_names):
        if number:
            place = _expect(text, place, ",")
        key, place, _ = _string(text, place)
        if key != name:
            raise MalformedAnswerError(f"expected {name} as its member {number + 1}, got another")
        place = _expect(text, place, ":")
        value, place, start = _string(text, place)
        values.append(value)
        spans.append((start, place))
    place = _expect(text, place, "}")
    if text[place:].strip():
        raise MalformedAnswerError("there is more than one JSON object in it")
    return tuple(values), spans


def _expect(text: str, place: int, sign: str) -> int:
    place = _skip(text, place)
    if not text.startswith(sign, place):
        raise MalformedAnswerError(f"it is not a JSON object of the schema's fields: expected {sign!r}")
    return place + 1


def _string(text: str, place: int) -> tuple[str, int, int]:
    """A JSON string, the place behind it, and the place behind its opening quote."""
    place = _skip(text, place)
    if not text.startswith('"', place):
        raise MalformedAnswerError("it is not a JSON object whose members are strings")
    try:
        value, end = _DECODER.raw_decode(text, place)
    except json.JSONDecodeError:
        raise MalformedAnswerError("it is not whole JSON") from None
    if not _is_text(value):
        raise MalformedAnswerError("it holds half a letter")
    return value, end, place + 1


def _is_text(value: str) -> bool:
    """Whether it can be written down: JSON can spell half a surrogate pair."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _skip(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    return place if space is None else space.end()


def _log_probabilities(
    text: str, spans: Sequence[tuple[int, int]], tokens: Sequence[Mapping[str, Any]]
) -> tuple[tuple[float, ...], tuple[int, ...]] | None:
    """Sums over the tokens that hold any of a value or its closing quote; None if they don't spell the text.

    Counted in UTF-8 bytes, since a token may be a part of a letter.
    """
    pieces: list[tuple[bytes, float]] = []
    for token in tokens:
        spelt, probability = _spelling(token), token.get("logprob")
        if spelt is None or not isinstance(probability, (int, float)) or not math.isfinite(probability):
            return None
        pieces.append((spelt, float(probability)))
    offset = b"".join(spelt for spelt, _ in pieces).find(text.encode())
    if offset < 0:
        return None
    sums, counts = [0.0] * len(spans), [0] * len(spans)
    bounds = [(len(text[:start].encode()), len(text[:end].encode())) for start, end in spans]
    place = -offset
    for spelt, probability in pieces:
        for level, (start, end) in enumerate(bounds):
            if place < end and place + len(spelt) > start:
                sums[level] += probability
                counts[level] += 1
        place += len(spelt)
    return tuple(sums), tuple(counts)


def _spelling(token: Mapping[str, Any]) -> bytes | None:
    raw, text = token.get("bytes"), token.get("token")
    try:
        return bytes(raw) if raw is not None else str(text).encode() if isinstance(text, str) else None
    except (TypeError, ValueError):
        return None


def candidates_of(schema: Schema, answers: Sequence[Answer], origin: PlanOrigin) -> list[CandidatePlan]:
    """The answers of one sample as candidates: by the model's log-probabilities if all have them.

    Else the confidence in c_l is how many of the candidates with the same values before it agree on it:
    log(count(c_<=l) / count(c_<l)); no tokens are counted then.
    """
    from_model = all(answer.log_probabilities is not None for answer in answers)
    origin = origin.model_copy(update={"confidence": FROM_MODEL if from_model else FROM_AGREEMENT})
    plans = [answer.plan for answer in answers]
    return [
        schema.candidate(
            answer.plan,
            answer.log_probabilities if from_model else agreement(answer.plan, plans),
            answer.token_counts if from_model else None,
            origin=origin,
        )
        for answer in answers
    ]


def agreement(plan: Plan, plans: Sequence[Plan]) -> tuple[float, ...]:
    """log(count(c_<=l) / count(c_<l)) for each constraint of a plan that is among ``plans``."""
    counts = [sum(other[:level] == plan[:level] for other in plans) for level in range(len(plan) + 1)]
    return tuple(math.log(after / before) for before, after in pairwise(counts))


LAYOUT = 1


class AnswerCache:
    """Keeps plans and their log-probabilities; neither requests, transcripts nor credentials.

    LangChain's own caches keep whole prompts and answers, and answers that can't be read too.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder, making it if need be.

        Raises:
            ConfigError: if it can't be written.
        """
        self._files = KeyedFiles(
            folder,
            ".json",
            what="the planner's answers",
            remedy="point OMG_CACHE elsewhere, or use --no-planner-cache",
        )

    @staticmethod
    def key(**parts: Any) -> str:
        """The name of a request, by everything that its answer depends on."""
        canonical = json.dumps({"layout": LAYOUT, **parts}, sort_keys=True, default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def read(self, key: str, fields: int) -> Answer | None:
        """The answer, or None where there is none or its file is damaged."""
        content = self._files.read(key)
        try:
            stored = json.loads(content or b"")
            plan = tuple(stored["plan"])
            sums, counts = stored["log_probabilities"], stored["token_counts"]
            if sums is not None:
                sums, counts = tuple(map(float, sums)), tuple(map(int, counts))
        except (ValueError, KeyError, TypeError):
            return None
        texts = len(plan) == fields and all(isinstance(value, str) for value in plan)
        numbers = sums is None or (len(sums) == len(counts) == fields and all(map(math.isfinite, sums)))
        return Answer(plan, sums, None if sums is None else counts) if texts and numbers else None

    def write(self, key: str, answer: Answer) -> None:
        """Keep an answer; a full disk costs a repeated call later, and no result now."""
        self._files.write(key, (json.dumps(asdict(answer), ensure_ascii=False) + "\n").encode())
