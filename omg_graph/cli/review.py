"""The prompt of ``omg run --review``: a person picks or edits each sample's plan by keyboard."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from omg_graph.cli.output import cell, heading, line, stderr_console
from omg_graph.cli.terminal import candidate_table
from omg_graph.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from omg_graph.review.review import ReviewAnswer, ReviewField, ReviewRequest

KEYS = (
    "Enter: take ✓ · a number: take that one · e: edit · n: new candidates · a: take ✓ for all the rest · "
    "?: what fields may say"
)


def require_terminal() -> None:
    """See that there is somebody to ask.

    Raises:
        ConfigError: if nobody types into this process.
    """
    if not sys.stdin.isatty():
        raise ConfigError(
            "--review: expected a terminal to answer in, the input is a file or a pipe: run it in a "
            "terminal, or leave it out"
        )


class Prompt:
    """Asks on stderr, so that stdout holds results alone."""

    def __init__(self) -> None:
        self.console: Console = stderr_console()

    def __call__(self, request: ReviewRequest) -> ReviewAnswer:
        """What the person decides about one sample.

        Raises:
            ConfigError: if the input ends.
        """
        from omg_graph.review.review import ReviewAnswer

        if request.error is None:
            self._show(request)
        else:
            self._say(request.error, "red")
        most = len(request.candidates)
        while True:
            said = self._ask("plan").lower()
            if not said:
                return ReviewAnswer(accept=True)
            if said.isdecimal() and 1 <= int(said) <= most:
                return ReviewAnswer(pick=int(said))
            if said == "e":
                return self._edit(request)
            if said == "n":
                return ReviewAnswer(redraw=True)
            if said == "a":
                return ReviewAnswer(accept_rest=True)
            if said == "?":
                self._explain(request)
            else:
                message = f"expected a number from 1 to {most}, e, n, a, ? or Enter, got {said!r}"
                self._say(message, "red")

    def _show(self, request: ReviewRequest) -> None:
        console = self.console
        place = f" ({request.number} of {request.of})" if request.of > 1 else ""
        heading(console, f"review · sample {request.sample}{place}")
        if request.raw_text:
            self._say(f"“{request.raw_text}”", "italic")
        self._say(
            f"observed {', '.join(request.observed) or 'nothing'} · "
            f"missing {', '.join(request.missing) or 'nothing'}"
        )
        for remark in request.notes:
            if "new" in remark:
                self._say(remark, "dim")
        console.print(_table(request))
        self._say(KEYS, "dim")

    def _edit(self, request: ReviewRequest) -> ReviewAnswer:
        """Field by field; what is left empty stays as it is."""
        from omg_graph.review.review import ReviewAnswer

        base, most = 1, len(request.candidates)
        if most > 1:
            while True:
                said = self._ask(f"edit which plan, 1 to {most} (Enter: 1)")
                if not said or (said.isdecimal() and 1 <= int(said) <= most):
                    break
                self._say(f"expected a number from 1 to {most}, got {said!r}", "red")
            base = int(said or 1)
        values: list[str] = []
        changes: dict[str, str] = {}
        for field, link in zip(request.fields, request.candidates[base - 1].constraints, strict=False):
            value = self._value(field, link.value, values[-1] if values else None)
            if value != link.value:
                changes[field.name] = value
            values.append(value)
        return ReviewAnswer(pick=base, set=changes)

    def _value(self, field: ReviewField, now: str, before: str | None) -> str:
        allowed = _allowed(field, before)
        if allowed is not None:
            for number, value in enumerate(allowed, start=1):
                self._say(f"  {number:>2} {value}", "green" if value == now else "")
        while True:
            keep = now if allowed is None or now in allowed else None
            hint = f" (Enter: {keep})" if keep is not None else ""
            said = " ".join(self._ask(f"{field.name}{hint}").split())
            if not said and keep is not None:
                return keep
            if allowed is None:
                if said and len(said.split()) <= (field.max_words or 0):
                    return said
                self._say(f"1 to {field.max_words} words were expected", "red")
                continue
            if said.isdecimal() and 1 <= int(said) <= len(allowed):
                return allowed[int(said) - 1]
            same = [value for value in allowed if value.casefold() == said.casefold()]
            if len(same) == 1:
                return same[0]
            self._say(f"a number from 1 to {len(allowed)}, or one of the values, was expected", "red")

    def _explain(self, request: ReviewRequest) -> None:
        for field in request.fields:
            allowed = f"{field.max_words} words" if field.values is None else ", ".join(field.values)
            self._say(f"{field.name}: {allowed}", "bold")
            if field.description:
                self._say(f"  {' '.join(field.description.split())}", "dim")

    def _ask(self, what: str) -> str:
        self.console.print(cell(f"{what}: ", "bold"), end="")
        self.console.file.flush()
        line = sys.stdin.readline()
        if not line:
            self.console.print()
            raise ConfigError("--review: expected an answer, the input ended: nothing was written")
        return line.strip()

    def _say(self, text: str, style: str = "") -> None:
        line(self.console, text, style)


def _table(request: ReviewRequest) -> Table:
    from omg_graph.record.view import candidate_view

    weight = request.semantic_weight
    rows = [candidate_view(each, each.number, each.number == 1, weight) for each in request.candidates]
    return candidate_table(f"plans by score = log p - {weight:g} C_sem", rows, numbered=True)


def _allowed(field: ReviewField, before: str | None) -> tuple[str, ...] | None:
    """What a field may say after the value of the one before; None for free text."""
    if field.within is None or before is None:
        return field.values
    return field.within.get(before, ())
