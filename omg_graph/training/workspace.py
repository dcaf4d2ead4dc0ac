"""Where a training run keeps what it has finished, so that it can go on after being killed at any moment."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from omg_graph.errors import ModelError
from omg_graph.files import write_atomically
from omg_graph.training.sharing import SharedStages

SUFFIX = ".training"
IDENTITY = "identity"
"""The stage that is kept first: what the run was started with."""


class Workspace:
    """A folder of stages, each one file that is written whole or not at all.

    With ``shared`` it takes what another run has made already, and gives what it makes.
    """

    def __init__(self, folder: Path, shared: SharedStages | None = None) -> None:
        self.folder = folder
        self.shared = shared

    @classmethod
    def beside(cls, output: Path) -> Workspace:
        """The workspace of a model that will be at ``output``.

        Raises:
            ModelError: if the output is the root of the file system, which has nothing beside it.
        """
        if output.name in ("", ".."):
            output = output.resolve()
        if not output.name:
            raise ModelError(f"--output {output}: a folder inside another was expected: choose another name")
        return cls(output.with_name(output.name + SUFFIX))

    def is_foreign(self) -> bool:
        """Whether something lies at its place that no training run has begun."""
        if not self.folder.is_dir():
            return self.folder.exists()
        # a run killed while it wrote the first file leaves that file's temporary name
        begun = f".{self.path(IDENTITY).name}."
        return not self.has(IDENTITY) and any(
            not entry.name.startswith(begun) for entry in self.folder.iterdir()
        )

    def create(self) -> None:
        """Make the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, stage: str) -> Path:
        """The file of a stage."""
        return self.folder / f"{stage}.safetensors"

    def has(self, stage: str) -> bool:
        """Whether a stage was saved, here or by a run that shares its stages."""
        if self.path(stage).is_file():
            return True
        return self.shared is not None and self.folder.is_dir() and self.shared.lend(stage, self.path(stage))

    def save(self, stage: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Save tensors and JSON facts together; a stage saved before is replaced in one step."""
        plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        content = safetensors_bytes(plain, metadata={"facts": json.dumps(facts, sort_keys=True)})
        write_atomically(self.path(stage), content)
        if self.shared is not None:
            self.shared.keep(stage, self.path(stage))

    def load(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What ``save`` kept.

        Raises:
            ModelError: if the file is damaged.
        """
        try:
            with safe_open(self.path(stage), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                facts = json.loads(file.metadata()["facts"])
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise ModelError(
                f"{self.path(stage)} is damaged ({error}): delete it, and --resume makes that stage again"
            ) from error
        return tensors, facts

    def remove(self) -> None:
        """Delete the folder: the model is finished."""
        if self.folder.is_dir():
            # what says whose it is goes last: a kill on the way leaves no riddle
            for entry in sorted(self.folder.iterdir(), key=lambda entry: entry == self.path(IDENTITY)):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def weights_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one part of a saved stage, without its prefix."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
