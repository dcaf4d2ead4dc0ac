"""How the process of a command is set up: threads, silence, and what goes wrong as one line."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from dataclasses import dataclass

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
    verbose: bool = False
    threads: int | None = None

    def apply(self) -> None:
        """Set up this process, before a command imports anything heavy."""
        set_threads(self.threads)
        for name, value in ALWAYS.items():
            os.environ.setdefault(name, value)
        if self.verbose:
            logging.basicConfig(level=logging.INFO, stream=sys.stderr)
            return
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        for library in CHATTY:
            logging.getLogger(library).setLevel(logging.ERROR)
        if not sys.warnoptions:
            warnings.simplefilter("ignore")


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


def say(message: str) -> None:
    """One line on stderr that says what went wrong."""
    from omg_graph.samples.arrays import printable

    print(f"omg: {printable(' '.join(message.split()))}", file=sys.stderr)


def tolerate_encoding() -> None:
    """Let a terminal that has no sign for a letter show its code, and not end the program."""
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
