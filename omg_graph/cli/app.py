"""The command ``omg`` put together, and its process set up; nothing here imports a heavy package."""

from __future__ import annotations

import functools
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from types import FrameType
from typing import Annotated, Any

import typer

from omg_graph.cli import data, kb, trace
from omg_graph.cli.data import simulate
from omg_graph.cli.distill import distill
from omg_graph.cli.doctor import doctor
from omg_graph.cli.evaluate import compare, evaluate
from omg_graph.cli.options import examples
from omg_graph.cli.run import run
from omg_graph.cli.train import train
from omg_graph.plugins import COMMANDS, registered

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "DIFFUSERS_VERBOSITY": "error",
}
"""What libraries read when they are imported; a value that the user has set stays."""

ALWAYS = {
    "ANONYMIZED_TELEMETRY": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

CHATTY = ("chromadb", "diffusers", "huggingface_hub", "torch", "transformers")


@dataclass
class Settings:
    """What holds for every command, wherever on the line it was said."""

    debug: bool = False
    verbose: int = 0
    threads: int | None = None

    def apply(self) -> None:
        """Set up this process, before a command imports anything heavy."""
        set_threads(self.threads)
        for name, value in ALWAYS.items():
            os.environ.setdefault(name, value)
        self._open_traces()
        if self.verbose:
            # once: what this package does and libraries' warnings; twice: everything
            logging.basicConfig(
                level=logging.WARNING if self.verbose == 1 else logging.INFO, stream=sys.stderr
            )
            logging.getLogger("omg_graph").setLevel(logging.INFO if self.verbose == 1 else logging.DEBUG)
            threads = ", ".join(f"{name}={os.environ.get(name)}" for name in THREAD_VARIABLES)
            logging.getLogger(__name__).info("threads: %s", threads)
            return
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        for library in CHATTY:
            logging.getLogger(library).setLevel(logging.ERROR)
        if not sys.warnoptions:
            warnings.simplefilter("ignore")

    def _open_traces(self) -> None:
        from omg_graph.telemetry import export_spans, keep_content_home

        keep_content_home()
        export_spans()


def set_threads(threads: int | None) -> None:
    """How many threads numerical libraries take: as asked, else as the environment says, else one.

    The models are small: with more threads on a busy machine, waiting costs many times the work.
    """
    if threads is None:
        for name in THREAD_VARIABLES:
            os.environ.setdefault(name, os.environ.get("OMP_NUM_THREADS", "1"))
    else:
        for name in THREAD_VARIABLES:
            os.environ[name] = str(threads)
    torch = sys.modules.get("torch")
    # Loaded already, as it is in a test or a host program, torch no longer reads the environment.
    if torch is not None and threads is not None:
        torch.set_num_threads(threads)


@contextmanager
def prompt_interrupt(patience: float = 2.0) -> Iterator[None]:
    """See that an interrupt ends the process within ``patience`` seconds.

    The first sign of it is the usual one. A graph then waits for the node under way, which may take hours in
    a thread of its own; whatever is on disk by then is whole, as it is after a power cut.
    """
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    deadlines: list[threading.Timer] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        deadline = threading.Timer(patience, _end_now)
        deadline.daemon = True
        deadline.start()
        deadlines.append(deadline)
        signal.default_int_handler(number, frame)

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for deadline in deadlines:
            deadline.cancel()


def _end_now() -> None:
    if sys.stderr.isatty():
        sys.stderr.write("\x1b[?25h\n")  # a progress bar hides the cursor
    say("interrupted")
    sys.stderr.flush()
    os._exit(130)


def say(message: str) -> None:
    """One line on stderr that says what went wrong."""
    from omg_graph.data.arrays import printable

    print(f"omg: {printable(' '.join(message.split()))}", file=sys.stderr)


def tolerate_encoding() -> None:
    """Let a terminal that has no sign for a letter show its code, and not end the program.

    What is printed goes nowhere where a stream was closed before the start.
    """
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def flush() -> bool:
    """Write what is still to be written; False if the reader has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more as it ends: there must be somewhere to write to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


SHARED = ("debug", "verbose", "threads")
"""Options of ``omg`` that may also come after the name of a command."""

app = typer.Typer(
    name="omg",
    help="Reconstruct missing modalities: plan, re-rank, retrieve, denoise, with the evidence kept.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"omg {version('omg-graph')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def omg(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - answered by its callback
        bool, typer.Option("--version", help="Say the version.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[  # noqa: ARG001 - taken by ``_with_settings``, like the next two
        bool,
        typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="For every command"),
    ] = False,
    verbose: Annotated[  # noqa: ARG001
        int,
        typer.Option(
            "--verbose",
            "-v",
            count=True,
            metavar="",
            show_default=False,
            help="Log to stderr what is done and how long it takes; -vv for more, libraries included.",
            rich_help_panel="For every command",
        ),
    ] = 0,
    threads: Annotated[  # noqa: ARG001
        int | None,
        typer.Option(
            min=1,
            help="CPU threads; OMP_NUM_THREADS, else 1, by default.",
            rich_help_panel="For every command",
        ),
    ] = None,
) -> None:
    """Print the help where no command is given."""
    if context.invoked_subcommand is None and (text := context.get_help()):
        typer.echo(text)


app.command(epilog=examples("run"))(run)
app.command(epilog=examples("train"))(train)
app.command(epilog=examples("distill"))(distill)
app.command(epilog=examples("evaluate"))(evaluate)
app.command(epilog=examples("compare"))(compare)
app.add_typer(data.app, name="data")
app.add_typer(kb.app, name="kb")
app.add_typer(trace.app, name="trace")
app.command(epilog=examples("simulate"))(simulate)
app.command(epilog=examples("doctor"))(doctor)


def _add_commands() -> None:
    """The commands that packages register as entry points of ``omg_graph.commands``."""
    for name, entry in sorted(registered(COMMANDS).items()):
        try:
            command = entry.load()
        except (ImportError, AttributeError) as error:
            command = _broken(name, entry.value, error)
        app.command(name, epilog=examples(name), rich_help_panel="More commands")(command)


def _broken(name: str, value: str, error: Exception) -> Callable[[], None]:
    """A command that says why the registered one isn't there."""
    from omg_graph.errors import ConfigError

    message = f"Can't be imported ({error}): install the package that holds {value} anew."

    def command() -> None:
        raise ConfigError(f"omg {name}: {message[0].lower()}{message[1:]}")

    command.__doc__ = message
    return command


_add_commands()


def build_command(settings: Settings) -> Any:
    """The whole of ``omg``, whose shared options end up in ``settings`` before a command starts."""
    root: Any = typer.main.get_command(app)
    shared = [parameter for parameter in root.params if parameter.name in SHARED]
    root.callback = _with_settings(root.callback, settings)
    for command in _leaves(root):
        taken = {option for parameter in command.params for option in parameter.opts}
        added = [copy(parameter) for parameter in shared if not taken.intersection(parameter.opts)]
        command.params.extend(added)
        command.callback = _with_settings(
            command.callback, settings, tuple(parameter.name for parameter in added)
        )
    return root


def _leaves(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        if hasattr(command, "commands"):
            yield from _leaves(command)
        else:
            yield command


def _with_settings(
    callback: Callable[..., Any], settings: Settings, added: tuple[str, ...] | None = None
) -> Callable[..., Any]:
    """The callback, with the shared options noted; those added to a command it doesn't get to see."""

    @functools.wraps(callback)
    def call(*arguments: Any, **values: Any) -> Any:
        settings.debug |= bool(values.get("debug"))
        settings.verbose += int(values.get("verbose") or 0)
        settings.threads = values.get("threads") or settings.threads
        if added is None:
            return callback(*arguments, **values)
        settings.apply()
        return callback(*arguments, **{name: value for name, value in values.items() if name not in added})

    return call
