"""One server for all tests of it: the real one, on loopback, as ``langgraph.json`` describes it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def served_folder(tiny_data_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the server may read: clips, and a link that leads out of it."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(tiny_data_file, folder / "clips.pkl")
    (folder / "link.pkl").symlink_to(tiny_data_file)
    return folder


@pytest.fixture(scope="session")
def server(
    tiny_model_folder: Path, served_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The URL of a running server on a tiny model."""
    place = tmp_path_factory.mktemp("server")
    for name in ("graphs", "omg_graph", "langgraph.json"):
        (place / name).symlink_to(ROOT / name)  # it keeps its threads in the folder that it runs in
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = os.environ | {
        "OMG_MODEL": str(tiny_model_folder),
        "OMG_DATA_FOLDER": str(served_folder),
        "OMG_ARTIFACTS": str(place / "arrays"),
        "LANGGRAPH_NO_VERSION_CHECK": "true",
        "LANGSMITH_TRACING": "false",
    }
    command = [sys.executable, "-m", "langgraph_cli", "dev", "--no-browser", "--no-reload"]
    with (place / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--n-jobs-per-worker", "4"],
            cwd=place,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 120
            while not _answers(url):
                told = (place / "log.txt").read_text(errors="replace")[-3000:]
                assert process.poll() is None, f"the server ended: {told}"
                assert time.monotonic() < deadline, f"the server didn't start: {told}"
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ok", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
