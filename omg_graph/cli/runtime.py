"""How the process of a command is set up: threads, silence, and what goes wrong as one line."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

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
