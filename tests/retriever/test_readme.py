from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import numpy as np

from omg_graph.retriever.retriever import Retriever

README = Path(__file__).parents[2] / "knowledge_base" / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_example_runs_and_prints_what_it_says() -> None:
    (code,), (expected,) = blocks("python"), blocks("text")
    printed = io.StringIO()
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(README), "exec"), names)
    assert printed.getvalue() == expected


def test_the_example_is_a_retriever_and_obeys_its_rules() -> None:
    names: dict[str, object] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(blocks("python")[0], str(README), "exec"), names)
    search: Retriever = names["WordSearch"](names["database"], 4)  # type: ignore[operator]
    evidence = search.retrieve(
        np.zeros((2, 6), np.float32),
        np.ones((2, 2), np.bool_),
        np.ones((2, 8), np.float32),
        ids=["clip0", "x"],
        groups=["film9", "film1"],
        targets={"audio": np.array([True, True])},
        k=3,
        plan_texts=["angry voice", "angry voice"],
    )["audio"]
    assert [sorted(entry.id for entry in row) for row in evidence.entries] == [
        ["clip1", "clip2"],
        ["clip0", "clip2"],
    ]
    assert evidence.excluded.tolist() == [1, 1]
