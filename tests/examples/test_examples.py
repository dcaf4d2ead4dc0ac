"""Every program in examples/ runs as its first lines say, and does what they say."""

from __future__ import annotations

import re
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

from omg_graph.model.folder import load_model

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(path.name for path in EXAMPLES.glob("*.py"))


def run(name: str, capsys: pytest.CaptureFixture[str]) -> str:
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out


@pytest.mark.parametrize("name", PROGRAMS)
def test_short_and_says_how_to_run_it(name: str) -> None:
    content = (EXAMPLES / name).read_text("utf-8")
    assert f"python examples/{name}" in content.split('"""')[1]
    assert len(content.splitlines()) <= 50


def test_a_plain_function_sync_and_async(capsys: pytest.CaptureFixture[str]) -> None:
    told = run("function.py", capsys)
    assert "audio: (74,) numbers" in told
    assert re.findall(r"^without (\w+) too: \w+", told, re.M) == ["vision", "text"]


def test_a_node_of_a_graph_with_another_state(capsys: pytest.CaptureFixture[str]) -> None:
    assert re.search(r"you found it \w[\w ]+, as did synthetic-\d+\$_\$\d+\.", run("subgraph.py", capsys))


def test_a_tool(capsys: pytest.CaptureFixture[str]) -> None:
    told = run("tool.py", capsys)
    assert "missing audio" in told
    assert "audio, the first of 74 numbers" in told
    assert "error: path: expected a file in the data folder, got '../README.md'" in told


def test_a_review(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The person slips twice, and then edits the plan."""
    said = iter(["99", "Sentiment=so so", "Sentiment=negative"])
    monkeypatch.setattr("builtins.input", lambda _: next(said))
    told = run("review.py", capsys)
    assert "a candidate from 1 to" in told
    assert "Sentiment can't be 'so so'" in told
    assert re.search(r"^plan: .*, negative, chosen by: edited$", told, re.M)


def test_what_if(capsys: pytest.CaptureFixture[str]) -> None:
    told = run("whatif.py", capsys)
    assert re.findall(r"^if it were ([\w ]+): ", told, re.M) == [
        "strongly negative",
        "neutral",
        "strongly positive",
    ]
    assert re.search(r"^without synthetic-\S+: .* moved by 0\.\d*[1-9]", told, re.M)


class ScriptedChatModel(BaseChatModel):
    """Calls the first tool it was given for the file that the question names, then answers from its text."""

    tool_name: str = ""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> Runnable[Any, AIMessage]:
        return ScriptedChatModel(tool_name=tools[0].name)

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            label = re.search(r"^Prediction: (\D+) [+-]", str(last.content), re.M)
            ids = re.findall(r"^- (\S+) \(weight", str(last.content), re.M)
            answer = AIMessage(f"{label and label[1]}, which rests on {', '.join(ids)}")
        else:
            file = re.search(r"\S+\.pkl", str(last.content))
            call = {"id": "call-1", "name": self.tool_name, "args": {"path": file and file[0]}}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


def test_an_agent_answers_with_the_evidence_it_rests_on() -> None:
    names = runpy.run_path(str(EXAMPLES / "agent.py"))
    agent = names["build_agent"](ScriptedChatModel(), load_model())
    asked, call, found, answer = agent.invoke({"messages": [("user", names["QUESTION"])]})["messages"]
    assert "no audio" in asked.content
    assert call.tool_calls[0]["name"] == "reconstruct_missing_modality"
    (trajectory,) = found.artifact
    assert trajectory.missing == ("audio",)
    heaviest = sorted(trajectory.evidence["audio"], key=lambda entry: -entry.weight)[:3]
    assert answer.content == f"{trajectory.prediction.label}, which rests on " + ", ".join(
        entry.id for entry in heaviest
    )
