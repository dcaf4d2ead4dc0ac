"""``omg run --planner``: the chat planner over HTTP, and what it says when it can't."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omg_graph.cli import main
from omg_graph.data.reader import read_data_file
from omg_graph.data.recordings import Recording
from omg_graph.data.writing import save_sample
from omg_graph.model.folder import load_model
from omg_graph.planner import calling
from omg_graph.planner.prompting import load_prompt

SECRET = "sk-secret"
Capture = pytest.CaptureFixture[str]
Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
CHAT = ("--planner", "chat", "--planner-model", "openai:tiny")


@pytest.fixture(autouse=True)
def _environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chat_server: Any, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(calling, "FIRST_WAIT", 0.01)
    monkeypatch.setenv("OMG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)


@pytest.fixture
def answers(tiny_model_folder: Path) -> list[str]:
    """Two valid plans of the tiny model's schema, as JSON."""
    schema = load_model(tiny_model_folder).schema
    return [
        json.dumps({field.name: (field.values or ())[place] for field in schema.fields}) for place in (0, -1)
    ]


@pytest.fixture
def run(tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path, capsys: Capture) -> Run:
    """``omg run`` on two clips; its code, its trajectories and everything that it said."""

    def go(*arguments: str, source: Sequence[str] = ()) -> tuple[int, list[dict[str, Any]], str]:
        output = tmp_path / "out"
        source = source or ("--input", str(tiny_data_file), "--split", "test", "--limit", "2")
        model = ("--model", str(tiny_model_folder))
        code = main(["run", *source, *model, "--output", str(output), *arguments])
        out, err = capsys.readouterr()
        written = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert SECRET not in out + err
        assert not any(SECRET.encode() in path.read_bytes() for path in written)
        lines = output / "trajectory.jsonl"
        made = [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if code == 0 else []
        return code, made, out + err

    return go


def test_a_chat_model_plans(run: Run, chat_server: Any, answers: list[str]) -> None:
    chat_server.reply = lambda _, n: answers[n % 2]
    code, chat, told = run(*CHAT)
    assert code == 0, told
    assert "agreement among candidates" in told
    _, own, _ = run()
    prompt = load_prompt()
    for planned, distilled in zip(chat, own, strict=True):
        plan = planned.pop("plan")
        assert plan["planner"] == "chat openai:tiny"
        assert (plan["prompt_version"], plan["prompt_sha256"]) == (prompt.version, prompt.sha256)
        assert plan["confidence"] == "agreement among candidates"
        assert not {"prompt_version", "prompt_sha256", "confidence"} & set(distilled.pop("plan"))
        # what doesn't hang on the plan is the same
        for name in ("id", "observed", "missing", "hidden", "raw_text", "notes", "seed", "model"):
            assert planned[name] == distilled[name]
        assert planned.keys() == distilled.keys()


def test_a_second_run_pays_nothing_and_says_the_same(run: Run, chat_server: Any, answers: list[str]) -> None:
    chat_server.reply = lambda _, n: answers[n % 2]
    _, first, _ = run(*CHAT)
    paid = len(chat_server.requests)
    code, again, _ = run(*CHAT, "--max-planner-calls", "1")
    assert code == 0
    assert len(chat_server.requests) == paid == 10
    for made in (*first, *again):
        made.pop("timings")
    assert again == first
    code, _, _ = run(*CHAT, "--no-planner-cache")
    assert code == 0
    assert len(chat_server.requests) == 2 * paid


def test_hidden_text_is_not_sent(run: Run, chat_server: Any, answers: list[str]) -> None:
    chat_server.reply = lambda *_: answers[0]
    code, made, _ = run(*CHAT, "--missing", "text", "--planner-language", "zh")
    assert code == 0
    for request in chat_server.requests:
        sample = json.loads(request["messages"][-1]["content"])
        assert sample["transcript"] is None
        assert sample["missing"] == ["text"]
    assert made[0]["plan"]["prompt_sha256"] == load_prompt("zh").sha256


@pytest.mark.parametrize(("media", "sent"), [("on", True), ("auto", False)])
def test_recordings_are_sent_as_asked(
    run: Run,
    chat_server: Any,
    answers: list[str],
    tiny_data_file: Path,
    tmp_path: Path,
    media: str,
    sent: bool,
) -> None:
    chat_server.reply = lambda *_: answers[0]
    split = read_data_file(tiny_data_file).splits["test"].take([0])
    face = np.full((9, 9, 3), 200, np.uint8)
    recorded = {"vision": (Recording("image", face),), "audio": (Recording("image", face),)}
    save_sample(tmp_path / "one.pkl", replace(split, recordings=recorded))
    options = ("--missing", "audio", "--planner-media", media)
    code, (made,), told = run(*CHAT, *options, source=("--input", str(tmp_path / "one.pkl")))
    assert code == 0, told
    for request in chat_server.requests:
        content = request["messages"][-1]["content"]
        blocks = ["text", "text", "image_url"]  # the hidden one is no part of it
        assert [part["type"] for part in content] == blocks if sent else isinstance(content, str)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert ("recordings vision (9 x 9)" in told) == ("<bdi>vision (9 x 9)</bdi>" in page) == sent
    seen = made["plan"].get("recordings", [])
    assert [(one["modality"], one["width"]) for one in seen] == ([("vision", 9)] if sent else [])
    assert any("--planner-media on" in note for note in made["notes"]) == (media == "auto")


def test_an_invalid_plan_is_an_error_or_a_marked_fall_back(
    run: Run, chat_server: Any, answers: list[str]
) -> None:
    chat_server.reply = lambda *_: "no"
    code, _, told = run(*CHAT)
    assert code == 2
    assert "--on-invalid-plan distilled" in told
    assert told.count("\n") <= 2
    code, made, told = run(*CHAT, "--on-invalid-plan", "distilled")
    assert code == 0, told
    for trajectory in made:
        assert trajectory["plan"]["planner"] == "distilled (fallback)"
        assert "confidence" not in trajectory["plan"]
        assert any("gave no valid plan" in note for note in trajectory["notes"])
    _, own, _ = run()
    assert [t["plan"]["candidates"] for t in made] == [t["plan"]["candidates"] for t in own]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*CHAT, "--max-planner-calls", "3"), "bound of 3 calls"),
        (("--planner", "chat"), "--planner-model openai:"),
        (("--planner", "chat", "--planner-model", "nobody:tiny"), "PROVIDER:MODEL"),
        (("--planner-model", "openai:tiny"), "--planner chat"),
        (("--planner", "oracle"), "chat, distilled"),
    ],
)
def test_what_cannot_be_is_one_line(
    run: Run, chat_server: Any, answers: list[str], arguments: tuple[str, ...], words: str
) -> None:
    chat_server.reply = lambda *_: answers[0]
    code, _, told = run(*arguments)
    assert code == 2
    assert words in told
    assert "Traceback" not in told


def test_a_rejected_key_is_not_repeated(run: Run, chat_server: Any) -> None:
    body = {"error": {"message": f"Incorrect API key provided: {SECRET}", "code": "invalid_api_key"}}
    chat_server.reply = lambda *_: (401, {}, body)
    code, _, told = run(*CHAT, "--on-invalid-plan", "distilled", "--debug")
    assert code == 2
    assert "credentials" in told


def test_a_missing_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    code, _, told = run(*CHAT)
    assert code == 2
    assert "OPENAI_API_KEY" in told


def test_without_the_extra_one_line_names_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("langchain", "langchain.chat_models"):
        monkeypatch.setitem(sys.modules, name, None)
    code, _, told = run(*CHAT)
    assert code == 2
    assert "pip install 'omg-graph[chat]'" in told
