"""Answers that were paid for, on disk: a file for each request, named by a hash of all that it depends on."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from omg_graph.files import KeyedFiles
from omg_graph.planner.answers import Answer

LAYOUT = 1


class AnswerCache:
    """Keeps plans and their log-probabilities; neither requests, transcripts nor credentials."""

    def __init__(self, folder: Path) -> None:
        """Open a folder, making it if need be.

        Raises:
            ConfigError: if it can't be written.
        """
        self._files = KeyedFiles(
            folder,
            ".json",
            what="the planner's answers",
            remedy="point OMG_CACHE elsewhere, or use --no-planner-cache",
        )

    @staticmethod
    def key(**parts: Any) -> str:
        """The name of a request, by everything that its answer depends on."""
        canonical = json.dumps({"layout": LAYOUT, **parts}, sort_keys=True, default=str)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def read(self, key: str, fields: int) -> Answer | None:
        """The answer, or None where there is none or its file is damaged."""
        content = self._files.read(key)
        if content is None:
            return None
        try:
            found = json.loads(content)
            plan = tuple(found["plan"])
            sums, counts = found["log_probabilities"], found["token_counts"]
            if sums is not None:
                sums, counts = tuple(map(float, sums)), tuple(map(int, counts))
        except (ValueError, KeyError, TypeError):
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
        self._files.write(key, (json.dumps(content, ensure_ascii=False) + "\n").encode())
