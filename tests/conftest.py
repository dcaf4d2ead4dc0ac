"""What all tests share: no network, no user's cache, one thread, and shapes checked at every call."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

# All of this is read when the packages are first imported.
CACHE = tempfile.TemporaryDirectory(prefix="omg-tests-")
os.environ["OMG_CACHE"] = CACHE.name
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.pop("OMG_TEXT_ENCODER", None)

import pytest  # noqa: E402
import torch  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

# beartype refuses typing.Self outside classes that it decorates itself, so not the whole package is hooked.
SHAPED = ["omg_graph.executor", "omg_graph.encoders", "omg_graph.retriever.attention", "omg_graph.retriever.query"]
install_import_hook(SHAPED, "beartype.beartype")
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data sets; tests that need them are skipped where they aren't there."""
    folder = Path(os.environ.get("OMG_DATA", ""))
    if not os.environ.get("OMG_DATA") or not folder.is_dir():
        pytest.skip("OMG_DATA doesn't name the folder of the real data sets")
    return folder
