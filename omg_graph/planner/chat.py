"""Plans by any LangChain chat model, one sampled answer for each candidate (section 3.3)."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from omg_graph.errors import ConfigError, PlannerError
from omg_graph.planner.answers import (
    Answer,
    AnswerCache,
    MalformedAnswerError,
    candidates_of,
    read_arguments,
    read_text,
)
from omg_graph.planner.calling import Caller, Failure, NotTakenError
from omg_graph.planner.interface import NoValidPlanError, PlannerInput, Sampling
from omg_graph.planner.prompting import (
    BOUNDS,
    Attachment,
    Language,
    MediaKind,
    MediaSetting,
    json_schema,
    load_prompt,
    recordings_of,
    seen,
    sent_as,
    shown_text,
    taken_kinds,
)
from omg_graph.planner.schema import Schema
from omg_graph.record.trajectory import CandidatePlan, PlanOrigin
from omg_graph.seeding import derived_seed

MALFORMED_ANSWERS = 5
"""So many answers for one sample that can't be read end its planning."""

REFUSED = "the provider refused one"
UNKNOWN = "the model isn't known to take any, --planner-media on sends it all the same"
"""Why a recording isn't sent."""

UNREAD_SETTINGS = frozenset({"timeout", "request_timeout", "max_retries", "verbose", "seed", "logprobs"})
"""Settings of a model that change no answer, or that the planner sets by itself."""


@dataclass(frozen=True)
class _Way:
    """How a model is asked; a provider that doesn't take one is asked the next."""

    structured: bool
    log_probabilities: bool
    seeded: bool


@dataclass(frozen=True)
class _Shown:
    """What a model may be shown of a sample; samples that look the same to it are equal."""

    text: str
    attached: tuple[Attachment, ...] = ()
    kept: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """Modalities whose recordings it isn't shown, each with the reason."""

    def content(self, sent: Sequence[Attachment]) -> str | list[str | dict[str, Any]]:
        """A message's content with some of the recordings."""
        if not sent:
            return self.text
        return [{"type": "text", "text": self.text}, *(block for one in sent for block in one.blocks)]


@dataclass(frozen=True)
class _Given:
    """An answer, and the recordings that were sent for it."""

    answer: Answer
    sent: tuple[Attachment, ...] = ()


@dataclass
class _Tally:
    """What went wrong with one sample's answers, over all of its candidates."""

    malformed: int = 0
    reason: str = ""
    declined: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spent(self) -> bool:
        return self.declined or self.malformed >= MALFORMED_ANSWERS

    def add(self, failure: Failure) -> None:
        with self.lock:
            self.declined |= failure.kind == "declined"
            self.malformed += failure.kind == "malformed"
            self.reason = failure.reason


class ChatPlanner:
    """Asks a chat model for plans.

    What goes out of a sample is its transcript, the names of what is observed, and recordings of that where
    the model takes them, shortened. A provider that refuses recordings is asked without them, and the
    trajectory says so.

    Answers come as structured output where the model supports it, else as JSON in text. Their
    log-probabilities are the provider's where it tells them, else the agreement among the candidates; the
    trajectory says which. An answer that breaks the schema stays a candidate, which re-ranking refuses.

    Seeds are passed to models that take one. Whether the same seed gives the same answer is the provider's
    affair; with a cache on disk a repeated run does.
    """

    follows_sampling: ClassVar[bool] = False

    def __init__(
        self,
        model: BaseChatModel,
        schema: Schema,
        *,
        language: Language = "en",
        media: MediaSetting = "auto",
        max_calls: int | None = None,
        retries: int = 4,
        timeout: float = 60.0,
        concurrency: int = 8,
        cache: Path | None = None,
        name: str = "chat",
    ) -> None:
        """Make a planner.

        Args:
            model: Any chat model. Give it no retries of its own: they would be counted as one call.
            schema: What plans obey; the model's own schema, ``model.schema``.
            language: Of the prompt.
            media: Whether recordings are sent: auto sends those that the model's profile says it takes.
            max_calls: Calls in this planner's life, repetitions included; None for any number.
            retries: Repetitions of a call after a rate limit, a server's error, or a broken connection.
            timeout: Seconds for one call.
            concurrency: Calls under way at once.
            cache: A folder for answers; None keeps none.
            name: What trajectories call it.

        Raises:
            ConfigError: if a number is out of range, or the cache's folder can't be written.
        """
        for what, value, least in (
            ("max_calls", max_calls, 1),
            ("retries", retries, 0),
            ("concurrency", concurrency, 1),
        ):
            if value is not None and value < least:
                raise ConfigError(f"the planner's {what} is at least {least}, {value} came")
        if not timeout > 0:
            raise ConfigError(f"the planner's timeout is above 0 seconds, {timeout} came")
        self.name = name
        self.schema = schema
        self.prompt = load_prompt(language)
        self._model = model
        self._system = self.prompt.system_message(schema)
        self._format = json_schema(schema)
        self._caller = Caller(retries=retries, timeout=timeout, max_calls=max_calls)
        self._concurrency = concurrency
        self._cache = None if cache is None else AnswerCache(cache)
        self._identity = _identity(model)
        self._media = media
        self._taken = taken_kinds(model, media)
        self._refused: frozenset[MediaKind] = frozenset()
        # where a provider can be held to the schema to the letter, it is
        strict = "strict" in signature(type(model).with_structured_output).parameters
        self._strictly: dict[str, Any] = {"include_raw": True} | ({"strict": True} if strict else {})
        self._ways = self._ways_of(model)
        self._way = 0
        self._lock = threading.Lock()

    @property
    def calls(self) -> int:
        """How many calls were made so far."""
        return self._caller.calls

    def propose(
        self, observations: PlannerInput, sampling: Sampling, seed: int
    ) -> list[list[CandidatePlan] | NoValidPlanError]:
        """Candidate plans for each sample, in the samples' order; the provider draws them in its own way.

        A sample has none if the model declines it, gives five answers for it that can't be read, or no plan
        that obeys the schema.

        Raises:
            DataError: if a recording can't be read.
            PlannerError: if the model can't be reached, or the bound on calls is used up.
        """
        candidates = sampling.candidates
        samples = [self._shown(observations, row) for row in range(len(observations.ids))]
        # samples that look the same to the model are asked for once
        answers = self._answers(list(dict.fromkeys(samples)), candidates, seed)
        return [
            self._outcome(sample_id, shown, *answers[shown])
            for sample_id, shown in zip(observations.ids, samples, strict=True)
        ]

    def _outcome(
        self, sample_id: str, shown: _Shown, answers: Sequence[_Given | None], tally: _Tally
    ) -> list[CandidatePlan] | NoValidPlanError:
        whole = [told.answer for told in answers if told is not None]
        if len(whole) == len(answers):
            wrong = [self.schema.violations(answer.plan) for answer in whole]
            if not all(wrong):
                sent = [one for one in shown.attached if all(told and one in told.sent for told in answers)]
                return candidates_of(self.schema, whole, self._origin(shown, sent))
            why = f"none of its {len(whole)} plans obeys schema {self.schema.name!r}"
        elif tally.declined:
            why = "it declined to answer"
        else:
            why = f"{tally.malformed} of its answers can't be read (the last: {tally.reason})"
        return NoValidPlanError(sample_id, self.name, why)

    def _origin(self, shown: _Shown, sent: Sequence[Attachment]) -> PlanOrigin:
        """Where a sample's plans come from, and what was kept from the model."""
        notes = [f"planner {self.name} was sent {cut}" for one in sent if (cut := one.shortened)]
        kept = dict(shown.kept) | {one.modality: REFUSED for one in shown.attached if one not in sent}
        notes += [f"planner {self.name} wasn't sent the recording of {name}: {kept[name]}" for name in kept]
        return PlanOrigin(
            planner=self.name,
            prompt_version=self.prompt.version,
            prompt_sha256=self.prompt.sha256,
            recordings=tuple(seen(one.modality, one.recording) for one in sent),
            note="; ".join(notes) or None,
        )

    def _answers(
        self, samples: Sequence[_Shown], candidates: int, seed: int
    ) -> dict[_Shown, tuple[list[_Given | None], _Tally]]:
        """The answers for every sample, in order; None where there is none."""
        stop = threading.Event()
        tallies = {shown: _Tally() for shown in samples}
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="omg-planner")
        try:
            futures = [
                pool.submit(
                    copy_context().run,
                    partial(self._answer, shown, candidate, seed, tallies[shown], stop),
                )
                for shown in samples
                for candidate in range(candidates)
            ]
            outcomes = [future.result() for future in futures]
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        for outcome in outcomes:
            if isinstance(outcome, Failure) and outcome.kind != "stopped":
                raise PlannerError(self._told(outcome))
        whole = [None if isinstance(outcome, Failure) else outcome for outcome in outcomes]
        return {
            shown: (whole[number * candidates : (number + 1) * candidates], tallies[shown])
            for number, shown in enumerate(samples)
        }

    def _told(self, failure: Failure) -> str:
        kept = " (answers so far are kept, and won't be paid for again)" if self._cache else ""
        return (
            f"planner {self.name}: an answer was expected from the chat model, and {failure.reason}: check "
            f"the model's name, the provider's key and --max-planner-calls, and run again{kept}"
        )

    def _answer(
        self, shown: _Shown, candidate: int, seed: int, tally: _Tally, stop: threading.Event
    ) -> _Given | Failure | None:
        """One candidate's answer; None if the sample is given up, a Failure if everything is."""
        for attempt in count():
            if tally.spent:
                return None
            outcome = self._ask(shown, candidate, (seed, attempt), stop)
            if isinstance(outcome, _Given):
                return outcome
            if outcome.kind not in ("malformed", "declined"):
                stop.set()
                return outcome
            tally.add(outcome)
        return None

    def _ask(
        self, shown: _Shown, candidate: int, seed: tuple[int, int], stop: threading.Event
    ) -> _Given | Failure:
        """One answer, asked for in the first way that the provider takes; one that was given before, else.

        Where it doesn't take a request with recordings, the same one is tried without them: only if that is
        taken, they were at fault, and none of their kind is sent again.
        """
        without: set[MediaKind] = set()
        while True:
            number, allowed = self._way, self._taken - self._refused - without
            sent = tuple(one for one in shown.attached if one.kind in allowed)
            key = self._key(shown, sent, candidate, seed[0])
            known = None if self._cache is None else self._cache.read(key, len(self.schema.fields))
            outcome = known or self._once(
                shown, sent, self._ways[number], derived_seed(seed[0], key, seed[1]), stop
            )
            if isinstance(outcome, Answer):
                self._refuse(without)
                if known is None and self._cache is not None:
                    self._cache.write(key, outcome)
                return _Given(outcome, sent)
            if outcome.kind != "form":
                return outcome
            if sent:
                without.add(sent[0].kind)
                continue
            without.clear()
            if number + 1 == len(self._ways):
                return outcome
            with self._lock:
                self._way = max(self._way, number + 1)

    def _key(self, shown: _Shown, sent: Sequence[Attachment], candidate: int, seed: int) -> str:
        media = {"media": [one.identity for one in sent], "bounds": BOUNDS} if sent else {}
        return AnswerCache.key(
            model=self._identity,
            system=self._system,
            schema=self.schema.fingerprint,
            message=shown.text,
            seed=seed,
            candidate=candidate,
            **media,
        )

    def _refuse(self, kinds: Collection[MediaKind]) -> None:
        if kinds:
            with self._lock:
                self._refused |= frozenset(kinds)

    def _once(
        self, shown: _Shown, sent: Sequence[Attachment], way: _Way, seed: int, stop: threading.Event
    ) -> Answer | Failure:
        content = shown.content(sent)
        outcome = self._caller.call(partial(self._invoke, content, way, seed), stop, seed)
        if isinstance(outcome, Failure):
            return outcome
        try:
            return self._read(outcome)
        except MalformedAnswerError as error:
            return Failure("malformed", str(error))

    def _invoke(self, content: str | list[str | dict[str, Any]], way: _Way, seed: int) -> Any:
        messages = [SystemMessage(self._system), HumanMessage(content)]
        changes: dict[str, Any] = {}
        if way.seeded:
            changes["seed"] = seed % 2**31
        if way.log_probabilities:
            changes["logprobs"] = True
        model = self._model.model_copy(update=changes) if changes else self._model
        try:
            if not way.structured:
                return model.invoke(messages)
            told = model.with_structured_output(self._format, **self._strictly).invoke(messages)
        except (NotImplementedError, ValueError) as error:
            # how LangChain says that it has no form of a recording for a provider
            if isinstance(content, list) and type(error) in (NotImplementedError, ValueError):
                raise NotTakenError from None
            raise
        return told.get("raw") if isinstance(told, Mapping) else told

    def _read(self, message: Any) -> Answer | Failure:
        """What a message of the model says.

        Raises:
            MalformedAnswerError: if no plan can be read from it.
        """
        if not isinstance(message, AIMessage):
            raise MalformedAnswerError("it is not a message")
        told = message.response_metadata
        ended = told.get("finish_reason") or told.get("stop_reason")
        if message.additional_kwargs.get("refusal") or ended in ("content_filter", "refusal"):
            return Failure("declined", "the provider declined to answer")
        if message.tool_calls:
            return read_arguments(message.tool_calls[0]["args"], self.schema)
        logprobs = told.get("logprobs")
        tokens = logprobs.get("content") if isinstance(logprobs, Mapping) else None
        usable = isinstance(tokens, list) and all(isinstance(token, Mapping) for token in tokens)
        return read_text(str(message.text), self.schema, tokens if usable else None)

    def _shown(self, observations: PlannerInput, row: int) -> _Shown:
        text = shown_text(observations, row)
        if self._media == "off":
            return _Shown(text)
        attached, kept = [], []
        for name, recording in recordings_of(observations, row).items():
            kind = sent_as(recording)
            if kind in self._taken - self._refused:
                attached.append(Attachment(name, recording.sha256, recording))
            else:
                kept.append((name, REFUSED if kind in self._refused else UNKNOWN))
        return _Shown(text, tuple(attached), tuple(kept))

    def _ways_of(self, model: BaseChatModel) -> list[_Way]:
        """Ways to ask, the most telling first."""
        try:
            model.with_structured_output(self._format, **self._strictly)
            structured = [True, False]
        except (NotImplementedError, TypeError, ValueError):
            structured = [False]
        asked = type(model).model_fields.get("logprobs")
        switchable = asked is not None and asked.annotation in (bool, bool | None)
        wanted = [True, False] if switchable and getattr(model, "logprobs", None) is not False else [False]
        seeded = "seed" in type(model).model_fields
        ways = [_Way(way, told, seeded) for way in structured for told in wanted]
        return [*ways, _Way(False, False, False)] if seeded else ways


def _identity(model: BaseChatModel) -> str:
    """What tells a model from another one, for the cache's key; it is hashed and never shown.

    LangChain writes keys as references, not as text. The address may come from the environment, and then
    only a client knows it.
    """
    kind = type(model)
    known = dumpd(model)
    settings = dict(known.get("kwargs", {})) | dict(model._identifying_params)
    kept = {name: value for name, value in settings.items() if name not in UNREAD_SETTINGS}
    address = getattr(getattr(model, "root_client", None), "base_url", "")
    return AnswerCache.key(kind=f"{kind.__module__}.{kind.__qualname__}", settings=kept, address=str(address))
