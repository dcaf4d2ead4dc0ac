"""The table of settings in docs/method.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from omg_graph.training.config import TrainingConfig, load_config

PAGE = (Path(__file__).parents[2] / "docs" / "method.md").read_text("utf-8")
ROWS = re.findall(r"^\| `([a-z_.]+)` \| ([^|]+) \| ([^|]*) \| ([^|]+) \|$", PAGE, re.M)


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    out: dict[str, Any] = {}
    for name, value in settings.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return out


def read(cell: str) -> Any:
    return yaml.safe_load(cell.strip().strip("`"))


def test_every_setting_has_one_row_in_the_order_of_the_code() -> None:
    assert [name for name, *_ in ROWS] == list(flat(TrainingConfig().model_dump(mode="json")))


def test_defaults() -> None:
    assert {name: read(cell) for name, cell, *_ in ROWS} == flat(TrainingConfig().model_dump(mode="json"))


def test_what_the_papers_configuration_changes_and_nothing_else() -> None:
    defaults = flat(TrainingConfig().model_dump(mode="json"))
    paper = flat(load_config("paper").model_dump(mode="json"))
    assert {name: read(cell) for name, _, cell, _ in ROWS if cell.strip()} == {
        name: value for name, value in paper.items() if value != defaults[name]
    }
