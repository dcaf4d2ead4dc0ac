"""Spans and log lines of a run: what they hold, and what they never hold unasked."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from omg_graph.data.reader import read_data_file
from omg_graph.errors import DataError
from omg_graph.graph import build_graph
from omg_graph.model.folder import load_model
from omg_graph.state import Settings
from omg_graph.telemetry import CONTENT, step

NODES = ["planner", "rerank", "retriever", "executor"]


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    return kept


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> Iterator[InMemorySpanExporter]:
    exporter.clear()
    yield exporter
    exporter.clear()


def run(folder: Path, data: Path) -> Any:
    request = {"path": str(data), "split": "test", "missing": ["audio"], "limit": 2}
    return build_graph(load_model(folder)).invoke(request, context=Settings(draws=2, candidates=3))


def by_name(spans: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in spans.get_finished_spans()}


def test_spans_and_log_lines_of_a_run(
    spans: InMemorySpanExporter,
    tiny_model_folder: Path,
    tiny_data_file: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One for each node and model call, with counts; nothing that a user brings is in them unasked."""
    with caplog.at_level(logging.INFO, logger="omg_graph"):
        result = run(tiny_model_folder, tiny_data_file)
    found = by_name(spans)
    nodes = [name for name in found if name.removeprefix("omg.") in NODES]
    assert nodes == [f"omg.{node}" for node in NODES]
    assert found["omg.planner"].attributes["omg.candidates"] == 6
    entries = sum(len(t.evidence["audio"]) for t in result["trajectories"])
    assert found["omg.retriever"].attributes["omg.entries"] == entries
    assert found["omg.executor"].attributes["omg.reconstructed"] == 2
    assert found["omg.planner.call"].parent.span_id == found["omg.planner"].context.span_id
    assert found["omg.retriever.query"].attributes["omg.queries"] == 2
    draws = [span for span in spans.get_finished_spans() if span.name == "omg.executor.draw"]
    assert [span.attributes["omg.draw"] for span in draws] == [0, 1]
    assert all(span.parent.span_id == found["omg.executor"].context.span_id for span in draws)
    for part in (f"from {tiny_model_folder}", "index ", *(f"{node}: " for node in NODES)):
        assert part in caplog.text
    for secret in secrets(tiny_data_file, result):
        assert secret not in sent(spans)
    assert secrets(tiny_data_file, result)[1] not in caplog.text


def test_what_users_bring_goes_out_on_request(
    spans: InMemorySpanExporter,
    tiny_model_folder: Path,
    tiny_data_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CONTENT, "true")
    result = run(tiny_model_folder, tiny_data_file)
    for secret in secrets(tiny_data_file, result):
        assert secret in sent(spans)


def sent(spans: InMemorySpanExporter) -> str:
    return "\n".join(span.to_json() for span in spans.get_finished_spans())


def secrets(data: Path, result: Any) -> tuple[str, str, str]:
    """An id, a transcript and a plan of the run."""
    split = read_data_file(data).splits["test"]
    assert split.raw_text is not None
    return split.ids[0], json.dumps(split.raw_text[0])[1:-1], result["trajectories"][0].plan.text


def test_a_failure_is_marked_by_its_kind_without_its_words(spans: InMemorySpanExporter) -> None:
    with pytest.raises(DataError), step("reading"):
        raise DataError("my-secret.pkl")
    (span,) = spans.get_finished_spans()
    assert span.attributes["error.type"] == "DataError"
    assert "my-secret" not in span.to_json()


class Collector:
    """An endpoint on loopback that keeps what is posted to it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(b"{}")

            def do_POST(self) -> None:
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    body = b""
                    while size := int(self.rfile.readline().strip() or b"0", 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.bodies.append(body)
                self._answer(b"{}")

            do_PATCH = do_POST  # noqa: N815

            def _answer(self, content: bytes) -> None:
                self.send_response(202)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def test_a_collector_that_isnt_there_is_told_in_a_line() -> None:
    """However often OpenTelemetry tries, and in a process of its own, as its settings hold for all of it."""
    program = (
        "from omg_graph.telemetry import export_spans, step\n"
        "export_spans()\n"
        "with step('planner'):\n"
        "    pass\n"
    )
    environment = os.environ | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("1 spans didn't arrive at OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:9: ")


@pytest.mark.parametrize("asked", [False, True])
def test_traces_arrive_at_langsmith_and_spans_at_a_collector(
    collector: Collector, tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path, asked: bool
) -> None:
    """By the usual variables of both; texts and numbers of the user's only where those ask for them."""
    environment = os.environ | {
        "LANGSMITH_TRACING": "true",
        "LANGSMITH_ENDPOINT": collector.url,
        "LANGSMITH_API_KEY": "no-key",
        "LANGSMITH_DISABLE_RUN_COMPRESSION": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        **({"LANGSMITH_HIDE_INPUTS": "false", "LANGSMITH_HIDE_OUTPUTS": "false"} if asked else {}),
    }
    command = [sys.executable, "-m", "omg_graph.cli", "run", "-v", "--input", str(tiny_data_file)]
    given = ["--split", "test", "--limit", "1", "--missing", "audio", "--model", str(tiny_model_folder)]
    done = subprocess.run(
        [*command, *given, "--output", str(tmp_path / "out"), "--no-report"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "executor: " in done.stderr
    assert "no-key" not in done.stderr
    sent = b"\n".join(collector.bodies)
    assert b"reconstruct" in sent
    assert b"omg.retriever.query" in sent
    split = read_data_file(tiny_data_file).splits["test"]
    assert split.raw_text is not None
    assert (json.dumps(split.raw_text[0])[1:-1].encode() in sent) == asked
