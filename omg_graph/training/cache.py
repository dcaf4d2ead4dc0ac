"""The cache of training stages: one file each, keyed by everything that the result depends on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch import Tensor

from omg_graph.errors import ModelError
from omg_graph.files import write_atomically
from omg_graph.model.folder import versions

T = TypeVar("T")
Content = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors, and facts as JSON keeps them: what a stage's function returns."""

FOLDER_SUFFIX = ".training"
REQUEST = "request.json"
"""What the training was started with; written first, removed last."""


@dataclass(frozen=True)
class Made(Generic[T]):
    """A stage's result, and its digest for the keys of later stages."""

    value: T
    digest: str
    """SHA-256 of the content if it is kept in a file, else of the stage's inputs."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Numbers about the result, for notes and the manifest."""


class Checkpoint:
    """The progress of a long stage; a damaged file is treated as missing."""

    def __init__(self, path: Path, on_damage: Callable[[Path], None]) -> None:
        self.path, self._on_damage = path, on_damage

    def load(self) -> Content | None:
        """The last saved content; None if there is none or it is damaged."""
        return _read(self.path, self._on_damage)

    def save(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Replace what was saved before, in one step."""
        _write(self.path, tensors, facts)


class StageCache:
    """Runs each stage once for all that it depends on.

    A stage is a function. Its key is made of its arguments, of library versions and of its own version; a
    ``Made`` argument counts by its digest, so that keys chain. Whatever an argument doesn't hold, such as a
    callback bound with ``partial``, doesn't count. Files appear whole, and two runs that make the same one
    make the same bytes, so several runs may use one folder at the same time.
    """

    def __init__(self, folder: Path, shared: Path | None = None) -> None:
        """Name the folders; they are made when something is kept.

        Args:
            folder: of this training alone.
            shared: of stages that trainings with other settings may use too; ``folder`` if None.
        """
        self.folder = folder
        self.shared = shared or folder
        self._memory: dict[str, Made[Any]] = {}
        self.notes: list[str] = []
        """Notes on damaged files that were rebuilt."""

    @classmethod
    def beside(cls, output: Path, shared: Path | None = None) -> StageCache:
        """The cache of a model that will be at ``output``.

        Raises:
            ModelError: if the output is the root of the file system, which has nothing beside it.
        """
        if output.name in ("", ".."):
            output = output.resolve()
        if not output.name:
            raise ModelError(f"--output {output}: expected a folder inside another: choose another name")
        return cls(output.with_name(output.name + FOLDER_SUFFIX), shared)

    def stage(
        self,
        name: str,
        make: Callable[..., Content],
        load: Callable[[dict[str, Tensor], dict[str, Any]], T],
        *arguments: Any,
        version: int = 1,
        private: bool = False,
        resumable: bool = False,
    ) -> Made[T]:
        """What ``make(*arguments)`` returns, from the file if it is there.

        Args:
            name: Of the stage and its file.
            make: The stage.
            load: Turns its content into what later stages take.
            arguments: All that decides the content.
            version: Version of the stage's code: a change rebuilds the stage.
            private: Whether the file stays out of the shared folder.
            resumable: Whether ``make`` takes a ``Checkpoint``, as ``checkpoint``.
        """
        key = _key(name, version, arguments)
        if key in self._memory:
            return self._memory[key]
        folder = self.folder if private else self.shared
        path = folder / f"{name}-{key[:24]}.safetensors"
        content = _read(path, self._damaged)
        if content is None:
            more = {}
            if resumable:
                self.folder.mkdir(parents=True, exist_ok=True)
                more["checkpoint"] = Checkpoint(
                    self.folder / f"{name}-{key[:24]}.under-way.safetensors", self._damaged
                )
            tensors, facts = make(*map(_plain, arguments), **more)
            folder.mkdir(parents=True, exist_ok=True)
            _write(path, tensors, facts)
            # read back from the file, so that a resumed run gets the same content
            content = _read(path, self._damaged)
            if content is None:
                raise ModelError(f"{path} can't be read right after it was written: look at the disk")
        made = Made(load(*content), _content_digest(*content), {"file": path.name, **content[1]})
        self._memory[key] = made
        return made

    def derived(
        self, name: str, make: Callable[..., T], *arguments: Any, version: int = 1, remember: bool = True
    ) -> Made[T]:
        """What ``make(*arguments)`` returns, kept in memory alone.

        Args:
            name: Of what is made.
            make: Makes it.
            arguments: All that decides it.
            version: Of the code.
            remember: Whether runs in this process share it; not where somebody will change it.
        """
        key = _key(name, version, arguments)
        if key in self._memory:
            return self._memory[key]
        made = Made(make(*map(_plain, arguments)), key)
        if remember:
            self._memory[key] = made
        return made

    def variant(self, folder: Path) -> StageCache:
        """A cache for another training of this process, which has the stages in common."""
        made = StageCache(folder, self.shared)
        made._memory = self._memory
        return made

    def _damaged(self, path: Path) -> None:
        self.notes.append(f"{path.name} was damaged (its SHA-256 differs): that stage was made anew")
        path.unlink(missing_ok=True)

    def request(self) -> dict[str, Any] | None:
        """What this training was started with; None if it wasn't.

        Raises:
            ModelError: if the file is damaged.
        """
        path = self.folder / REQUEST
        if not path.is_file():
            return None
        try:
            kept: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError:
            raise ModelError(f"{path} is damaged: leave out --resume to start anew") from None
        return kept

    def begin(self, request: Mapping[str, Any]) -> None:
        """Make the folder, and keep what the training is started with."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / REQUEST, json.dumps(request).encode())

    def is_foreign(self) -> bool:
        """Whether something lies at the folder's place that no training has begun."""
        if not self.folder.is_dir():
            return self.folder.exists()
        # a run killed while it wrote the first file leaves that file's temporary name
        return not (self.folder / REQUEST).is_file() and any(
            not entry.name.startswith(f".{REQUEST}.") for entry in self.folder.iterdir()
        )

    def remove(self) -> None:
        """Delete the folder: the model is finished."""
        if self.folder.is_dir():
            # the request goes last: after a kill the folder can still be recognised
            for entry in sorted(self.folder.iterdir(), key=lambda entry: entry.name == REQUEST):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def digest_of(value: Any) -> str:
    """SHA-256 of a value as it counts in a key: settings, numbers, texts, arrays, or what a stage made.

    Raises:
        TypeError: if its content can't be hashed, such as a module.
    """
    return hashlib.sha256(json.dumps(_canonical(value), sort_keys=True).encode()).hexdigest()


def _key(name: str, version: int, arguments: tuple[Any, ...]) -> str:
    return digest_of([name, version, _versions(), list(arguments)])


@cache
def _versions() -> dict[str, str]:
    return versions()


def _plain(argument: Any) -> Any:
    if isinstance(argument, Made):
        return argument.value
    if isinstance(argument, tuple):
        return tuple(map(_plain, argument))
    if isinstance(argument, list):
        return list(map(_plain, argument))
    return argument


def _canonical(value: Any) -> Any:
    """What stands for a value in JSON."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        content = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
        value = [str(value.dtype), list(value.shape), content]
    elif isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    elif isinstance(value, Made):
        value = {"made": value.digest}
    elif dataclasses.is_dataclass(value):
        value = {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _canonical(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"expected a stage's argument whose content has a hash, got {type(value).__name__}")


def _content_digest(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> str:
    return digest_of([dict(sorted(tensors.items())), dict(facts)])


def _write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    facts = json.loads(json.dumps(facts))  # tuples become lists, as they will when they are read
    # one entry: safetensors writes several in any order
    made = json.dumps({"facts": facts, "sha256": _content_digest(plain, facts)}, sort_keys=True)
    write_atomically(path, safetensors_bytes(plain, metadata={"made": made}))


def _read(path: Path, on_damage: Callable[[Path], None]) -> Content | None:
    """The content of a file; None if there is none, or it isn't what was written."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            made = json.loads(file.metadata()["made"])
        if made["sha256"] == _content_digest(tensors, made["facts"]):
            return tensors, made["facts"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        pass
    on_damage(path)
    return None


def weights_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one part of a stage, without its prefix."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
