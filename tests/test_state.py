"""What a run leaves in a checkpointer: little, whatever its samples hold."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langgraph.checkpoint.sqlite import SqliteSaver

from omg_graph.graph import build_graph
from omg_graph.model.folder import load_model
from omg_graph.model.model import Model
from omg_graph.record.artifacts import DiskArtifactStore
from omg_graph.state import Settings, checkpoint_serializer

SIDE = 512
"""A scan of so many rows and columns of single-precision numbers is a megabyte."""


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random, splits = np.random.default_rng(0), {}
    for name, rows in (("train", 12), ("valid", 4)):
        state = random.standard_normal((rows, 2))
        bands = (state @ random.standard_normal((2, 64))).repeat(SIDE * SIDE // 64, axis=1)
        noisy = bands.reshape(rows, SIDE, SIDE) + 0.1 * random.standard_normal((rows, SIDE, SIDE))
        splits[name] = {
            "id": [f"{name}-{row}" for row in range(rows)],
            "scan": noisy.astype(np.float32),
            "vitals": np.concatenate([state, random.standard_normal((rows, 3))], axis=1),
        }
    path = tmp_path_factory.mktemp("scans") / "scans.pkl"
    path.write_bytes(pickle.dumps(splits, protocol=4))
    return path


@pytest.fixture(scope="module")
def model(scans: Path, train_tiny: Callable[..., Path]) -> Model:
    return load_model(train_tiny(scans, "scans-model"))


def stored(file: Path) -> int:
    with sqlite3.connect(file) as database:
        (kept,) = database.execute(
            "select sum(length(checkpoint) + length(metadata)) from checkpoints"
        ).fetchone()
        (written,) = database.execute("select sum(length(value)) from writes").fetchone()
    return int(kept + written)


@pytest.mark.parametrize("how", ["written out", "by path"])
def test_a_sample_of_a_megabyte_leaves_less_than_64_kilobytes(
    model: Model, scans: Path, tmp_path: Path, how: str
) -> None:
    if how == "by path":
        request: dict[str, Any] = {"path": str(scans), "split": "valid", "limit": 1, "missing": ["scan"]}
    else:
        scan = np.random.default_rng(1).standard_normal((SIDE, SIDE)).astype(np.float32)
        request = {"samples": [{"id": "mine", "scan": scan.tolist(), "vitals": None}]}
    file = tmp_path / "runs.sqlite"
    with SqliteSaver.from_conn_string(str(file)) as saver:
        store = DiskArtifactStore(tmp_path / "arrays")
        graph = build_graph(model, artifacts=store, checkpointer=saver)
        config = {"configurable": {"thread_id": "one"}}
        (made,) = graph.invoke(request, config, context=Settings(top_k=10, steps=20))["trajectories"]
        first = list(graph.get_state_history(config))[-1]
    assert stored(file) < 60 * 1024
    assert store.get(made.reconstruction[made.missing[0]]).size > 0
    assert first.next == ("__start__",)


def test_the_serializer_takes_less_than_half_and_reads_what_the_default_wrote(
    tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path
) -> None:
    clips, sizes = load_model(tiny_model_folder), {}
    request = {"path": str(tiny_data_file), "split": "test", "limit": 1, "missing": ["audio"]}
    thread: Any = {"configurable": {"thread_id": "one"}}
    for name in ("default", "own"):
        file = tmp_path / f"{name}.sqlite"
        with SqliteSaver.from_conn_string(str(file)) as saver:
            if name == "own":
                saver.serde = checkpoint_serializer()
            graph = build_graph(clips, checkpointer=saver)
            made = graph.invoke(request, thread)["trajectories"]
            saver.serde = checkpoint_serializer()
            assert graph.get_state(thread).values["trajectories"] == made
        sizes[name] = stored(file)
    assert sizes["own"] < sizes["default"] / 2
    assert sizes["default"] < 60 * 1024
