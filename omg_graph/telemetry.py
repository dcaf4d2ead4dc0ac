"""What a run does, for those who watch it: for each step a line in the log and a span of OpenTelemetry.

Both hold names, counts and seconds. What users bring (texts, ids, plans) is left out of spans unless
``OMG_TRACE_CONTENT=true`` asks for it, and out of the log always.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from omg_graph.errors import ConfigError

CONTENT = "OMG_TRACE_CONTENT"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
HIDDEN = ("LANGSMITH_HIDE_INPUTS", "LANGSMITH_HIDE_OUTPUTS")
"""LangSmith's own variables: whether a trace leaves out what goes into a node and what comes out."""

_log = logging.getLogger("omg_graph")


class Step:
    """A step under way, which counts may be added to as they become known."""

    def __init__(self, counts: dict[str, int | float]) -> None:
        self.counts = counts
        self.texts: dict[str, list[str]] = {}

    def count(self, **counts: int | float) -> None:
        """Note numbers: sizes, hits, calls."""
        self.counts.update(counts)

    def content(self, **texts: list[str]) -> None:
        """Note what users bring or read; it is recorded on request alone."""
        self.texts.update(texts)


@contextmanager
def step(name: str, *, level: int = logging.INFO, **counts: int | float) -> Iterator[Step]:
    """A step of the work: its span, and its line in the log when it ends.

    Args:
        name: What is done, e.g. ``planner``; the span is called ``omg.planner``.
        level: Of the line in the log.
        counts: Numbers that are known from the start.
    """
    from opentelemetry import trace

    made, started = Step(dict(counts)), time.perf_counter()
    tracer = trace.get_tracer("omg_graph")
    # an exception's words may quote a user's file: its kind alone is recorded
    with tracer.start_as_current_span(
        f"omg.{name}", record_exception=False, set_status_on_exception=False
    ) as span:
        ended = ""
        try:
            yield made
        except BaseException as error:
            ended = type(error).__name__
            span.set_attribute("error.type", ended)
            raise
        finally:
            for key, number in made.counts.items():
                span.set_attribute(f"omg.{key}", number)
            if os.environ.get(CONTENT, "").lower() == "true":
                for key, texts in made.texts.items():
                    span.set_attribute(f"omg.content.{key}", texts)
            _log.log(level, "%s", _line(name, time.perf_counter() - started, made.counts, ended))


def _line(name: str, seconds: float, counts: dict[str, int | float], ended: str) -> str:
    told = [f"{key.replace('_', ' ')} {number:g}" for key, number in counts.items()]
    return f"{name}: {', '.join([f'{seconds:.3f} s', *told, *([f'ended by {ended}'] if ended else [])])}"


def export_spans() -> None:
    """Send spans where OpenTelemetry's usual variables say, for a process of our own.

    A program that embeds the library sets up OpenTelemetry as it likes; without that, and without these
    variables, spans cost next to nothing and go nowhere.

    Raises:
        ConfigError: if a variable names an endpoint and the extra ``telemetry`` isn't installed.
    """
    named = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if named is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
    except ImportError:
        raise ConfigError(
            f"{named} asks for spans, and the packages that send them aren't there: "
            "pip install 'omg-graph[telemetry]', or unset it"
        ) from None
    from opentelemetry import trace

    provider: Any = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(resource=Resource.create({"service.name": "omg"}))
        trace.set_tracer_provider(provider)

    place = f"{named}={os.environ[named]}"

    class Exporter(OTLPSpanExporter):
        """Tells once, at the end, of what didn't arrive, and not of each time that it tried."""

        lost = 0

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            result = super().export(spans)
            self.lost += 0 if result is SpanExportResult.SUCCESS else len(spans)
            return result

        def shutdown(self) -> None:
            super().shutdown()  # type: ignore[no-untyped-call]
            if self.lost:
                remedy = "see that a collector answers there, or unset it"
                _log.warning("%d spans didn't arrive at %s: %s", self.lost, place, remedy)

    if not _log.isEnabledFor(logging.DEBUG):
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
    provider.add_span_processor(BatchSpanProcessor(Exporter()))


def keep_content_home() -> None:
    """Have LangSmith's traces hold names, times and errors alone, unless the environment asks for more.

    For processes of our own: LangSmith reads the variables when its client is made.
    """
    for name in HIDDEN:
        os.environ.setdefault(name, "true")
