"""The symbol table can't drift from the code: every name in it exists."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest

TABLE = (Path(__file__).parents[2] / "docs" / "symbols.md").read_text("utf-8")
ROWS = re.findall(r"^\| (.+?) \| .+? \| (`.+`) \|$", TABLE, re.M)
NAMES = sorted({name for _, cell in ROWS for name in re.findall(r"`([^`]+)`", cell)})
AMBIGUOUS = [
    *("lambda_p", "lambda_e", "alpha", "sigma", "phi", "script E", "script D", "L_rec"),
    *("E", "S", "A", "T", "t", "l"),
]
"""Letters that mean more than one thing in the paper."""


def members(found: object) -> set[str]:
    """Parameters of a function, fields of a class."""
    if inspect.isclass(found):
        fields = (
            {field.name for field in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
        )
        return fields | set(getattr(found, "model_fields", ()))
    assert callable(found)
    return set(inspect.signature(found).parameters)


@pytest.mark.parametrize("name", NAMES)
def test_the_name_exists(name: str) -> None:
    dotted, _, member = name.rstrip(")").partition("(")
    parts = dotted.split(".")
    end = max(
        count
        for count in range(1, len(parts) + 1)
        if (Path(__file__).parents[2].joinpath(*parts[:count])).is_dir()
        or (Path(__file__).parents[2].joinpath(*parts[:count])).with_suffix(".py").is_file()
    )
    found: object = importlib.import_module(".".join(parts[:end]))
    for part in parts[end:]:
        found = getattr(found, part)
    assert not member or member in members(found)


def test_every_row_of_the_tables_is_read() -> None:
    rows = [line for line in TABLE.splitlines() if line.startswith("| ")]
    headings = [line for line in rows if line.startswith(("| letter", "| ---"))]
    assert len(ROWS) == len(rows) - len(headings) > 50


@pytest.mark.parametrize("letter", AMBIGUOUS)
def test_each_meaning_of_an_ambiguous_letter_has_its_row(letter: str) -> None:
    section = TABLE.split("## ")[1]
    rows = re.findall(r"^\| (.+?) \|", section, re.M)
    meant = [
        row
        for row in rows
        if row.removeprefix("var") == letter or row.startswith((f"{letter}_", f"{letter}("))
    ]
    assert len(meant) >= 2
