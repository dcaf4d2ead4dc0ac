"""The index of equations in docs/equations.md can't drift from the code."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(
    r"^\| (\d+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", (ROOT / "docs" / "equations.md").read_text("utf-8"), re.M
)
APPENDIX = re.findall(
    r"^\| (B\.[^|]+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$",
    (ROOT / "docs" / "equations.md").read_text("utf-8"),
    re.M,
)


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def resolve(dotted: str) -> object:
    """The module, class, function or method of that name."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[:end])
        try:
            found: object = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not name.startswith(error.name):
                raise
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(dotted)


def test_every_equation_has_its_row() -> None:
    assert [int(number) for number, _, _ in ROWS] == list(range(1, 19))
    told: set[int] = set()
    for number, _, _ in APPENDIX:
        first, last = re.findall(r"B\.(\d+)(?:-B\.(\d+))?", number)[0]
        told.update(range(int(first), int(last or first) + 1))
    assert told == set(range(1, 11))


@pytest.mark.parametrize("code", sorted({name for row in APPENDIX for name in quoted(row[1])}))
def test_the_code_of_the_appendix_is_there(code: str) -> None:
    assert callable(resolve(code))


@pytest.mark.parametrize(("number", "code"), [(row[0], name) for row in ROWS for name in quoted(row[1])])
def test_the_code_is_there_and_its_module_cites_the_equation(number: str, code: str) -> None:
    found = resolve(code)
    module = inspect.getmodule(found)
    assert module is not None
    cited = re.findall(r"Eqs?\. ([\d, and-]+)", inspect.getsource(module))
    numbers = set()
    for text in cited:
        for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
            numbers.update(range(int(first), int(last or first) + 1))
    assert int(number) in numbers


@pytest.mark.parametrize("test", sorted({name for row in ROWS + APPENDIX for name in quoted(row[2])}))
def test_the_tests_are_there(test: str) -> None:
    file, function = test.split("::")
    tree = ast.parse((ROOT / "tests" / file).read_text("utf-8"))
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
