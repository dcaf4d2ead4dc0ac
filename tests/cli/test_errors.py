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


def test_an_error_for_the_user_is_one_line(command: Peek, capsys: pytest.CaptureFixture[str]) -> None:
    command(fails_with(DataError("rows were expected,\nnone came: add\x1b[31m some")))
    assert main(["peek"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "omg: rows were expected, none came: add\\x1b[31m some\n"


@pytest.mark.parametrize("arguments", [["--debug", "peek"], ["peek", "--debug"]])
def test_debug_shows_the_traceback(
    command: Peek, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    command(fails_with(DataError("rows were expected")))
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.endswith("omg: rows were expected\n")


def test_anything_else_is_named_and_is_no_user_error(
    command: Peek, capsys: pytest.CaptureFixture[str]
) -> None:
    command(fails_with(ZeroDivisionError("division by zero")))
    assert main(["peek"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "unexpected ZeroDivisionError: division by zero" in err
    assert "--debug" in err


def test_interrupted(command: Peek, capsys: pytest.CaptureFixture[str]) -> None:
    command(fails_with(KeyboardInterrupt()))
    assert main(["peek"]) == 130
    assert capsys.readouterr().err == "omg: interrupted\n"


def test_a_command_may_choose_its_exit_code(command: Peek) -> None:
    command(fails_with(typer.Exit(7)))
    assert main(["peek"]) == 7


def test_done_is_zero(command: Peek) -> None:
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
def test_usage_errors_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("omg: ")
    assert err.count("\n") == 1
    assert "--help" in err


def test_a_group_alone_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kb"]) == 2
    out, err = capsys.readouterr()
    assert (out + err).count("Usage: omg kb") == 1


def test_a_file_name_is_not_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--output", str(tmp_path / "[red]x.csv")]) == 2
    err = capsys.readouterr().err
    assert "[red]x.csv" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PermissionError(13, "Permission denied", "/private/x"), "/private/x: .*Permission denied"),
        (OSError(28, "No space left on device"), "No space left"),
        (MemoryError("Unable to allocate 9 GiB"), "9 GiB.*take less"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "take less"),
    ],
)
def test_what_the_machine_refuses_is_no_bug(
    command: Peek, capsys: pytest.CaptureFixture[str], error: Exception, words: str
) -> None:
    command(fails_with(error))
    assert main(["peek"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(words, err)
