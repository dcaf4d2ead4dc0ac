"""The walks through the code lead past files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
WALKS = {
    title: re.findall(r"^\d+\. `([^`]+)`: .+\.$", text, re.M)
    for title, text in re.findall(r"^### (.+?)\n(.+?)(?=^##)", PAGE, re.M | re.S)
}


def test_there_are_three() -> None:
    assert list(WALKS) == ["Follow a sample", "Follow a training", "Add a codec"]


@pytest.mark.parametrize("title", WALKS)
def test_every_stop_is_there(title: str) -> None:
    stops = WALKS[title]
    assert 3 <= len(stops) <= 10
    assert [stop for stop in stops if not (ROOT / stop).is_file()] == []


def test_every_room_has_a_line() -> None:
    (table,) = re.findall(r"^\| package or module \|.+?\n\n", PAGE, re.M | re.S)
    rooms = set(re.findall(r"`([a-z_]+)(?:\.py)?`", table))
    there = {path.name for path in (ROOT / "omg_graph").iterdir() if (path / "__init__.py").is_file()}
    assert there - {"embedded"} <= rooms
