"""What the commands' tests share: a process that is left as it is, and input files."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omg_graph.cli import main
from omg_graph.data.reader import read_data_file

Refused = Callable[..., str]
"""Runs a command that must fail: the last line of what it says."""


@pytest.fixture(autouse=True)
def _quick(stages_in_common: None, quickly_measured: None) -> None:
    """No command makes a stage or measures a planner at full length."""


@pytest.fixture
def save(tmp_path: Path) -> Callable[[str, object], Path]:
    """Pickle something into a file of that name."""

    def write(name: str, content: object) -> Path:
        (tmp_path / name).write_bytes(pickle.dumps(content))
        return tmp_path / name

    return write


@pytest.fixture
def one_clip(tiny_data_file: Path) -> Callable[..., dict[str, object]]:
    """The first test clip by itself, with changes."""

    def make(**changes: object) -> dict[str, object]:
        split = read_data_file(tiny_data_file).splits["test"]
        assert split.raw_text is not None
        arrays: dict[str, object] = {name: split.arrays[name][0] for name in split.names}
        return {"id": split.ids[0], "raw_text": split.raw_text[0], **arrays, **changes}

    return make


class Malicious:
    """Would leave a file behind where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def malicious(tmp_path: Path) -> Malicious:
    """Leaves a file ``done`` in the test's folder where it is unpickled."""
    return Malicious(tmp_path / "done")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """A command that must end with code 2, nothing on stdout, and one line on stderr after any notes."""

    def go(*arguments: object, notes: bool = False) -> str:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert (code, out) == (2, ""), err
        lines = err.splitlines()
        assert lines[-1].startswith("omg: ")
        assert notes or len(lines) == 1, err
        return lines[-1]

    return go
