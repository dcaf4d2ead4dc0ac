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


def test_help_imports_nothing_heavy() -> None:
    """All in one process: what one command loads, the others would hide."""
    code = (
        "import sys; from omg_graph.cli import main;"
        "codes = [main([*words.split(), '--help']) for words in sys.argv[1:]] + [main(['--version'])];"
        f"print(codes, sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)"
    )
    commands = ("", "run", "train", "kb build", "trace report", "doctor", "evaluate")
    result = omg(*commands, code=code)
    assert result.stderr.strip() == f"{[0] * (len(commands) + 1)} []"
    assert result.stdout.endswith(f"omg {version('omg-graph')}\n")


def test_looking_at_data_imports_no_network() -> None:
    code = (
        "import sys, omg_graph.cli.data, omg_graph.data.checking, omg_graph.data.writing;"
        "print([m for m in ('torch', 'langgraph', 'transformers', 'chromadb', 'scipy') if m in sys.modules])"
    )
    assert omg(code=code).stdout.strip() == "[]"


def test_no_command_gives_the_help() -> None:
    alone = omg(TERM="xterm-256color")
    assert alone.returncode == 0
    assert "\x1b" not in alone.stdout
    assert all(command in alone.stdout for command in COMMANDS)


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
