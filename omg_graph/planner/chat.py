"""Plans by any LangChain chat model, one sampled answer for each candidate (section 3.3)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables.config import ContextThreadPoolExecutor

from omg_graph.errors import ConfigError, PlannerError
from omg_graph.planner.answers import (
    Answer,
    AnswerCache,
    MalformedAnswerError,
    candidates_of,
    read_arguments,
    read_text,
)
from omg_graph.planner.calling import Caller, Failure, UnsupportedMediaError
from omg_graph.planner.interface import NoValidPlanError, PlannerInput, Sampling
from omg_graph.planner.prompting import (
    BOUNDS,
    Attachment,
    Language,
    MediaKind,
    MediaSetting,
    accepted_kinds,
    json_schema,
    load_prompt,
    recordings_of,
    sample_text,
    seen,
    sent_as,
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
class _Form:
    """What a request asks for; a provider that doesn't support one form is asked in the next."""

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


@dataclass(frozen=True)
class _Reply:
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
    log-probabilities are the provider's where it gives them, else the agreement among the candidates; the
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
                raise ConfigError(f"the planner's {what}: expected {least} or more, got {value}")
        if not timeout > 0:
            raise ConfigError(f"the planner's timeout: expected more than 0 seconds, got {timeout}")
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
        self._accepted = accepted_kinds(model, media)
        self._refused: frozenset[MediaKind] = frozenset()
        # where a provider can be held to the schema to the letter, it is
        strict = "strict" in signature(type(model).with_structured_output).parameters
        self._strictly: dict[str, Any] = {"include_raw": True} | ({"strict": True} if strict else {})
        self._forms = self._forms_of(model)
        # not LangChain's with_fallbacks, which would try a refused form again at every call, and pay for it
        self._form = 0
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
        samples = [self._shown(observations, row) for row in range(len(observations.ids))]
        # samples that look the same to the model are asked for once
        replies = self._replies(list(dict.fromkeys(samples)), sampling.candidates, seed)
        return [
            self._outcome(sample_id, shown, *replies[shown])
            for sample_id, shown in zip(observations.ids, samples, strict=True)
        ]

    def _shown(self, observations: PlannerInput, row: int) -> _Shown:
        text = sample_text(observations, row)
        if self._media == "off":
            return _Shown(text)
        attached, kept = [], []
        for name, recording in recordings_of(observations, row).items():
            kind = sent_as(recording)
            if kind in self._accepted - self._refused:
                attached.append(Attachment(name, recording.sha256, recording))
            else:
                kept.append((name, REFUSED if kind in self._refused else UNKNOWN))
        return _Shown(text, tuple(attached), tuple(kept))

    def _outcome(
        self, sample_id: str, shown: _Shown, replies: Sequence[_Reply | None], tally: _Tally
    ) -> list[CandidatePlan] | NoValidPlanError:
        whole = [reply for reply in replies if reply is not None]
        if len(whole) == len(replies):
            if not all(self.schema.violations(reply.answer.plan) for reply in whole):
                sent = [one for one in shown.attached if all(one in reply.sent for reply in whole)]
                answers = [reply.answer for reply in whole]
                return candidates_of(self.schema, answers, self._origin(shown, sent))
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

    def _replies(
        self, samples: Sequence[_Shown], candidates: int, seed: int
    ) -> dict[_Shown, tuple[list[_Reply | None], _Tally]]:
        """The replies for every sample, in order; None where there is none."""
        stop = threading.Event()
        tallies = {shown: _Tally() for shown in samples}
        pool = ContextThreadPoolExecutor(self._concurrency, thread_name_prefix="omg-planner")
        try:
            futures = [
                pool.submit(self._candidate, shown, candidate, seed, tallies[shown], stop)
                for shown in samples
                for candidate in range(candidates)
            ]
            outcomes = [future.result() for future in futures]
        finally:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
        for outcome in outcomes:
            if isinstance(outcome, Failure) and outcome.kind != "stopped":
                kept = " (answers so far are kept, and won't be paid for again)" if self._cache else ""
                raise PlannerError(
                    f"planner {self.name}: expected an answer from the chat model, but {outcome.reason}: "
                    f"check the model's name, the provider's key and --max-planner-calls, and run again{kept}"
                )
        replies = [None if isinstance(outcome, Failure) else outcome for outcome in outcomes]
        return {
            shown: (replies[number * candidates : (number + 1) * candidates], tallies[shown])
            for number, shown in enumerate(samples)
        }

    def _candidate(
        self, shown: _Shown, candidate: int, seed: int, tally: _Tally, stop: threading.Event
    ) -> _Reply | Failure | None:
        """One candidate's reply; None if the sample is given up, a Failure if everything is."""
        for attempt in count():
            if tally.spent:
                return None
            outcome = self._ask(shown, candidate, (seed, attempt), stop)
            if isinstance(outcome, _Reply):
                return outcome
            if outcome.kind not in ("malformed", "declined"):
                stop.set()
                return outcome
            tally.add(outcome)
        return None

    def _ask(
        self, shown: _Shown, candidate: int, seed: tuple[int, int], stop: threading.Event
    ) -> _Reply | Failure:
        """One answer: from the cache, else in the first form of request that the provider supports.

        Where it doesn't take a request with recordings, the same one is tried without them: only if that is
        taken, they were at fault, and none of their kind is sent again.
        """
        without: set[MediaKind] = set()
        while True:
            number, allowed = self._form, self._accepted - self._refused - without
            sent = tuple(one for one in shown.attached if one.kind in allowed)
            key = self._key(shown, sent, candidate, seed[0])
            known = None if self._cache is None else self._cache.read(key, len(self.schema.fields))
            outcome = known or self._once(
                shown, sent, self._forms[number], derived_seed(seed[0], key, seed[1]), stop
            )
            if isinstance(outcome, Answer):
                with self._lock:
                    self._refused |= without
                if known is None and self._cache is not None:
                    self._cache.write(key, outcome)
                return _Reply(outcome, sent)
            if outcome.kind != "unsupported":
                return outcome
            if sent:
                without.add(sent[0].kind)
                continue
            without.clear()
            if number + 1 == len(self._forms):
                return outcome
            with self._lock:
                self._form = max(self._form, number + 1)

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

    def _once(
        self, shown: _Shown, sent: Sequence[Attachment], form: _Form, seed: int, stop: threading.Event
    ) -> Answer | Failure:
        """One call with its repetitions, and what its answer says."""
        blocks = [block for one in sent for block in one.blocks]
        content = [{"type": "text", "text": shown.text}, *blocks] if blocks else shown.text
        outcome = self._caller.call(partial(self._invoke, content, form, seed), stop, seed)
        if isinstance(outcome, Failure):
            return outcome
        try:
            return self._read(outcome)
        except MalformedAnswerError as error:
            return Failure("malformed", str(error))

    def _invoke(self, content: Any, form: _Form, seed: int) -> Any:
        messages = [SystemMessage(self._system), HumanMessage(content)]
        changes: dict[str, Any] = {}
        if form.seeded:
            changes["seed"] = seed % 2**31
        if form.log_probabilities:
            changes["logprobs"] = True
        model = self._model.model_copy(update=changes) if changes else self._model
        try:
            if not form.structured:
                return model.invoke(messages)
            output = model.with_structured_output(self._format, **self._strictly).invoke(messages)
        except (NotImplementedError, ValueError) as error:
            # how LangChain says that it has no form of a recording for a provider
            if isinstance(content, list) and type(error) in (NotImplementedError, ValueError):
                raise UnsupportedMediaError from None
            raise
        return output.get("raw") if isinstance(output, Mapping) else output

    def _read(self, message: Any) -> Answer | Failure:
        """What a message of the model says.

        Raises:
            MalformedAnswerError: if no plan can be read from it.
        """
        if not isinstance(message, AIMessage):
            raise MalformedAnswerError("it is not a message")
        metadata = message.response_metadata
        ended = metadata.get("finish_reason") or metadata.get("stop_reason")
        if message.additional_kwargs.get("refusal") or ended in ("content_filter", "refusal"):
            return Failure("declined", "the provider declined to answer")
        if message.tool_calls:
            return read_arguments(message.tool_calls[0]["args"], self.schema)
        logprobs = metadata.get("logprobs")
        tokens = logprobs.get("content") if isinstance(logprobs, Mapping) else None
        usable = isinstance(tokens, list) and all(isinstance(token, Mapping) for token in tokens)
        return read_text(str(message.text), self.schema, tokens if usable else None)

    def _forms_of(self, model: BaseChatModel) -> list[_Form]:
        """Forms of a request, the most telling first."""
        try:
            model.with_structured_output(self._format, **self._strictly)
            structured = [True, False]
        except (NotImplementedError, TypeError, ValueError):
            structured = [False]
        setting = type(model).model_fields.get("logprobs")
        switchable = setting is not None and setting.annotation in (bool, bool | None)
        asked = [True, False] if switchable and getattr(model, "logprobs", None) is not False else [False]
        seeded = "seed" in type(model).model_fields
        forms = [_Form(one, other, seeded) for one in structured for other in asked]
        return [*forms, _Form(False, False, False)] if seeded else forms


def _identity(model: BaseChatModel) -> str:
    """What tells a model from another one, for the cache's key; it is hashed and never shown.

    LangChain writes keys as references, not as text. The address may come from the environment, and then
    only a client knows it.
    """
    kind = type(model)
    settings = dict(dumpd(model).get("kwargs", {})) | dict(model._identifying_params)
    kept = {name: value for name, value in settings.items() if name not in UNREAD_SETTINGS}
    address = getattr(getattr(model, "root_client", None), "base_url", "")
    return AnswerCache.key(kind=f"{kind.__module__}.{kind.__qualname__}", settings=kept, address=str(address))
