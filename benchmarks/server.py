"""What the way over LangGraph's server costs: a run over HTTP beside a plain invoke; and what a run leaves.

    python benchmarks/server.py
    python benchmarks/server.py --repeats 20 --json

Starts ``langgraph dev`` on loopback, on the embedded model. Times are medians, after one run to warm up.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")

    import torch
    from langgraph_sdk import get_sync_client

    from omg_graph import build_graph, load_model

    torch.set_num_threads(1)
    graph = build_graph(load_model())
    sample = ROOT / "examples" / "sample.pkl"
    plain = _median(options.repeats, lambda: graph.invoke({"path": str(sample)}))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        process, url = _serve(Path(folder))
        started = time.perf_counter() - began
        try:
            client = get_sync_client(url=url)

            def over_http() -> Any:
                return client.runs.wait(None, "reconstruct", input={"path": "sample.pkl"})

            served = _median(options.repeats, over_http)
        finally:
            process.terminate()
            process.wait(30)
        checkpoint = _checkpoint_bytes(Path(folder), sample)
    report = {
        "machine": f"{platform.machine()}, {platform.system()}, {os.cpu_count()} processors, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "repeats": options.repeats,
        "plain_invoke_ms": round(1000 * plain, 1),
        "server_round_trip_ms": round(1000 * served, 1),
        "server_start_seconds": round(started, 1),
        "checkpoint_bytes": checkpoint,
    }
    text = "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in report.items())
    print(json.dumps(report, indent=2) if options.json else text)


def _serve(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    import httpx

    for name in ("graphs", "omg_graph", "langgraph.json"):
        (folder / name).symlink_to(ROOT / name)  # it keeps its threads in the folder that it runs in
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload"]
    environment = os.environ | {
        "OMG_DATA_FOLDER": str(ROOT / "examples"),
        "OMG_ARTIFACTS": str(folder / "arrays"),
        "LANGGRAPH_NO_VERSION_CHECK": "true",
    }
    process = subprocess.Popen(
        [*command, "--port", str(port), "--n-jobs-per-worker", "4"],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    while process.poll() is None:
        try:
            if httpx.get(f"{url}/ok", timeout=2).status_code == 200:
                return process, url
        except httpx.HTTPError:
            time.sleep(0.1)
    raise SystemExit("langgraph dev ended before it answered: run it by hand to see why")


def _checkpoint_bytes(folder: Path, sample: Path) -> int:
    """What one run leaves in SQLite: the content of its checkpoints and writes."""
    from langgraph.checkpoint.sqlite import SqliteSaver

    from omg_graph import DiskArtifactStore, build_graph, load_model

    file = folder / "runs.sqlite"
    with SqliteSaver.from_conn_string(str(file)) as saver:
        store = DiskArtifactStore(folder / "arrays")
        graph = build_graph(load_model(), artifacts=store, checkpointer=saver)
        graph.invoke({"path": str(sample)}, {"configurable": {"thread_id": "one"}})
    with sqlite3.connect(file) as database:
        (kept,) = database.execute(
            "select sum(length(checkpoint) + length(metadata)) from checkpoints"
        ).fetchone()
        (written,) = database.execute("select sum(length(value)) from writes").fetchone()
    return int(kept + written)


def _median(repeats: int, action: Callable[[], Any]) -> float:
    action()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    main()
