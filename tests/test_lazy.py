"""What ``import omg_graph`` gives, and what it doesn't load."""

from __future__ import annotations

import subprocess
import sys

import pytest

import omg_graph

PUBLIC = (
    "DiskArtifactStore",
    "MemoryArtifactStore",
    "Model",
    "OmgError",
    "Settings",
    "Trajectory",
    "as_tool",
    "build_graph",
    "build_knowledge_base_graph",
    "build_training_graph",
    "load_model",
    "reconstruct",
)


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys, omg_graph; from omg_graph.errors import OmgError; dir(omg_graph); "
        "print([name for name in ('torch', 'langgraph', 'chromadb', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names(name: str) -> None:
    assert name in dir(omg_graph)
    found = getattr(omg_graph, name)
    assert found.__name__ == name


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="reconstrcut"):
        omg_graph.reconstrcut  # noqa: B018
