"""The command ``omg`` put together: nothing here, nor in the commands' own files, imports a heavy package."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from copy import copy
from typing import Annotated, Any

import typer

from omg_graph.cli import data, kb, trace
from omg_graph.cli.compare import compare
from omg_graph.cli.distill import distill
from omg_graph.cli.doctor import doctor
from omg_graph.cli.evaluate import evaluate
from omg_graph.cli.options import examples
from omg_graph.cli.run import run
from omg_graph.cli.runtime import Settings
from omg_graph.cli.simulate import simulate
from omg_graph.cli.train import train
from omg_graph.plugins import COMMANDS, registered

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
