"""Answers that were paid for, on disk: a file for each request, named by a hash of all that it depends on."""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from omg_graph.errors import ConfigError
from omg_graph.files import write_atomically
from omg_graph.planner.answers import Answer

LAYOUT = 1


class AnswerCache:
    """Keeps plans and their log-probabilities; neither requests, transcripts nor credentials.

    Several processes may share a folder: a file appears whole, and two that write the same one write what
    either would take.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder, making it if need be.

        Raises:
            ConfigError: if it can't be written.
        """
        self._folder = folder
        self._lock = threading.Lock()
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise ConfigError(
                f"a folder that can be written was expected for the planner's answers, {folder} isn't one: "
                "point OMG_CACHE elsewhere, or use --no-planner-cache"
            )

    @staticmethod
    def key(**parts: Any) -> str:
        """The name of a request, by everything that its answer depends on."""
        canonical = json.dumps({"layout": LAYOUT, **parts}, sort_keys=True, default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def read(self, key: str, fields: int) -> Answer | None:
        """The answer, or None where there is none or its file is damaged."""
        try:
            found = json.loads(self._path(key).read_text(encoding="utf-8"))
            plan = tuple(found["plan"])
            sums, counts = found["log_probabilities"], found["token_counts"]
            if sums is not None:
                sums, counts = tuple(map(float, sums)), tuple(map(int, counts))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        texts = len(plan) == fields and all(isinstance(value, str) for value in plan)
        numbers = sums is None or (len(sums) == len(counts) == fields and all(map(math.isfinite, sums)))
        return Answer(plan, sums, None if sums is None else counts) if texts and numbers else None

    def write(self, key: str, answer: Answer) -> None:
        """Keep an answer; a full disk costs a repeated call later, and no result now."""
        content = {
            "plan": answer.plan,
            "log_probabilities": answer.log_probabilities,
            "token_counts": answer.token_counts,
        }
        path = self._path(key)
        # the umask is read by setting it, which two threads must not do at once
        with self._lock, suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, (json.dumps(content, ensure_ascii=False) + "\n").encode())

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"
