"""What the commands print: results on stdout, progress and notes on stderr, text from files made harmless."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn
    from rich.table import Table
    from rich.text import Text

PIPED_WIDTH = 120
"""Columns of a table that no terminal shows."""

Progress = Callable[[int, int], None]
"""(done, of)."""


def stdout_console() -> Console:
    """Where results go: without colour or a terminal's width if it isn't one."""
    return _console(sys.stdout)


def stderr_console() -> Console:
    """Where progress and notes go."""
    return _console(sys.stderr)


def note(message: str) -> None:
    """Tell something beside the result, on stderr, in a line."""
    from omg_graph.data.arrays import printable

    stderr_console().print(
        printable(message), style="dim", markup=False, highlight=False, emoji=False, soft_wrap=True
    )


def cell(content: object, style: str = "") -> Text:
    """Text for a table as it is: no markup in it is obeyed, nor a control character."""
    from rich.text import Text

    from omg_graph.data.arrays import printable

    return Text(printable(content), style=style)


def line(console: Console, text: str, style: str = "") -> None:
    """A line of text, however long."""
    console.print(cell(text, style), soft_wrap=True)


def heading(console: Console, text: str) -> None:
    """An empty line, and a rule with a title."""
    console.print()
    console.rule(cell(text, "bold"), align="left", style="dim")


def table(
    title: str, *heads: str, figures: Iterable[str] = (), expand: bool = False, lines: bool = True
) -> Table:
    """A table with columns of text, which fold, and after them columns of figures, which don't.

    Args:
        title: Above it; none where it is empty.
        heads: Of columns of text.
        figures: Heads of columns of figures.
        expand: Whether it takes all of the line.
        lines: Whether there are lines between the columns.
    """
    from rich import box
    from rich.table import Table

    made = Table(
        title=cell(title),
        title_justify="left",
        title_style="",
        expand=expand,
        box=box.HEAVY_HEAD if lines else box.SIMPLE,
        padding=(0, 1) if lines else (0, 1, 0, 0),
    )
    for head in heads:
        made.add_column(head, overflow="fold")
    for head in figures:
        made.add_column(head, justify="right", no_wrap=True)
    return made


def number(value: float | None) -> str:
    """A metric for a table, a dash where it is undefined."""
    return "-" if value is None else f"{value:.3f}"


def print_json(document: Any) -> None:
    """One JSON document on stdout.

    Raises:
        ValueError: if it holds a number that JSON has no word for (NaN, infinity).
    """
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def bars(*columns: ProgressColumn, transient: bool = False) -> RichProgress:
    """Bars on stderr, if a terminal shows it: what, how far, ``columns``, and the time it takes."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    console = stderr_console()
    return RichProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=transient,
        disable=not console.is_terminal,
    )


@contextmanager
def progress_bar(what: str, unit: str) -> Iterator[Progress]:
    """A bar on stderr while the block runs, if a terminal shows it; moved on by (done, of)."""
    from rich.progress import TextColumn

    bar = bars(TextColumn(unit, markup=False), transient=True)
    with bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


@contextmanager
def spinner(what: str) -> Iterator[None]:
    """A sign of life on stderr while the block runs, if a terminal shows it."""
    console = stderr_console()
    if not console.is_terminal:
        yield
        return
    with console.status(what):
        yield


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    piped = not stream.isatty() and "COLUMNS" not in os.environ
    return Console(file=stream, width=PIPED_WIDTH if piped else None, emoji=False)


class TrainingBars:
    """A bar for each stage, with its loss; plain lines where no terminal shows them."""

    def __init__(self, several: str = "models") -> None:
        """Say what the runs are, where there are several."""
        self.several = several

    def __enter__(self) -> TrainingBars:
        from rich.progress import TextColumn

        self.console = stderr_console()
        self.bar = bars(TextColumn("{task.fields[loss]}", markup=False))
        self.bar.start()
        self.tasks: dict[str, Any] = {}
        self.model = ""
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def of_model(self, model: str, number: int, of: int, event: dict[str, Any]) -> None:
        """Show one event of one of several runs, with a bar for all of them."""
        if model != self.model:
            self.model = model
            for task in self.tasks.values():
                self.bar.remove_task(task)
            self.tasks = {
                self.several: self.bar.add_task(self.several, total=of, completed=number - 1, loss=model)
            }
        self.report(event)

    def report(self, event: dict[str, Any]) -> None:
        """Show one event of the training graph."""
        what, done, of = str(event["stage"]).replace("_", " "), event["done"], event["of"]
        loss = "" if event["loss"] is None else f"loss {event['loss']:.4f}"
        what = f"{self.model}: {what}" if self.model else what
        if done and not self.console.is_terminal and done == of:
            note(f"{what}: {done}/{of} {loss}".rstrip())
        if not done:
            return
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=of, loss=loss)
        self.bar.update(self.tasks[what], completed=done, total=of, loss=loss)
