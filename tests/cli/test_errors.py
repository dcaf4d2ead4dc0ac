"""What goes wrong: one line on stderr, and an exit code that says whose turn it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from omg_graph.cli import app as assembly
from omg_graph.cli import main
from omg_graph.errors import DataError

Peek = Callable[[Callable[[], Any]], None]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Peek:
    """Have ``omg peek`` do something."""

    def add(work: Callable[[], Any]) -> None:
        small = typer.Typer()
        small.callback()(assembly.omg)

        def peek() -> None:
            work()

        small.command("peek")(peek)
        monkeypatch.setattr(assembly, "app", small)

    return add


def fails_with(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (DataError("rows,\nnone came: add\x1b[31m some"), 2, r"^omg: rows, none came: add\\x1b\[31m some$"),
        (ZeroDivisionError("by zero"), 1, "unexpected ZeroDivisionError: by zero .*--debug"),
        (KeyboardInterrupt(), 130, "^omg: interrupted$"),
        (PermissionError(13, "Permission denied", "/private/x"), 2, "/private/x: .*Permission denied"),
        (OSError(28, "No space left on device"), 2, "No space left"),
        (MemoryError("Unable to allocate 9 GiB"), 2, "9 GiB.*take less"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "take less"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_an_error_is_one_line_and_a_code(
    command: Peek, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    command(fails_with(error))
    assert main(["peek"]) == code
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert re.search(words, err.rstrip("\n"))


@pytest.mark.parametrize("arguments", [["--debug", "peek"], ["peek", "--debug"]])
def test_debug_shows_the_traceback(
    command: Peek, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    command(fails_with(DataError("rows were expected")))
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("omg: rows were expected\n")


def test_a_command_may_choose_its_exit_code(command: Peek) -> None:
    command(fails_with(typer.Exit(7)))
    assert main(["peek"]) == 7
    command(lambda: 5)
    assert main(["peek"]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["--frobnicate"],
        ["kb", "query"],
        ["kb", "query", "--text", "x", "--top-k", "0"],
        ["kb", "build", "--data"],
        ["doctor", "--threads", "0"],
        ["simulate", "--output", "x.npz", "--speakers", "many"],
    ],
)
def test_usage_errors_are_one_line(arguments: list[str], refused: Callable[..., str]) -> None:
    assert "--help" in refused(*arguments)


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kb"]) == 2
    out, err = capsys.readouterr()
    assert (out + err).count("Usage: omg kb") == 1


def test_a_file_name_is_not_markup(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "[red]x.csv" in refused("simulate", "--output", tmp_path / "[red]x.csv")
