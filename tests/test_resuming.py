"""With a lasting checkpointer a run that was killed goes on from the last node that it finished."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver

from omg_graph import (
    DiskArtifactStore,
    Settings,
    build_graph,
    checkpoint_serializer,
    load_model,
    reconstruct,
)
from omg_graph.model.model import Model
from omg_graph.state import Edit

THREAD: Any = {"configurable": {"thread_id": "1"}}
SETTINGS = Settings(steps=2, seed=3)

RUN = """
import sys, time
from pathlib import Path
from langgraph.checkpoint.sqlite import SqliteSaver
from omg_graph import DiskArtifactStore, Settings, build_graph, load_model

model_folder, data, folder = (Path(argument) for argument in sys.argv[1:])
model = load_model(model_folder)


class Planner:
    name = model.planner.name
    schema = model.schema
    follows_sampling = True

    def propose(self, *arguments):
        with (folder / "planned").open("a") as file:
            file.write("once\\n")
        return model.planner.propose(*arguments)


class Retriever:
    name = "hanging"

    def retrieve(self, *arguments, **settings):
        (folder / "retrieving").touch()
        time.sleep(600)


with SqliteSaver.from_conn_string(str(folder / "checkpoints.sqlite")) as saver:
    graph = build_graph(
        model.with_planner(Planner()).with_retriever(Retriever()),
        artifacts=DiskArtifactStore(folder / "arrays"),
        checkpointer=saver,
    )
    graph.invoke(
        {"path": str(data), "split": "test", "missing": ["audio"], "limit": 2},
        {"configurable": {"thread_id": "1"}},
        context=Settings(steps=2, seed=3),
        durability="sync",
    )
"""


class NoPlanner:
    """Whoever asks it for plans plans anew."""

    name = "distilled"
    follows_sampling = True

    def __init__(self, model: Model) -> None:
        self.schema = model.schema

    def propose(self, *_: Any) -> Any:
        raise AssertionError("the planner was asked again")


def test_a_run_that_was_killed_goes_on(tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path) -> None:
    """kill -9 in the retriever: the plans are there, and nobody plans again."""
    command = [sys.executable, "-c", RUN, str(tiny_model_folder), str(tiny_data_file), str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    try:
        while not (tmp_path / "retrieving").exists():
            assert process.poll() is None, process.stderr and process.stderr.read().decode()
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    model = load_model(tiny_model_folder)
    store = DiskArtifactStore(tmp_path / "arrays")
    with SqliteSaver.from_conn_string(str(tmp_path / "checkpoints.sqlite")) as saver:
        graph = build_graph(model.with_planner(NoPlanner(model)), artifacts=store, checkpointer=saver)
        assert graph.get_state(THREAD).next == ("retriever",)
        found = graph.invoke(None, THREAD, context=SETTINGS, durability="sync")["trajectories"]
    assert (tmp_path / "planned").read_text() == "once\n"
    expected = reconstruct(
        model, tiny_data_file, split="test", missing=["audio"], limit=2, settings=SETTINGS, artifacts=store
    )
    for one, other in zip(found, expected, strict=True):  # to the rounding of another process
        assert (one.plan.text, one.plan.chosen) == (other.plan.text, other.plan.chosen)
        assert [entry.id for entry in one.evidence["audio"]] == [e.id for e in other.evidence["audio"]]
        arrays = [store.get(trajectory.reconstruction["audio"]) for trajectory in (one, other)]
        np.testing.assert_allclose(*arrays, rtol=1e-4, atol=1e-4)


def test_the_serializer_knows_all_that_a_run_leaves(tiny_model_folder: Path, tiny_data_file: Path) -> None:
    """By itself: here LangGraph adds the state's types, as it does where it is told to be strict."""
    graph = build_graph(load_model(tiny_model_folder), checkpointer=InMemorySaver())
    serializer = checkpoint_serializer()
    sample = {"path": str(tiny_data_file), "split": "test", "missing": ["audio"], "limit": 1}
    graph.invoke(sample, THREAD, context=SETTINGS)
    graph.update_state(THREAD, {"edits": [Edit(pick=1)]}, as_node="rerank")
    values = graph.get_state(THREAD).values
    assert {"batch", "edits", "reviewing", "trajectories"} <= set(values)
    assert serializer.loads_typed(serializer.dumps_typed(values)) == values
