"""The tool that language models call: what they are told, what the program gets, what is refused."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import StructuredTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode

from omg_graph import as_tool
from omg_graph.api import reconstruct
from omg_graph.data.reader import read_data_file
from omg_graph.errors import DataError
from omg_graph.model.model import Model
from omg_graph.record.artifacts import MemoryArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.state import Settings
from omg_graph.tool import EVIDENCE_SHOWN, FILE_SAMPLES, NAME


@pytest.fixture(scope="module")
def folder(tiny_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an operator lets the language model read, beside what it must not."""
    root = tmp_path_factory.mktemp("operator")
    (root / "data" / "clips").mkdir(parents=True)
    shutil.copy(tiny_data_file, root / "data" / "clips" / "ours.pkl")
    shutil.copy(tiny_data_file, root / "secret.pkl")
    (root / "data" / "link.pkl").symlink_to(root / "secret.pkl")
    (root / "data" / "round.pkl").symlink_to("round.pkl")
    (root / "data-too").mkdir()
    shutil.copy(tiny_data_file, root / "data-too" / "secret.pkl")
    return root / "data"


@pytest.fixture(scope="module")
def tool(model: Model, folder: Path) -> StructuredTool:
    return as_tool(model, data_folder=folder)


def call_of(arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_call", "id": "call-1", "name": NAME, "args": arguments}


def ask(tool: StructuredTool, **arguments: Any) -> ToolMessage:
    message = tool.invoke(call_of(json.loads(json.dumps(arguments))))
    assert isinstance(message, ToolMessage)
    return message


def untimed(trajectories: list[Trajectory]) -> list[Trajectory]:
    return [trajectory.model_copy(update={"timings": {}}) for trajectory in trajectories]


def test_what_a_language_model_is_told_of_it(model: Model, tool: StructuredTool) -> None:
    function = convert_to_openai_tool(tool)["function"]
    assert function["name"] == "reconstruct_missing_modality"
    assert len(function["description"]) <= 1024
    wanted = function["parameters"]["properties"]
    assert set(wanted) == {"sample", "path", "split", "limit", "missing", "seed"}
    assert all(argument["description"] for argument in wanted.values())
    assert "required" not in function["parameters"]
    known = wanted["sample"]["anyOf"][0]["properties"]
    assert set(known) == {"id", "raw_text", *model.names}
    for spec in model.config.modalities:
        assert known[spec.name]["description"].startswith(f"{spec.shape[0]} numbers")
        assert {"type": "null"} in known[spec.name]["anyOf"]


def test_without_a_data_folder_there_is_no_path_to_give(
    model: Model, sample: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="data_folder"):
        as_tool(model, data_folder=tmp_path / "none")
    tool = as_tool(model)
    wanted = convert_to_openai_tool(tool)["function"]["parameters"]["properties"]
    assert set(wanted) == {"sample", "missing", "seed"}
    refused = ask(tool, path="clips/ours.pkl")
    assert (refused.status, refused.artifact) == ("error", None)
    assert ask(tool, sample=sample).status == "success"


def test_text_for_the_model_and_trajectories_for_the_program(model: Model, sample: dict[str, Any]) -> None:
    store = MemoryArtifactStore()
    tool = as_tool(model, settings=Settings(steps=3, seed=7), artifacts=store)
    message = ask(tool, sample=sample)
    (expected,) = reconstruct(model, [sample], settings=Settings(steps=3, seed=7))
    (trajectory,) = message.artifact
    assert trajectory.seed == 7, "the operator's, where the call gives none"
    assert trajectory.reconstruction == expected.reconstruction
    assert store.get(trajectory.reconstruction["audio"]).shape == (5,)
    assert trajectory.plan is not None
    assert trajectory.prediction is not None
    text = str(message.content)
    assert text.splitlines()[0] == f"{sample['id']}: missing audio; observed text, vision."
    assert all(f"{link.field} = {link.value}" in text for link in trajectory.plan.constraints)
    entries = sorted(trajectory.evidence["audio"], key=lambda entry: -entry.weight)
    assert [f"- {entry.id} (weight {entry.weight:.2f}," in text for entry in entries] == [
        number < EVIDENCE_SHOWN for number in range(len(entries))
    ]
    assert f"Prediction: {trajectory.prediction.label} {trajectory.prediction.value:+.2f}" in text
    assert len(text) < 2000


def test_what_is_hidden_on_request(tool: StructuredTool, sample: dict[str, Any]) -> None:
    message = ask(tool, sample=sample, missing=["vision"])
    (trajectory,) = message.artifact
    assert trajectory.missing == ("audio", "vision")
    assert trajectory.hidden == ("vision",)
    assert "missing audio, vision (hidden on request); observed text." in message.content


def test_a_file_of_the_data_folder(tool: StructuredTool, folder: Path) -> None:
    message = ask(tool, path="clips/ours.pkl", split="test", missing=["audio"], limit=2)
    ids = read_data_file(folder / "clips" / "ours.pkl").splits["test"].ids[:2]
    assert [trajectory.id for trajectory in message.artifact] == list(ids)
    assert [part.partition(":")[0] for part in str(message.content).split("\n\n")] == list(ids)
    whole = ask(tool, path="clips/ours.pkl", split="train", missing=["audio"])
    assert len(whole.artifact) == FILE_SAMPLES


@pytest.mark.parametrize(
    "path",
    [
        "../secret.pkl",
        "link.pkl",
        "clips/../../secret.pkl",
        "../data-too/secret.pkl",
        "{root}/secret.pkl",
        "a\0b",
        "\ud800",
        "round.pkl",
        "long" * 2000,
    ],
)
def test_no_file_outside_the_data_folder(tool: StructuredTool, folder: Path, path: str) -> None:
    message = ask(tool, path=path.format(root=folder.parent))
    assert (message.status, message.artifact) == ("error", None)
    assert str(message.content).startswith("path: expected a file in the data folder")
    # whether it is there isn't told
    absent = ask(tool, path="../no-such.pkl")
    assert (
        str(absent.content).replace("../no-such.pkl", "")
        == "path: expected a file in the data folder, got '': give a relative path"
    )


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ({}, "sample or path"),
        ({"sample": {"id": "a", "audio": [0.0] * 5}, "path": "clips/ours.pkl"}, "sample or path"),
        ({"sample": {"id": "a", "audio": [1.0, 2.0]}}, "audio"),
        ({"sample": {"id": "a", "audio": [1.0] * 4 + ["\x1b[2J\n"]}}, "audio"),
        ({"sample": "a"}, "sample"),
        ({"sample": {"id": "a", "raw_vision": "clips/face.png"}}, "got 'raw_vision': leave it out"),
        ({"path": "clips/none.pkl"}, "clips/none.pkl: expected a data file"),
        ({"path": "clips"}, "clips: expected a data file"),
        (
            {"path": "clips/ours.pkl", "missing": ["smell"]},
            "missing: expected one of text, audio, vision",
        ),
        ({"path": "clips/ours.pkl", "missing": ["text", "audio", "vision"]}, "nothing is"),
        ({"path": "clips/ours.pkl", "limit": 0}, "limit"),
        ({"path": "clips/ours.pkl", "limit": FILE_SAMPLES + 1}, "limit"),
        ({"path": "clips/ours.pkl", "seed": "many"}, "seed"),
        ({"pth": "clips/ours.pkl"}, "pth"),
    ],
)
def test_what_the_model_can_mend_is_told_in_one_line(
    tool: StructuredTool, folder: Path, arguments: dict[str, Any], culprit: str
) -> None:
    message = ask(tool, **arguments)
    assert (message.status, message.artifact) == ("error", None)
    assert culprit in str(message.content)
    assert str(message.content).isprintable()
    assert str(folder) not in str(message.content)
    assert "--" not in str(message.content)


def test_async_gives_the_same(tool: StructuredTool, sample: dict[str, Any]) -> None:
    async def ask_twice() -> list[ToolMessage]:
        calls = [tool.ainvoke(call_of({"sample": sample})) for _ in range(2)]
        return await asyncio.gather(*calls)

    plain = ask(tool, sample=sample)
    for message in asyncio.run(ask_twice()):
        assert message.content == plain.content
        assert untimed(message.artifact) == untimed(plain.artifact)


def test_in_an_agent_with_a_checkpointer_and_a_context_of_its_own(
    tool: StructuredTool, sample: dict[str, Any]
) -> None:
    """Two calls in one turn; the agent's checkpoints hold its messages, and nothing of the tool's graph."""
    agent = StateGraph(MessagesState, context_schema=dict)
    agent.add_node("tools", ToolNode([tool]))
    agent.add_edge(START, "tools")
    agent.add_edge("tools", END)
    saver = InMemorySaver()
    config = {"configurable": {"thread_id": "one"}}
    calls = [call_of({"sample": sample, "seed": seed}) | {"id": str(seed)} for seed in (0, 1)]
    result = agent.compile(checkpointer=saver).invoke(
        {"messages": [AIMessage("", tool_calls=calls)]}, config, context={"user": "someone"}
    )
    found = [message for message in result["messages"] if isinstance(message, ToolMessage)]
    assert [message.artifact[0].seed for message in found] == [0, 1]
    assert set(saver.storage["one"]) == {""}
