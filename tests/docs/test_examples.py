"""Every example in README.md and docs/ is run, in the order in which a reader meets it.

The blocks of one document share a folder and, if they are Python, their names. Commands run as they stand,
but for substitutions that save minutes: ``omg train`` gets the tests' tiny configuration on top of what it
asks for and takes stages that another training has made, planners are measured with one regression and time
each, and simulated sentences are embedded by hashing.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from omg_graph.cli import main
from omg_graph.cli.app import Settings, build_command
from omg_graph.training.config import load_config

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
ELSEWHERE = {
    "mermaid": "compared with the graphs in test_drawings.py",
    "console": "compared with what the command prints in test_trace.py",
}
"""Kinds of blocks that are not run here, and where they are checked: they occur in the README only."""

TARGETS = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M)


@dataclass(frozen=True)
class Block:
    """One fenced block of a document."""

    document: str
    line: int
    language: str
    content: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


def blocks_of(document: str) -> list[Block]:
    text = (ROOT / document).read_text("utf-8")
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.M | re.S)
    return [
        Block(document, text[: match.start()].count("\n") + 1, match[1].strip(), match[2]) for match in found
    ]


def commands_of(content: str) -> list[list[str]]:
    """The lines of a block as words, without comments."""
    lines = content.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def reader(
    tmp_path: Path,
    tiny_settings: dict[str, Any],
    tiny_data_file: Path,
    tiny_thinker_folder: Path,
    hashed: Callable[[int], Any],
    stages_in_common: None,
    quickly_measured: None,
    monkeypatch: pytest.MonkeyPatch,
    chat_server: Any,
) -> Callable[[Block, dict[str, Any]], None]:
    """Somebody who tries out a block, in a folder with the repository's examples and data of their own.

    They have a chat provider too, on loopback, which answers everything with one plan, and a Qwen2.5-Omni
    of random weights.
    """
    chat_server.reply = lambda *_: '{"Entity": "story", "Action": "praises", "Sentiment": "positive"}'
    monkeypatch.setenv("OPENAI_BASE_URL", chat_server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    shutil.copy(tiny_data_file, tmp_path / "my_data.pkl")
    shutil.copytree(tiny_thinker_folder, tmp_path / "Qwen2.5-Omni-3B")
    monkeypatch.chdir(tmp_path)
    kinds: dict[str, Callable[[Block, dict[str, Any]], None]] = {
        "sh": lambda block, _: run_commands(block, tiny_settings, hashed(384)),
        "python": run_python,
        "yaml": lambda block, _: check_settings(block),
        "toml": lambda block, _: check_toml(block),
    }

    def read(block: Block, names: dict[str, Any]) -> None:
        if block.language not in ELSEWHERE or block.document != "README.md":
            assert block.language in kinds, f"{block.place}: nothing knows how to run {block.language!r}"
            kinds[block.language](block, names)

    return read


def run_python(block: Block, names: dict[str, Any]) -> None:
    # dataclasses and typed dictionaries look their module up by its name
    names.setdefault("__name__", "__main__")
    padded = "\n" * block.line + block.content  # so that a traceback names the document's own line
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(padded, block.document, "exec", dont_inherit=True), names)


def check_toml(block: Block) -> None:
    """It can be read; what it registers is tried out in tests/model/test_planners.py."""
    assert tomllib.loads(block.content)


def check_settings(block: Block) -> None:
    path = Path("settings.yaml")
    path.write_text(block.content, "utf-8")
    load_config(path)


def run_commands(block: Block, tiny_settings: dict[str, Any], embed: Callable[[list[str]], Any]) -> None:
    for words in commands_of(block.content):
        if words[0] == "make":
            assert set(words[1:]) <= set(TARGETS), f"{block.place}: {' '.join(words)}: no such target"
            continue
        assert words[0] == "omg", f"{block.place}: nothing knows how to run {words[0]!r}"
        told = io.StringIO()
        with (
            substituted(words[1:], tiny_settings, embed) as arguments,
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(told),
        ):
            code = main(arguments)
        assert code == 0, f"{block.place}: {' '.join(words)}: exit code {code}\n{told.getvalue()}"
        assert told.getvalue().strip(), f"{block.place}: {' '.join(words)} printed nothing"


@contextlib.contextmanager
def substituted(
    arguments: list[str], tiny_settings: dict[str, Any], embed: Callable[[list[str]], Any]
) -> Iterator[list[str]]:
    """The arguments to run instead, while everything slow is out of the way."""
    with pytest.MonkeyPatch.context() as patch:
        if arguments[0] == "simulate":
            patch.setattr("omg_graph.encoders.text.SentenceEncoder.embed", lambda _, texts: embed(texts))
        if arguments[0] == "train":
            arguments = with_tiny_settings(arguments, tiny_settings)
        yield arguments


def with_tiny_settings(arguments: list[str], tiny_settings: dict[str, Any]) -> list[str]:
    """``--config`` by a file of the same base and settings, with the sizes of the tests on top."""
    settings: dict[str, Any] = {"base": "default"}
    if "--config" in arguments:
        place = arguments.index("--config")
        asked = arguments[place + 1]
        arguments = arguments[:place] + arguments[place + 2 :]
        named = asked in ("default", "paper")
        settings = {"base": asked} if named else yaml.safe_load(Path(asked).read_text("utf-8"))
    sizes = {name: value for name, value in tiny_settings.items() if name != "name"}
    for name, block in sizes.items():
        settings[name] = {**settings.get(name, {}), **block}
    Path("tiny.yaml").write_text(yaml.safe_dump(settings), "utf-8")
    return [*arguments, "--config", "tiny.yaml"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_examples_run(
    document: str, reader: Callable[[Block, dict[str, Any]], None], request: pytest.FixtureRequest
) -> None:
    if document == "docs/simulator.md":
        request.getfixturevalue("hashed_sentences")
    names: dict[str, Any] = {}
    for block in blocks_of(document):
        try:
            reader(block, names)
        except Exception as error:
            error.add_note(f"in the example at {block.place}")
            raise


def test_no_fence_is_left_open_or_passed_over() -> None:
    for document in DOCUMENTS:
        fences = re.findall(r"^\s*```", (ROOT / document).read_text("utf-8"), re.M)
        assert len(fences) == 2 * len(blocks_of(document)), document


def test_every_command_has_examples() -> None:
    """What a reader is told of is run: no command is without an example."""
    seen = {
        " ".join(words[1 : 3 if words[1] in ("kb", "data", "trace") else 2])
        for document in DOCUMENTS
        for block in blocks_of(document)
        if block.language == "sh"
        for words in commands_of(block.content)
        if words[0] == "omg"
    }
    expected = {"run", "train", "simulate", "data check", "kb build", "kb query", "kb stats"}
    assert expected | {f"trace {name}" for name in ("show", "report", "fork", "compare")} <= seen


OF_OTHERS = {"--local-dir", "--exclude"}
"""Options of ``hf download``."""


def test_no_document_names_an_option_that_is_not_there() -> None:
    reproduce = (ROOT / "benchmarks" / "reproduce.py").read_text("utf-8")
    known = {"--help"} | _options(build_command(Settings())) | set(re.findall(r'"(--[a-z-]+)"', reproduce))
    for document in DOCUMENTS:
        text = (ROOT / document).read_text("utf-8")
        named = set(
            re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", re.sub(r"```mermaid.*?```", "", text, flags=re.S))
        )
        assert named <= known | OF_OTHERS, f"{document}: {sorted(named - known)}"


def _options(command: Any) -> set[str]:
    own = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return own.union(*(_options(inner) for inner in getattr(command, "commands", {}).values()))
