"""Calls to a provider: bounded in number and time, repeated where that helps, and told without secrets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import numpy as np

from omg_graph.seeding import Part, derived_seed

FIRST_WAIT = 0.5
"""Seconds before the first repetition; twice as long before each one after."""

LONGEST_WAIT = 120.0
"""A provider that asks for more patience than this isn't waited for."""

FailureKind = Literal["passing", "form", "malformed", "declined", "lasting", "stopped"]
"""Worth repeating; the form of the request isn't taken; no answer to read; declined; of no use to repeat; not
asked, since another call failed for good."""

PASSING_STATUS = frozenset({408, 409, 425, 429})
FORM_STATUS = frozenset({400, 413, 415, 422})
REASONS = {
    400: "it does not take the request",
    401: "it does not accept the credentials",
    403: "it does not accept the credentials",
    404: "it does not know the model or the address",
    413: "it does not take so large a request",
    415: "it does not take the request",
    422: "it does not take the request",
}
UNREACHABLE = frozenset(
    {"APIConnectionError", "ConnectionError", "ModelConnectionError", "TransportError", "ProtocolError"}
)
TIMED_OUT = frozenset({"APITimeoutError", "ModelTimeoutError", "TimeoutError", "TimeoutException"})
DECLINED = frozenset({"ContentFilterFinishReasonError", "OpenAIRefusalError"})
UNREADABLE = frozenset(
    {"APIResponseValidationError", "AttributeError", "KeyError", "IndexError", "LengthFinishReasonError"}
    | {"OutputParserException", "TypeError", "ValueError"}
)


class NotTakenError(Exception):
    """A request that never left, since LangChain has no form of it for the provider."""


@dataclass(frozen=True)
class Failure:
    """Why a call gave no answer, in words of our own.

    What an exception says may hold a key or the whole request, so it is never passed on: only its type's
    name and a status are.
    """

    kind: FailureKind
    reason: str
    wait: float | None = None
    """Seconds that the provider asks to wait."""


def failure_of(error: BaseException) -> Failure:
    """What went wrong, by an exception's status, type and headers; its text is never looked at."""
    if isinstance(error, NotTakenError):
        return Failure("form", "it does not take the request")
    names = {kind.__name__ for kind in type(error).__mro__}
    code = getattr(error, "code", None)
    if names & DECLINED or code == "content_filter":
        return Failure("declined", "the provider declined to answer")
    if code == "insufficient_quota":
        return Failure("lasting", "the account's quota is used up")
    status = _status(error)
    return _failure_by_type(error, names) if status is None else _failure_by_status(error, status)


def _failure_by_type(error: BaseException, names: set[str]) -> Failure:
    if names & TIMED_OUT:
        return Failure("passing", "it did not answer in time")
    if names & UNREACHABLE:
        return Failure("passing", "the connection failed")
    if names & UNREADABLE:
        return Failure("malformed", f"it can't be read ({type(error).__name__})")
    return Failure("lasting", f"the call failed with {type(error).__name__}")


def _failure_by_status(error: BaseException, status: int) -> Failure:
    if status in PASSING_STATUS or status >= 500:
        wait = _asked_wait(error)
        if wait is not None and wait > LONGEST_WAIT:
            return Failure("lasting", f"it asks to wait {wait:.0f} seconds (HTTP {status})")
        return Failure("passing", f"it answered HTTP {status}", wait)
    kind: FailureKind = "form" if status in FORM_STATUS else "lasting"
    return Failure(kind, f"{REASONS.get(status, 'it refused')} (HTTP {status})")


class Caller:
    """Calls one provider from many threads."""

    def __init__(self, *, retries: int, timeout: float, max_calls: int | None) -> None:
        """Bound calls.

        Args:
            retries: Repetitions of a call after a passing failure.
            timeout: Seconds for one call.
            max_calls: Calls in all, repetitions included; None for any number.
        """
        self._retries = retries
        self._timeout = timeout
        self._max_calls = max_calls
        self._lock = threading.Lock()
        self.calls = 0

    def call(self, ask: Callable[[], Any], stop: threading.Event, *parts: Part) -> Any:
        """What ``ask`` returns, or a Failure; ``parts`` decide the jitter of the waits.

        A set ``stop`` ends the waits.
        """
        attempt = 0
        while True:
            if stop.is_set():
                return Failure("stopped", "another call failed")
            if not self._take():
                return Failure("lasting", f"the bound of {self._max_calls} calls is used up")
            outcome = self._once(ask)
            if not isinstance(outcome, Failure) or outcome.kind != "passing":
                return outcome
            if attempt == self._retries:
                return Failure("lasting", f"{outcome.reason}, {attempt + 1} times")
            # half of it at least: calls that failed together must not come back together
            jitter = np.random.default_rng(derived_seed("wait", attempt, *parts)).uniform(0.5, 1.0)
            stop.wait(max(outcome.wait or 0.0, min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * jitter))
            attempt += 1

    def _take(self) -> bool:
        with self._lock:
            if self._max_calls is not None and self.calls >= self._max_calls:
                return False
            self.calls += 1
            return True

    def _once(self, ask: Callable[[], Any]) -> Any:
        """One call, in a thread that can be left behind: not every model knows a time limit of its own."""
        outcome: list[Any] = []

        def work() -> None:
            try:
                outcome.append(ask())
            except Exception as error:
                outcome.append(failure_of(error))

        thread = threading.Thread(target=copy_context().run, args=(work,), daemon=True)
        thread.start()
        thread.join(self._timeout)
        # a thread that dies of something other than an Exception leaves nothing either
        if not outcome:
            return Failure("passing", f"it did not answer within {self._timeout:g} seconds")
        return outcome[0]


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    found = (
        getattr(error, "status_code", None),
        getattr(error, "http_status", None),
        getattr(error, "code", None),
        getattr(response, "status_code", None),
    )
    return next((value for value in found if isinstance(value, int) and 400 <= value < 600), None)


def _asked_wait(error: BaseException) -> float | None:
    """Seconds by ``Retry-After``, which holds a number or a date."""
    headers = getattr(getattr(error, "response", None), "headers", None)
    if not isinstance(headers, Mapping):
        return None
    asked = str(headers.get("retry-after") or headers.get("Retry-After") or "")
    try:
        return max(0.0, float(asked))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(asked)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
