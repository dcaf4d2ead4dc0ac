"""Plans that a teacher is at work on, kept beside the model and never mixed with those of another teacher."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omg_graph.errors import ConfigError, ModelError
from omg_graph.files import write_atomically
from omg_graph.planner.schema import Schema
from omg_graph.training.teaching import PLANS, GrowingPlans

SUFFIX = ".distilling"
IDENTITY = "identity.json"


class UnfinishedPlans:
    """Plans under way, beside the model that they are for: what they belong to, and each one as it comes."""

    def __init__(self, output: Path) -> None:
        """Say where the model, or the file of plans, is going to be.

        Raises:
            ModelError: if that is the root of the file system, which has nothing beside it.
        """
        output = output.resolve()
        if not output.name:
            raise ModelError(f"--output {output}: a place inside a folder was expected: choose another name")
        self.folder = output.with_name(output.name + SUFFIX)

    def open(self, identity: Mapping[str, Any], schema: Schema, *, restart: bool = False) -> GrowingPlans:
        """Go on with what is there, or begin.

        Args:
            identity: All that plans depend on.
            schema: What plans obey.
            restart: Throw away what is there.

        Raises:
            ConfigError: if something else is there, or plans of another teacher, prompt, schema or data.
        """
        path = self.folder / IDENTITY
        if self.folder.exists() and not path.is_file() and any(self._foreign()):
            raise ConfigError(
                f"{self.folder} is where plans under way would be kept, and something else is there: choose "
                "another --output, or move it away yourself"
            )
        if restart and self.folder.is_dir():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            self._check(path, identity)
        else:
            write_atomically(path, (json.dumps(dict(identity), indent=2, ensure_ascii=False) + "\n").encode())
        return GrowingPlans(self.folder / PLANS, schema)

    def remove(self) -> None:
        """Delete it: the model is there."""
        # what says whose it is goes last, so that a kill on the way leaves no riddle
        (self.folder / PLANS).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _foreign(self) -> list[str]:
        # a run killed while it wrote the first file leaves that file's temporary name
        return [entry.name for entry in self.folder.iterdir() if not entry.name.startswith(f".{IDENTITY}.")]

    def _check(self, path: Path, identity: Mapping[str, Any]) -> None:
        try:
            begun = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            begun = {}
        different = [name for name, value in identity.items() if begun.get(name) != value]
        if different:
            told = ", ".join(
                f"{name} ({_short(begun.get(name))}, not {_short(identity[name])})" for name in different
            )
            raise ConfigError(
                f"{self.folder} holds plans that were begun with another {told}: go on with the same, or "
                "throw them away with --restart"
            )


def _short(value: object) -> str:
    """A value for a message; of a hash its beginning."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text[:12] if len(text) == 64 else text[:60]
