"""Over the server: a person in the loop, forks, and the examples that talk to it."""

from __future__ import annotations

import asyncio
import pickle
import runpy
from pathlib import Path
from typing import Any

import pytest
from langgraph_sdk import get_sync_client

from omg_graph.data.reader import read_data_file

EXAMPLES = Path(__file__).parents[2] / "examples"
SAMPLE = {"path": "clips.pkl", "split": "test", "missing": ["audio"], "limit": 1}


@pytest.fixture
def one_sample(served_folder: Path, tiny_data_file: Path) -> str:
    """A file of one clip that has no audio, like examples/sample.pkl."""
    split = read_data_file(tiny_data_file).splits["test"]
    clip = {"id": split.ids[0], "text": split.arrays["text"][0], "vision": split.arrays["vision"][0]}
    (served_folder / "sample.pkl").write_bytes(pickle.dumps(clip | {"audio": None}))
    return "sample.pkl"


class Thread:
    """A thread on the server, as Studio uses it."""

    def __init__(self, url: str) -> None:
        self.client = get_sync_client(url=url)
        self.id = self.client.threads.create()["thread_id"]

    def run(self, **given: Any) -> Any:
        context = {"steps": 2, **given.pop("context", {})}
        return self.client.runs.wait(self.id, "reconstruct", context=context, **given)


def test_a_review_over_http(server: str) -> None:
    thread, asking = Thread(server), {"review_plan": True}
    result = thread.run(input=SAMPLE, context=asking)
    request = result["__interrupt__"][0]["value"]
    assert request["kind"] == "review_plan"
    again = thread.run(command={"resume": {"pick": 99}}, context=asking)["__interrupt__"][0]["value"]
    assert again["error"].startswith("pick: expected a candidate from 1 to")
    more = thread.run(command={"resume": "redraw"}, context=asking)["__interrupt__"][0]["value"]
    assert len(more["candidates"]) >= len(request["candidates"])
    # Studio sends what is typed as text
    answer = '{"set": {"Sentiment": "strongly negative"}}'
    (trajectory,) = thread.run(command={"resume": answer}, context=asking)["trajectories"]
    assert trajectory["plan"]["constraints"][-1]["value"] == "strongly negative"
    assert trajectory["plan"]["reviewed"]


def test_a_fork_over_http(server: str) -> None:
    thread = Thread(server)
    (before,) = thread.run(input=SAMPLE)["trajectories"]
    edits = [{"set": {"Sentiment": "strongly negative"}}]
    thread.client.threads.update_state(thread.id, {"edits": edits}, as_node="rerank")
    (after,) = thread.run(input=None)["trajectories"]
    assert after["plan"]["constraints"][-1]["value"] == "strongly negative"
    assert after["timings"]["planner"] == before["timings"]["planner"], "nobody planned again"
    entry = after["evidence"]["audio"][0]["id"]
    edits = [{"drop_evidence": [entry]}]
    thread.client.threads.update_state(thread.id, {"edits": edits}, as_node="review")
    (thinned,) = thread.run(input=None)["trajectories"]
    assert thinned["plan"] == after["plan"]
    assert entry not in [one["id"] for one in thinned["evidence"]["audio"]]


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
