"""Plans by any LangChain chat model, one sampled answer for each candidate (section 3.3)."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from itertools import count
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.load import dumpd
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from omg_graph.errors import ConfigError, PlannerError
from omg_graph.planner.answer_cache import AnswerCache
from omg_graph.planner.answers import Answer, MalformedAnswerError, candidates_of, read_arguments, read_text
from omg_graph.planner.calling import Caller, Failure
from omg_graph.planner.interface import CandidatePlan, NoValidPlanError, PlannerInput
from omg_graph.planner.prompting import Language, json_schema, load_prompt, sample_message
from omg_graph.planner.schema import Schema
from omg_graph.seeding import derived_seed

MALFORMED_ANSWERS = 5
"""So many answers for one sample that can't be read end its planning."""

UNREAD_SETTINGS = frozenset({"timeout", "request_timeout", "max_retries", "verbose", "seed", "logprobs"})
"""Settings of a model that change no answer, or that the planner sets by itself."""


@dataclass(frozen=True)
class _Way:
    """How a model is asked; a provider that doesn't take one is asked the next."""

    structured: bool
    log_probabilities: bool
    seeded: bool


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
    """Asks a chat model for plans: its transcript and the names of what is observed go out, nothing else.

    Answers come as structured output where the model supports it, else as JSON in text. Their
    log-probabilities are the provider's where it tells them, else the agreement among the candidates; the
    trajectory says which. An answer that breaks the schema stays a candidate, which re-ranking refuses.

    Seeds are passed to models that take one. Whether the same seed gives the same answer is the provider's
    affair; with a cache on disk a repeated run does.
    """

    def __init__(
        self,
        model: BaseChatModel,
        schema: Schema,
        *,
        language: Language = "en",
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

    def propose(self, observations: PlannerInput, candidates: int, seed: int) -> list[list[CandidatePlan]]:
        """``candidates`` plans for each sample, in the samples' order.

        Raises:
            ConfigError: if there are no candidates.
            NoValidPlanError: if the model declines a sample, gives five answers for it that can't be read,
                or no plan that obeys the schema.
            PlannerError: if the model can't be reached, or the bound on calls is used up.
        """
        plans = []
        for outcome in self.attempt(observations, candidates, seed):
            if isinstance(outcome, NoValidPlanError):
                raise outcome
            plans.append(outcome)
        return plans

    def attempt(
        self, observations: PlannerInput, candidates: int, seed: int
    ) -> list[list[CandidatePlan] | NoValidPlanError]:
        """Like ``propose``, with the error of each sample that has no valid plan in its place.

        Raises:
            ConfigError: if there are no candidates.
            PlannerError: if the model can't be reached, or the bound on calls is used up.
        """
        if candidates < 1:
            raise ConfigError(f"candidates is at least 1, {candidates} came")
        messages = [self._message(observations, row) for row in range(len(observations.ids))]
        # samples that look the same to the model are asked for once
        answers = self._answers(list(dict.fromkeys(messages)), candidates, seed)
        return [
            self._outcome(sample_id, *answers[message])
            for sample_id, message in zip(observations.ids, messages, strict=True)
        ]

    def _outcome(
        self, sample_id: str, answers: Sequence[Answer | None], tally: _Tally
    ) -> list[CandidatePlan] | NoValidPlanError:
        whole = [answer for answer in answers if answer is not None]
        if len(whole) == len(answers):
            wrong = [self.schema.violations(answer.plan) for answer in whole]
            if not all(wrong):
                return candidates_of(
                    whole,
                    planner=self.name,
                    prompt_version=self.prompt.version,
                    prompt_sha256=self.prompt.sha256,
                )
            why = f"none of its {len(whole)} plans obeys schema {self.schema.name!r}"
        elif tally.declined:
            why = "it declined to answer"
        else:
            why = f"{tally.malformed} of its answers can't be read (the last: {tally.reason})"
        return NoValidPlanError(sample_id, self.name, why)

    def _answers(
        self, messages: Sequence[str], candidates: int, seed: int
    ) -> dict[str, tuple[list[Answer | None], _Tally]]:
        """The answers to every message, in order; None where there is none."""
        stop = threading.Event()
        tallies = {message: _Tally() for message in messages}
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="omg-planner")
        try:
            futures = [
                pool.submit(
                    copy_context().run,
                    partial(self._answer, message, candidate, seed, tallies[message], stop),
                )
                for message in messages
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
            message: (whole[number * candidates : (number + 1) * candidates], tallies[message])
            for number, message in enumerate(messages)
        }

    def _told(self, failure: Failure) -> str:
        kept = " (answers so far are kept, and won't be paid for again)" if self._cache else ""
        return (
            f"planner {self.name}: an answer was expected from the chat model, and {failure.reason}: check "
            f"the model's name, the provider's key and --max-planner-calls, and run again{kept}"
        )

    def _answer(
        self, message: str, candidate: int, seed: int, tally: _Tally, stop: threading.Event
    ) -> Answer | Failure | None:
        """One candidate's answer; None if the sample is given up, a Failure if everything is."""
        key = AnswerCache.key(
            model=self._identity,
            system=self._system,
            schema=self.schema.fingerprint,
            message=message,
            seed=seed,
            candidate=candidate,
        )
        if self._cache is not None and (known := self._cache.read(key, len(self.schema.fields))) is not None:
            return known
        for attempt in count():
            if tally.spent:
                return None
            outcome = self._ask(message, stop, derived_seed(seed, key, attempt))
            if isinstance(outcome, Answer):
                if self._cache is not None:
                    self._cache.write(key, outcome)
                return outcome
            if outcome.kind not in ("malformed", "declined"):
                stop.set()
                return outcome
            tally.add(outcome)
        return None

    def _ask(self, message: str, stop: threading.Event, seed: int) -> Answer | Failure:
        """One answer, asked for in the first way that the provider takes."""
        while True:
            number = self._way
            way = self._ways[number]
            outcome = self._caller.call(partial(self._invoke, message, way, seed), stop, seed)
            if isinstance(outcome, Failure):
                if outcome.kind != "form" or number + 1 == len(self._ways):
                    return outcome
                with self._lock:
                    self._way = max(self._way, number + 1)
                continue
            try:
                return self._read(outcome)
            except MalformedAnswerError as error:
                return Failure("malformed", str(error))

    def _invoke(self, message: str, way: _Way, seed: int) -> Any:
        messages = [SystemMessage(self._system), HumanMessage(message)]
        changes: dict[str, Any] = {}
        if way.seeded:
            changes["seed"] = seed % 2**31
        if way.log_probabilities:
            changes["logprobs"] = True
        model = self._model.model_copy(update=changes) if changes else self._model
        if not way.structured:
            return model.invoke(messages)
        told = model.with_structured_output(self._format, **self._strictly).invoke(messages)
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

    def _message(self, observations: PlannerInput, row: int) -> str:
        observed = observations.observed[row] if observations.observed else ()
        missing = [name for name in observations.modalities if name not in observed]
        return sample_message(observations.raw_text[row], observed, missing)

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
