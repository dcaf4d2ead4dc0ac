"""The command line: every error a user can act on is one line on stderr and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``omg`` and return its exit code.

    0: done. 1: an unexpected error, or ``omg doctor`` found one, or the reader of the output has gone.
    2: something the user can act on. 130: interrupted.

    Args:
        arguments: what follows ``omg``; the process's own when None.
    """
    import typer

    from omg_graph.cli.app import Settings, build_command, flush, prompt_interrupt, say, tolerate_encoding
    from omg_graph.errors import OmgError

    settings = Settings()
    tolerate_encoding()
    try:
        with prompt_interrupt():
            code = build_command(settings).main(
                args=None if arguments is None else list(arguments), prog_name="omg", standalone_mode=False
            )
    except KeyboardInterrupt:
        code = INTERRUPTED
    except typer.Abort:
        code = 1
    except OmgError as error:
        _trace(settings.debug)
        say(str(error))
        code = error.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):  # the common ground of typer's usage errors, old and new
            code = _usage(error)
        elif (shortage := _shortage(error)) is not None:
            _trace(settings.debug)
            say(shortage)
            code = 2
        else:
            _trace(settings.debug)
            what = f"unexpected {type(error).__name__}: {error}"
            say(what if settings.debug else f"{what} (--debug shows where; please report it)")
            code = 1
    if code == INTERRUPTED:
        say("interrupted")
    if not flush():
        return 1
    return code if isinstance(code, int) else 0


def _shortage(error: Exception) -> str | None:
    """What the machine refused, where that is all that is wrong: a full disk, or memory that isn't there."""
    text = str(error)
    if isinstance(error, OSError):
        where = f"{str(error.filename)[:200]}: " if error.filename else ""
        return f"expected {where}a place to read or write, got {error.strerror or text}: choose another"
    # torch says it in its own ways, on the CPU and on a GPU
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text or "CUDA out of memory" in text:
        return f"more memory is needed than there is ({text[:160]}): take less at once"
    return None


def _usage(error: Exception) -> int:
    from omg_graph.cli.app import say

    context = getattr(error, "ctx", None)
    path = "omg" if context is None else context.command_path
    if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: rich has printed its help
        print(error, end="", file=sys.stderr)
    else:
        message = " ".join(str(error.format_message()).split())  # type: ignore[attr-defined]
        say(f"{message.rstrip('.')}: see {path} --help")
    return int(getattr(error, "exit_code", 2))


def _trace(wanted: bool) -> None:
    if wanted:
        import traceback

        traceback.print_exc()
