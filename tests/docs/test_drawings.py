"""The README's drawings are those of the graphs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omg_graph import build_graph, build_knowledge_base_graph, build_training_graph, load_model

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
DRAWINGS = re.findall(r"^```mermaid\n(.*?)^```$", README, re.M | re.S)
GRAPHS: list[Callable[[Path], Any]] = [
    lambda folder: build_graph(load_model(folder)),
    lambda _: build_training_graph(),
    lambda _: build_knowledge_base_graph(),
]


@pytest.mark.parametrize(
    ("number", "build"), list(enumerate(GRAPHS)), ids=["reconstruct", "train", "knowledge_base"]
)
def test_each_drawing_is_the_graphs_own(
    number: int, build: Callable[[Path], Any], tiny_model_folder: Path
) -> None:
    assert DRAWINGS[number] == build(tiny_model_folder).get_graph().draw_mermaid()


def test_there_is_a_drawing_for_each_graph_and_no_other() -> None:
    assert len(DRAWINGS) == len(GRAPHS)
