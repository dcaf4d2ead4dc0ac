"""LangGraph's server as others meet it: SDK, remote graph, MCP, a browser's questions, bad callers."""

from __future__ import annotations

import asyncio
import io
import pickle
import runpy
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
import pytest
from langgraph.graph import END, START, StateGraph
from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from mcp import Client

from omg_graph.data.reader import read_data_file
from omg_graph.errors import ConfigError
from omg_graph.graph import build_graph
from omg_graph.model.folder import load_model
from omg_graph.record.trajectory import Plan
from omg_graph.server import ServerSettings
from omg_graph.state import Settings

EXAMPLES = Path(__file__).parents[2] / "examples"
REQUEST = {"path": "clips.pkl", "split": "test", "missing": ["audio"], "limit": 1}
NODES = ["planner", "rerank", "retriever", "executor"]
STUDIO = "https://smith.langchain.com"


@pytest.fixture(scope="module")
def client(server: str) -> SyncLangGraphClient:
    return get_sync_client(url=server)


@pytest.fixture(scope="module")
def streamed(client: SyncLangGraphClient) -> tuple[str, list[tuple[str, Any]]]:
    """A thread, and everything that its first run streamed."""
    thread = client.threads.create()["thread_id"]
    parts = client.runs.stream(
        thread,
        "reconstruct",
        input=REQUEST,
        context={"steps": 3},
        stream_mode=["values", "updates", "custom", "debug", "tasks", "checkpoints"],
        stream_subgraphs=True,
    )
    return thread, [(part.event, part.data) for part in parts]


def test_it_offers_three_graphs_that_say_what_they_are(client: SyncLangGraphClient) -> None:
    offered = {one["graph_id"]: one["description"] for one in client.assistants.search()}
    assert set(offered) == {"reconstruct", "train", "knowledge_base"}
    assert all(offered.values())


def test_a_form_can_be_filled_in(client: SyncLangGraphClient) -> None:
    """Studio makes its forms of these schemas: every field says what it is, and shows how."""
    (assistant,) = client.assistants.search(graph_id="reconstruct")
    schemas = client.assistants.get_schemas(assistant["assistant_id"])
    for kind in ("input_schema", "output_schema", "context_schema", "state_schema"):
        for name, field in schemas[kind]["properties"].items():
            assert field["title"], (kind, name)
            assert field["description"], (kind, name)
    assert schemas["state_schema"]["properties"]["in_words"]["title"] == "In words"
    context = schemas["context_schema"]["properties"]
    for name in ("top_k", "candidates", "steps", "draws", "seed", "planner"):
        assert "default" in context[name]
        assert context[name]["examples"]
    given = schemas["input_schema"]["properties"]
    assert all(given[name]["examples"] for name in ("path", "samples", "missing"))


def test_every_way_of_streaming(streamed: tuple[str, list[tuple[str, Any]]]) -> None:
    _, parts = streamed
    kinds = {event.partition("|")[0] for event, _ in parts}
    assert {"values", "updates", "custom", "debug", "tasks", "checkpoints"} <= kinds
    steps = [data for event, data in parts if event.startswith("custom") and data["node"] == "executor"]
    assert [step["step"] for step in steps] == list(range(1, steps[0]["of"] + 1))
    assert all(step["norm"]["audio"] > 0 for step in steps)
    assert [step["change"]["audio"] > 0 for step in steps] == [False, *[True] * (len(steps) - 1)]


def test_it_gives_what_a_plain_call_gives(
    streamed: tuple[str, list[tuple[str, Any]]], tiny_model_folder: Path, tiny_data_file: Path
) -> None:
    _, parts = streamed
    served = next(data for event, data in reversed(parts) if event == "values")["trajectories"][0]
    graph = build_graph(load_model(tiny_model_folder))
    (here,) = graph.invoke(REQUEST | {"path": str(tiny_data_file)}, context=Settings(steps=3))["trajectories"]
    assert served["reconstruction"]["audio"]["sha256"] == here.reconstruction["audio"].sha256
    assert served["prediction"] == here.prediction.model_dump(mode="json")


def test_arrays_are_served_in_full(
    streamed: tuple[str, list[tuple[str, Any]]], client: SyncLangGraphClient
) -> None:
    state = client.threads.get_state(streamed[0])["values"]
    ref = state["trajectories"][0]["reconstruction"]["audio"]
    assert ref["uri"] in state["in_words"]
    told = httpx.get(ref["uri"])
    assert told.json()["shape"] == ref["shape"] == [5]
    assert told.json()["statistics"] == ref["statistics"]
    array = np.load(io.BytesIO(httpx.get(f"{ref['uri']}.npy").content), allow_pickle=False)
    np.testing.assert_allclose(array, told.json()["values"], rtol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["f" * 64, "..%2f..%2fgraphs%2fapp.py", "%2e%2e%2flog.txt", "log.txt", "F" * 64 + ".npy", "a/../b"],
)
def test_nothing_else_is_served(server: str, name: str) -> None:
    assert httpx.get(f"{server}/artifacts/{name}").status_code == 404


def second_best(plan: dict[str, Any]) -> str:
    parsed = Plan.model_validate(plan)
    return parsed.candidates[parsed.numbered(2)].text


def test_history_and_a_fork(streamed: tuple[str, list[tuple[str, Any]]], client: SyncLangGraphClient) -> None:
    thread, _ = streamed
    history = client.threads.get_history(thread)
    assert [state["next"] for state in history] == [[], *([node] for node in reversed(NODES)), ["__start__"]]
    before = next(state for state in history if state["next"] == ["retriever"])
    (done,) = history[0]["values"]["trajectories"]
    edit = {"edits": [{"pick": 2}]}
    forked = client.threads.update_state(
        thread, edit, as_node="rerank", checkpoint_id=before["checkpoint"]["checkpoint_id"]
    )
    result = client.runs.wait(
        thread, "reconstruct", input=None, context={"steps": 3}, checkpoint=forked["checkpoint"]
    )
    (other,) = result["trajectories"]
    assert other["plan"]["chosen_by"] == "person"
    assert other["plan"]["text"] == second_best(done["plan"])
    assert other["id"] == done["id"]
    assert other["timings"]["planner"] == done["timings"]["planner"]  # not computed again


def test_a_review_over_http(client: SyncLangGraphClient) -> None:
    thread, asking = client.threads.create()["thread_id"], {"steps": 2, "review_plan": True}

    def run(**given: Any) -> Any:
        return client.runs.wait(thread, "reconstruct", context=asking, **given)

    request = run(input=REQUEST)["__interrupt__"][0]["value"]
    assert request["kind"] == "review_plan"
    assert client.threads.get_state(thread)["next"] == ["review"]
    again = run(command={"resume": {"pick": 99}})["__interrupt__"][0]["value"]
    assert again["error"].startswith("pick: expected a candidate from 1 to")
    more = run(command={"resume": "redraw"})["__interrupt__"][0]["value"]
    assert len(more["candidates"]) >= len(request["candidates"]) > 1
    # Studio sends what is typed as text
    answer = '{"set": {"Sentiment": "strongly negative"}}'
    (trajectory,) = run(command={"resume": answer})["trajectories"]
    assert trajectory["plan"]["constraints"][-1]["value"] == "strongly negative"
    assert trajectory["plan"]["reviewed"]


def test_samples_written_out_leave_no_arrays_in_the_thread(
    client: SyncLangGraphClient, tiny_data_file: Path
) -> None:
    split = read_data_file(tiny_data_file, with_labels=False).splits["test"]
    sample = {"id": "mine", "text": split.arrays["text"][0].tolist(), "audio": None}
    thread = client.threads.create()["thread_id"]
    result = client.runs.wait(thread, "reconstruct", input={"samples": [sample]}, context={"steps": 2})
    assert result["trajectories"][0]["missing"] == ["audio", "vision"]
    for state in client.threads.get_history(thread):
        assert not state["values"].get("samples")
        assert str(sample["text"][7]) not in str(state["values"])  # beyond what a preview shows


@pytest.mark.parametrize(
    ("graph", "given", "told"),
    [
        ("reconstruct", {"path": "/etc/passwd"}, "path: expected a file in the data folder"),
        ("reconstruct", {"path": "../clips.pkl"}, "path: expected a file in the data folder"),
        ("reconstruct", {"path": "link.pkl"}, "path: expected a file in the data folder"),
        ("reconstruct", {"path": "none.pkl"}, "none.pkl"),
        ("reconstruct", {"paht": "clips.pkl"}, "got 'paht'"),
        ("train", {"data": "/etc/passwd", "output": "m"}, "data: expected a file in the data"),
        ("train", {"data": "clips.pkl", "output": "../m"}, "output: expected a file in the data folder"),
        (
            "knowledge_base",
            {"data": ["clips.pkl", "../x"], "output": "kb"},
            "data: expected a file in the data folder",
        ),
        (
            "knowledge_base",
            {"data": ["clips.pkl"], "output": "kb", "model": "/"},
            "model: expected a file in the data folder",
        ),
    ],
)
def test_a_bad_request_is_told_why(
    client: SyncLangGraphClient, served_folder: Path, graph: str, given: dict[str, Any], told: str
) -> None:
    with pytest.raises(Exception, match="RequestError") as caught:
        client.runs.wait(None, graph, input=given)
    assert told in str(caught.value)
    assert str(served_folder) not in str(caught.value)  # where the data lie is the operator's business


def test_a_state_that_was_tampered_with_reads_nothing_either(client: SyncLangGraphClient) -> None:
    """A caller may write into a thread's state and go on from there, past the check of the input."""
    thread = client.threads.create(graph_id="knowledge_base")["thread_id"]
    client.threads.update_state(thread, {"data": ["/etc/passwd"], "output": "kb"}, as_node="read")
    with pytest.raises(Exception, match="data: expected a file in the data folder"):
        client.runs.wait(thread, "knowledge_base", input=None)


def test_a_knowledge_base_is_built_in_the_data_folder(
    client: SyncLangGraphClient, served_folder: Path
) -> None:
    request = {"data": ["clips.pkl"], "splits": ["test"], "output": "kb"}
    result = client.runs.wait(None, "knowledge_base", input=request)
    assert (result["knowledge_base"], result["entries"]) == ("kb", 12)
    assert (served_folder / "kb").is_dir()


def test_as_a_remote_graph_inside_another(server: str) -> None:
    remote = RemoteGraph("reconstruct", url=server)
    outer = StateGraph(dict)
    outer.add_node("recover", lambda _: remote.invoke(REQUEST, context={"steps": 2}))
    outer.add_edge(START, "recover")
    outer.add_edge("recover", END)
    result = outer.compile().invoke({})
    assert result["trajectories"][0]["reconstruction"]["audio"]["shape"] == [5]


def test_over_mcp(server: str) -> None:
    async def talk() -> tuple[Any, Any]:
        async with Client(f"{server}/mcp") as session:
            return await session.list_tools(), await session.call_tool("reconstruct", REQUEST)

    tools, result = anyio.run(talk)
    offered = {tool.name: tool for tool in tools.tools}
    assert set(offered) == {"reconstruct", "train", "knowledge_base"}
    assert offered["reconstruct"].description
    assert not result.is_error
    assert "trajectories" in result.content[0].text


@pytest.fixture
def one_sample(served_folder: Path, tiny_data_file: Path) -> str:
    """A file of one clip that has no audio, like examples/sample.pkl."""
    split = read_data_file(tiny_data_file).splits["test"]
    clip = {"id": split.ids[0], "text": split.arrays["text"][0], "vision": split.arrays["vision"][0]}
    (served_folder / "sample.pkl").write_bytes(pickle.dumps(clip | {"audio": None}))
    return "sample.pkl"


def test_the_example_of_a_remote_graph(
    server: str, one_sample: str, capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path(str(EXAMPLES / "remote.py"))["main"](server)
    told = capsys.readouterr().out
    assert "audio: http" in told
    assert "strongly negative; prediction:" in told.split("fork: ")[1]


def test_the_example_of_mcp(server: str, one_sample: str, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(runpy.run_path(str(EXAMPLES / "mcp_client.py"))["main"](server))
    told = capsys.readouterr().out
    assert "reconstruct: Reconstruct the missing modalities" in told
    assert "prediction:" in told


def preflight(server: str, path: str, origin: str, **more: str) -> httpx.Response:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    return httpx.options(f"{server}{path}", headers={"Origin": origin} | asked | more)


PRIVATE = {"Access-Control-Request-Private-Network": "true"}


@pytest.mark.parametrize("origin", [STUDIO, "https://eu.smith.langchain.com", "http://localhost:5173"])
def test_studio_may_call_a_server_on_this_machine(server: str, origin: str) -> None:
    for path in ("/threads", "/runs/stream", "/mcp", "/artifacts/x"):
        plain, private = preflight(server, path, origin), preflight(server, path, origin, **PRIVATE)
        for answer in (plain, private):
            assert answer.status_code == 200
            assert answer.headers["access-control-allow-origin"] == origin
        assert private.headers["access-control-allow-private-network"] == "true"
    answered = httpx.post(f"{server}/threads", json={}, headers={"Origin": origin})
    assert answered.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://smith.langchain.com.evil.example", "null"]
)
def test_other_pages_may_not(server: str, origin: str) -> None:
    answer = preflight(server, "/threads", origin, **PRIVATE)
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers
    assert answer.headers.get("access-control-allow-private-network") is None
    read = httpx.get(f"{server}/info", headers={"Origin": origin})
    assert "access-control-allow-origin" not in read.headers


def test_arrays_are_kept_for_ever_unless_a_number_of_days_is_named(tmp_path: Path) -> None:
    assert ServerSettings.read(tmp_path, {}).artifact_days is None
    assert ServerSettings.read(tmp_path, {"OMG_ARTIFACT_DAYS": "0.5"}).artifact_days == 0.5


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan", "inf"])
def test_what_is_no_number_of_days_is_refused(tmp_path: Path, given: str) -> None:
    with pytest.raises(ConfigError, match=f"OMG_ARTIFACT_DAYS: expected a number of days, got '{given}'"):
        ServerSettings.read(tmp_path, {"OMG_ARTIFACT_DAYS": given})
