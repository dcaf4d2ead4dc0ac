"""The trace in the README is what the command beside it prints.

After a new embedded model: ``COLUMNS=100 omg run --input examples/sample.pkl`` prints the block anew.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from omg_graph.cli import main
from omg_graph.model.folder import read_manifest
from omg_graph.model.model import default_model_folder

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```console\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)
COLUMNS = "100"


def shape(trace: str) -> list[str]:
    """What doesn't depend on the machine's last digits: words and signs, but no numbers, bars and padding."""
    plain = re.sub(r"[-+]?\d[\d.]*(e[+-]\d+)?", "#", trace)
    return re.sub(r"[\s─━═█▁▂▃▄▅▆▇]+", " ", plain).strip().split(" ")


def test_the_trace_is_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = BLOCKS
    command, _, shown = block.partition("\n")
    assert command.startswith("$ omg run ")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", COLUMNS)
    assert main(shlex.split(command)[2:]) == 0
    assert shape(shown) == shape(capsys.readouterr().out)


def test_the_trace_is_of_the_embedded_model_as_it_is() -> None:
    assert read_manifest(default_model_folder()).fingerprint[:12] in BLOCKS[0]


def test_no_line_is_too_wide_to_read() -> None:
    assert max(map(len, BLOCKS[0].splitlines())) <= int(COLUMNS) + 10
