"""One sample, three planners: a flag changes who plans, and the trajectories differ in nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omg_graph.cli import main

Document = dict[str, Any]
Run = Callable[..., list[Document]]

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


@pytest.fixture
def run(
    tiny_model_folder: Path,
    tiny_data_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chat_server: Any,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """``omg run`` of two clips without their audio; the trajectories as they are on disk."""
    monkeypatch.setenv("OMG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    sample = ["--input", str(tiny_data_file), "--split", "test", "--limit", "2", "--missing", "audio"]

    def go(*planner: str) -> list[Document]:
        output = tmp_path / "-".join(planner).replace("/", "_")[:60]
        code = main(
            [
                "run",
                *sample,
                "--model",
                str(tiny_model_folder),
                "--output",
                str(output),
                "--no-report",
                *planner,
            ]
        )
        assert code == 0, capsys.readouterr().err
        lines = (output / "trajectory.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    return go


def constraints(document: Document) -> list[str]:
    return [constraint["value"] for constraint in document["plan"]["constraints"]]


def test_the_same_sample_by_three_planners(run: Run, chat_server: Any, tiny_thinker_folder: Path) -> None:
    own = run("--planner", "distilled")
    others = {"Entity": "music", "Action": "hesitates", "Sentiment": "strongly negative"}
    chat_server.reply = lambda *_: json.dumps(others)
    chat = run("--planner", "chat", "--planner-model", "openai:tiny")
    omni = run("--planner", "qwen-omni", "--planner-model", str(tiny_thinker_folder))
    for documents in zip(own, chat, omni, strict=True):
        names = [document["plan"]["planner"] for document in documents]
        assert names[0] == "distilled"
        assert names[1] == "chat openai:tiny"
        assert names[2].startswith("qwen-omni")
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
    own = run("--planner", "distilled")
    plans = {document["raw_text"]: constraints(document) for document in own}

    def reply(body: dict[str, Any], _: int) -> str:
        transcript = json.loads(body["messages"][-1]["content"])["transcript"]
        return json.dumps(dict(zip(("Entity", "Action", "Sentiment"), plans[transcript], strict=True)))

    chat_server.reply = reply
    chat = run("--planner", "chat", "--planner-model", "openai:tiny")
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
    usual, asked = run(*omni), run("--no-greedy", "--temperature", "3", *omni)
    assert all(any(one["greedy"] for one in document["plan"]["candidates"]) for document in usual)
    assert not any(one["greedy"] for document in asked for one in document["plan"]["candidates"])
    assert not any("no effect" in remark for document in asked for remark in document["notes"])


def test_what_a_planner_makes_nothing_of_is_told(
    run: Run, chat_server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = {"Entity": "music", "Action": "hesitates", "Sentiment": "strongly negative"}
    chat_server.reply = lambda *_: json.dumps(plan)
    chat = ("--planner", "chat", "--planner-model", "openai:tiny")
    assert not any("no effect" in remark for document in run(*chat) for remark in document["notes"])
    capsys.readouterr()
    told = "temperature, top_p have no effect: chat openai:tiny ignores sampling settings"
    for document in run("--temperature", "2", "--top-p", "0.5", *chat):
        assert document["notes"].count(told) == 1
    shown = capsys.readouterr()
    assert (shown.err.count(told), shown.out.count(told)) == (1, 0)
