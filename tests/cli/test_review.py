"""``omg run --review``: a person at a real terminal, and nobody at none."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from omg_graph.cli import main

STYLES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
PATIENCE = 120.0
"""Seconds until a silent program counts as hung."""


class Terminal:
    """A process that believes it is talked to by a person."""

    def __init__(self, arguments: list[str]) -> None:
        ours, theirs = pty.openpty()
        self.handle, self.seen = ours, ""
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "omg_graph.cli", *arguments],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)

    def read_until(self, text: str) -> str:
        """What came since the last call, up to ``text``."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen!r}"
            if select.select([self.handle], [], [], 1.0)[0]:
                try:
                    self.seen += os.read(self.handle, 65536).decode("utf-8", "replace")
                except OSError:  # the other end is closed
                    raise AssertionError(f"it ended without {text!r}: {self.seen!r}") from None
        told, _, self.seen = self.seen.partition(text)
        return STYLES.sub("", told)

    def type(self, line: str) -> None:
        os.write(self.handle, f"{line}\n".encode())

    def end(self) -> tuple[int, str]:
        """Exit code and standard output."""
        out = self.process.communicate(timeout=PATIENCE)[0].decode()
        return self.process.returncode, out

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
        os.close(self.handle)


@pytest.fixture
def start(tiny_model_folder: Path, tiny_data_file: Path, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    opened: list[Terminal] = []

    def go(limit: int) -> Terminal:
        common = ["--input", str(tiny_data_file), "--split", "test", "--missing", "audio"]
        place = ["--model", str(tiny_model_folder), "--output", str(tmp_path / "out"), "--no-report"]
        opened.append(Terminal(["run", *common, *place, "--limit", str(limit), "--review", "--json"]))
        return opened[-1]

    yield go
    for terminal in opened:
        terminal.close()


def test_a_person_decides_by_keyboard(start: Callable[..., Terminal]) -> None:
    """Slips are told, a plan is edited, new candidates are drawn, another is picked, the rest is taken."""
    terminal = start(4)
    shown = terminal.read_until("plan: ")
    assert "(1 of 4)" in shown
    assert "missing audio" in shown
    assert "✓ │ 1" in shown
    terminal.type("99")
    assert "a number from 1 to" in terminal.read_until("plan: ")
    terminal.type("e")
    terminal.read_until("(Enter: 1): ")
    terminal.type("")
    terminal.read_until("): ")
    terminal.type("")
    terminal.read_until("): ")
    terminal.type("")
    values = terminal.read_until("): ")
    assert "1 strongly negative" in values
    terminal.type("so so")
    assert "or one of the values" in terminal.read_until("): ")
    terminal.type("Strongly Negative")
    assert "(2 of 4)" in terminal.read_until("plan: ")
    terminal.type("n")
    assert "(2 of 4)" in terminal.read_until("plan: ")
    terminal.type("2")
    assert "(3 of 4)" in terminal.read_until("plan: ")
    terminal.type("a")
    code, out = terminal.end()
    assert code == 0
    plans: list[dict[str, Any]] = [one["plan"] for one in json.loads(out)["trajectories"]]
    assert plans[0]["constraints"][-1]["value"] == "strongly negative"
    assert plans[0]["chosen_by"] in ("edited", "person")
    assert plans[1]["chosen_by"] == "person"
    assert [plan["chosen_by"] for plan in plans[2:]] == ["rerank", "rerank"]
    assert [plan.get("reviewed", False) for plan in plans] == [True, True, True, False]


def test_an_ended_input_writes_nothing(start: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = start(1)
    terminal.read_until("plan: ")
    os.write(terminal.handle, b"\x04")
    terminal.read_until("expected an answer, the input ended")
    code, out = terminal.end()
    assert (code, out) == (2, "")
    assert not (tmp_path / "out").exists()


def test_without_a_terminal_it_is_refused(
    tiny_model_folder: Path,
    tiny_data_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        given = ["--input", str(tiny_data_file), "--model", str(tiny_model_folder)]
        assert main(["run", *given, "--review", "--output", str(tmp_path / "out")]) == 2
    assert "--review: expected a terminal to answer in" in capsys.readouterr().err
