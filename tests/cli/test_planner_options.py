"""``omg run --planner``: a flag changes who plans and nothing else; the chat planner over HTTP."""

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
CLIPS = ("--split", "test", "--limit", "2")
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

    def go(*arguments: str, source: Sequence[str] = CLIPS) -> tuple[int, list[dict[str, Any]], str]:
        output = tmp_path / "out"
        if source is CLIPS:
            source = ("--input", str(tiny_data_file), *CLIPS)
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


AUDIO = ("--missing", "audio", "--no-report")
GIVEN = ("id", "group", "observed", "missing", "hidden", "raw_text", "left_out", "seed", "model")
"""What a sample brings along, and what is asked of it: whoever plans."""

OF_THE_PLANNER = {"planner", "prompt_version", "prompt_sha256", "confidence", "recordings", "decoding"} | {
    "constraints",
    "candidates",
    "chosen",
}
"""Parts of a plan that say who wrote it, how sure it is, and what else was drawn."""

WHO_PLANNED = ("plan", "notes", "timings", "utility")
"""Fields that may differ though the same plan wins: who wrote it, what was noted, and how long it took."""


def constraints(document: dict[str, Any]) -> list[str]:
    return [constraint["value"] for constraint in document["plan"]["constraints"]]


def test_the_same_sample_by_three_planners(run: Run, chat_server: Any, tiny_thinker_folder: Path) -> None:
    _, own, _ = run(*AUDIO)
    others = {"Entity": "music", "Action": "hesitates", "Sentiment": "strongly negative"}
    chat_server.reply = lambda *_: json.dumps(others)
    _, chat, told = run(*AUDIO, *CHAT)
    _, omni, _ = run(*AUDIO, "--planner", "qwen-omni", "--planner-model", str(tiny_thinker_folder))
    assert "agreement among candidates" in told
    prompt = load_prompt()
    for documents in zip(own, chat, omni, strict=True):
        names = [document["plan"]["planner"] for document in documents]
        assert names[0] == "distilled"
        assert names[1] == "chat openai:tiny"
        assert names[2].startswith("qwen-omni")
        plan = documents[1]["plan"]
        assert (plan["prompt_version"], plan["prompt_sha256"]) == (prompt.version, prompt.sha256)
        assert plan["confidence"] == "agreement among candidates"
        assert not {"prompt_version", "prompt_sha256", "confidence"} & set(documents[0]["plan"])
        for name in GIVEN:
            assert documents[0].get(name) == documents[1].get(name) == documents[2].get(name), name
        # the same steps, each with the same parts
        for name in ("reconstruction", "denoising", "evidence", "lengths", "length_source"):
            assert documents[0][name].keys() == documents[1][name].keys() == documents[2][name].keys(), name
        assert documents[0]["plan"]["schema_name"] == documents[1]["plan"]["schema_name"]
        assert documents[0]["plan"]["semantic_weight"] == documents[2]["plan"]["semantic_weight"]
        assert constraints(documents[1]) == list(others.values())
        arrays = [{name: ref["sha256"] for name, ref in document["arrays"].items()} for document in documents]
        assert arrays[0].keys() == arrays[1].keys() == arrays[2].keys()
        if constraints(documents[0]) != constraints(documents[1]):
            assert arrays[0]["plan_embedding"] != arrays[1]["plan_embedding"]


def test_the_same_plan_leads_to_the_same_everything(run: Run, chat_server: Any) -> None:
    _, own, _ = run(*AUDIO)
    plans = {document["raw_text"]: constraints(document) for document in own}

    def reply(body: dict[str, Any], _: int) -> str:
        transcript = json.loads(body["messages"][-1]["content"])["transcript"]
        return json.dumps(dict(zip(("Entity", "Action", "Sentiment"), plans[transcript], strict=True)))

    chat_server.reply = reply
    _, chat, _ = run(*AUDIO, *CHAT)
    for one, other in zip(own, chat, strict=True):
        assert one.keys() == other.keys()
        for name in one.keys() - set(WHO_PLANNED):
            assert one[name] == other[name], name
        assert constraints(one) == constraints(other)
        for name in one["plan"].keys() - OF_THE_PLANNER:
            assert one["plan"][name] == other["plan"][name], name
        terms = [{**document["utility"], "weights": None} for document in (one, other)]
        assert terms[0] == terms[1]


def test_qwen_omni_draws_as_the_run_asks(run: Run, tiny_thinker_folder: Path) -> None:
    omni = ("--planner", "qwen-omni", "--planner-model", str(tiny_thinker_folder))
    (_, usual, _), (_, asked, _) = run(*AUDIO, *omni), run(*AUDIO, "--no-greedy", "--temperature", "3", *omni)
    assert all(any(one["greedy"] for one in document["plan"]["candidates"]) for document in usual)
    assert not any(one["greedy"] for document in asked for one in document["plan"]["candidates"])
    assert not any("no effect" in remark for document in asked for remark in document["notes"])


def test_what_a_planner_makes_nothing_of_is_told(run: Run, chat_server: Any, answers: list[str]) -> None:
    chat_server.reply = lambda *_: answers[0]
    _, plain, _ = run(*CHAT, *AUDIO)
    assert not any("no effect" in remark for document in plain for remark in document["notes"])
    note = "temperature, top_p have no effect: chat openai:tiny ignores sampling settings"
    _, asked, told = run("--temperature", "2", "--top-p", "0.5", *CHAT, *AUDIO)
    assert [document["notes"].count(note) for document in asked] == [1, 1]
    assert told.count(note) == 1


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
