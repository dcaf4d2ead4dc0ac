"""Calls to a provider: bounded in number and time, repeated where that helps, and reported without secrets.

LangChain's ``with_retry`` isn't used: it knows no ``Retry-After``, no bound on all calls together, and no
waits that end when another call has failed for good. Its time limits are each provider's own.
"""

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

FailureKind = Literal["transient", "unsupported", "malformed", "declined", "permanent", "stopped"]
"""Worth repeating; the form of the request isn't supported; no answer can be read; the model declined; of no
use to repeat; not asked, since another call failed for good."""

TRANSIENT_STATUS = frozenset({408, 409, 425, 429})
UNSUPPORTED = "it does not take the request"
UNSUPPORTED_STATUS = {
    400: UNSUPPORTED,
    413: "it does not take so large a request",
    415: UNSUPPORTED,
    422: UNSUPPORTED,
}
REFUSED_STATUS = {
    401: "it does not accept the credentials",
    403: "it does not accept the credentials",
    404: "it does not know the model or the address",
}
DECLINED_NAMES = frozenset({"ContentFilterFinishReasonError", "OpenAIRefusalError"})
_LATE: tuple[FailureKind, str] = ("transient", "it did not answer in time")
_UNREACHABLE: tuple[FailureKind, str] = ("transient", "the connection failed")
_UNREADABLE: tuple[FailureKind, str] = ("malformed", "it can't be read ({})")
BY_NAME = {
    _LATE: {"APITimeoutError", "ModelTimeoutError", "TimeoutError", "TimeoutException"},
    _UNREACHABLE: {"APIConnectionError", "ConnectionError", "ModelConnectionError", "TransportError"}
    | {"ProtocolError"},
    _UNREADABLE: {"APIResponseValidationError", "LengthFinishReasonError", "OutputParserException"}
    | {"AttributeError", "KeyError", "IndexError", "TypeError", "ValueError"},
}
"""Exceptions that have no status, by the names of their classes: providers' packages may not be installed."""


class UnsupportedMediaError(Exception):
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
    if isinstance(error, UnsupportedMediaError):
        return Failure("unsupported", UNSUPPORTED)
    names = {kind.__name__ for kind in type(error).__mro__}
    code = getattr(error, "code", None)
    if names & DECLINED_NAMES or code == "content_filter":
        return Failure("declined", "the provider declined to answer")
    if code == "insufficient_quota":
        return Failure("permanent", "the account's quota is used up")
    status = _status(error)
    if status is not None:
        return _failure_by_status(error, status)
    for (kind, reason), classes in BY_NAME.items():
        if names & classes:
            return Failure(kind, reason.format(type(error).__name__))
    return Failure("permanent", f"the call failed with {type(error).__name__}")


def _failure_by_status(error: BaseException, status: int) -> Failure:
    if status in UNSUPPORTED_STATUS:
        return Failure("unsupported", f"{UNSUPPORTED_STATUS[status]} (HTTP {status})")
    if status not in TRANSIENT_STATUS and status < 500:
        return Failure("permanent", f"{REFUSED_STATUS.get(status, 'it refused')} (HTTP {status})")
    wait = _asked_wait(error)
    if wait is not None and wait > LONGEST_WAIT:
        return Failure("permanent", f"it asks to wait {wait:.0f} seconds (HTTP {status})")
    return Failure("transient", f"it answered HTTP {status}", wait)


class Caller:
    """Calls one provider from many threads."""

    def __init__(self, *, retries: int, timeout: float, max_calls: int | None) -> None:
        """Bound calls.

        Args:
            retries: Repetitions of a call after a transient failure.
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
        for attempt in range(self._retries + 1):
            if stop.is_set():
                return Failure("stopped", "another call failed")
            with self._lock:
                if self._max_calls is not None and self.calls >= self._max_calls:
                    return Failure("permanent", f"the bound of {self._max_calls} calls is used up")
                self.calls += 1
            outcome = self._once(ask)
            if not isinstance(outcome, Failure) or outcome.kind != "transient":
                return outcome
            if attempt < self._retries:
                # half of it at least: calls that failed together must not come back together
                jitter = np.random.default_rng(derived_seed("wait", attempt, *parts)).uniform(0.5, 1.0)
                stop.wait(max(outcome.wait or 0.0, min(FIRST_WAIT * 2**attempt, LONGEST_WAIT) * jitter))
        return Failure("permanent", f"{outcome.reason}, {self._retries + 1} times")

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
            return Failure("transient", f"it did not answer within {self._timeout:g} seconds")
        return outcome[0]


def _status(error: BaseException) -> int | None:
    places: list[tuple[Any, str]] = [(error, name) for name in ("status_code", "http_status", "code")]
    places.append((getattr(error, "response", None), "status_code"))
    statuses = (getattr(place, name, None) for place, name in places)
    return next((value for value in statuses if isinstance(value, int) and 400 <= value < 600), None)


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
    return max(0.0, (until.replace(tzinfo=until.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
