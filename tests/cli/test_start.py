"""How ``omg`` starts: at once, and without anything heavy."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from importlib.metadata import version

import pytest

from omg_graph.cli.app import Settings, build_command
from omg_graph.cli.options import EXAMPLES

COMMANDS = ("run", "train", "evaluate", "compare", "data", "kb", "trace", "simulate", "doctor")
HEAVY = (
    "torch",
    "langgraph",
    "langchain_core",
    "transformers",
    "diffusers",
    "chromadb",
    "accelerate",
    "safetensors",
    "numpy",
    "yaml",
    "jinja2",
)


def omg(*arguments: str, code: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "omg_graph.cli"] if code is None else ["-c", code]
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, *command, *arguments],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["run", "--help"],
        ["train", "-h"],
        ["kb", "build", "-h"],
        ["trace", "report", "-h"],
        ["doctor", "-h"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from omg_graph.cli import main; code = main(sys.argv[1:]); "
        f"print('heavy:', sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    result = omg(*arguments, code=code)
    assert result.returncode == 0, result.stderr
    assert result.stdout
    assert result.stderr.strip() == "heavy: []"


def test_version() -> None:
    assert omg("--version").stdout.strip() == f"omg {version('omg-graph')}"


def test_no_command_gives_the_help() -> None:
    alone, asked = omg(), omg("--help")
    assert alone.returncode == 0
    assert alone.stdout.strip() == asked.stdout.strip()
    for command in COMMANDS:
        assert command in alone.stdout


def test_shell_completion_lists_the_commands() -> None:
    result = omg(_OMG_COMPLETE="complete_bash", COMP_WORDS="omg ", COMP_CWORD="1")
    assert set(COMMANDS) <= set(result.stdout.split())


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_of_a_command_s_help_can_be_typed(name: str) -> None:
    for example in EXAMPLES[name]:
        words = shlex.split(example.removeprefix(f"omg {name}"))
        found = build_command(Settings())
        for part in name.split():
            found = found.commands[part]
        assert example in found.epilog.split("\n\n")
        found.make_context(part, words)  # refuses options and values that it doesn't know


def test_no_colour_without_a_terminal() -> None:
    result = omg("--help", TERM="xterm-256color")
    assert "\x1b" not in result.stdout


def test_a_reader_that_leaves_early_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "omg_graph.cli", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        complaint = process.stderr.read().decode()
        assert process.wait(timeout=60) == 1
    assert complaint == ""


# MKL takes no more threads than there are cores, whatever it is told.
TWO = min(2, os.cpu_count() or 1)
THREADS = (
    "import sys; from omg_graph.cli import main; from omg_graph.cli import app; "
    "app.app.command('peek')(lambda: print(__import__('torch').get_num_threads())); "
    "sys.exit(main(sys.argv[1:]))"
)


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["peek"], {}, 1),
        (["peek"], {"OMP_NUM_THREADS": str(TWO)}, TWO),
        (["--threads", "1", "peek"], {"OMP_NUM_THREADS": str(TWO)}, 1),
        (["peek", "--threads", str(TWO)], {}, TWO),
    ],
)
def test_threads(arguments: list[str], environment: dict[str, str], expected: int) -> None:
    result = omg(*arguments, code=THREADS, **environment)
    assert result.stdout.strip() == str(expected), result.stderr


def test_a_stream_that_was_closed_before_the_start_is_no_error() -> None:
    closed = [sys.executable, "-c", "import os, sys; os.close(1); os.execv(sys.executable, sys.argv[1:])"]
    done = subprocess.run(
        [*closed, sys.executable, "-m", "omg_graph.cli", "doctor", "--help"],
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
