"""Threads and silence."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

import pytest

from omg_graph.cli.app import ALWAYS, CHATTY, QUIET, THREAD_VARIABLES, Settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, settings_apply: Callable[[Settings], None]) -> Iterator[None]:
    monkeypatch.setattr(Settings, "apply", settings_apply)
    for name in (*THREAD_VARIABLES, *QUIET, *ALWAYS):
        # Set first, so that the state before the test is what comes back after it.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    with warnings.catch_warnings():
        yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_libraries_are_silent_by_default() -> None:
    Settings().apply()
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
    assert not logging.getLogger("chromadb").isEnabledFor(logging.WARNING)


def test_libraries_may_speak() -> None:
    Settings(verbose=True).apply()
    assert not set(QUIET) & set(os.environ)


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    Settings().apply()
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"3"}


def test_threads_asked_for_win(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    try:
        Settings(threads=2).apply()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert {os.environ[name] for name in THREAD_VARIABLES} == {"2"}


BUSY = """
import os, signal, threading, time
from concurrent.futures import ThreadPoolExecutor
from omg_graph.cli.app import prompt_interrupt
signal.signal(signal.SIGINT, signal.default_int_handler)
with prompt_interrupt(patience=0.2):
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with ThreadPoolExecutor() as pool:
        pool.submit(time.sleep, 600).result()
"""


def test_an_interrupt_waits_for_no_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUSY], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (130, "omg: interrupted\n")
