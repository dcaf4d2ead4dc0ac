"""Files and folders that are there whole or not at all, and the folder that strangers may name files in."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from omg_graph.errors import ConfigError, DataError, OmgError


class DataFolder:
    """The one folder whose files somebody may name who isn't the machine's own user.

    Raises:
        DataError: if it isn't there.
    """

    def __init__(self, folder: str | Path) -> None:
        if not Path(folder).is_dir():
            raise DataError(f"{folder}: expected a folder of data as data_folder, there is none: create it")
        self.folder = Path(folder).resolve()

    def find(self, path: str, what: str) -> Path:
        """The place that a path means, links followed; relative ones start in the folder.

        Args:
            path: As it was given.
            what: What it is called, for the message.

        Raises:
            DataError: if it lies outside the folder; the message doesn't say whether it exists.
        """
        # what no file can be called, or leads round in a circle, lies nowhere
        with suppress(ValueError, OSError, RuntimeError):
            found = (self.folder / path).resolve()
            if found.is_relative_to(self.folder) and found != self.folder:
                found.exists()  # raises where the name is too long
                return found
        raise DataError(
            f"{what}: expected a file in the data folder, got {path[:100]!r}: give a relative path"
        )

    @contextmanager
    def unnamed(self) -> Iterator[None]:
        """Keep from errors where the folder lies: that is its operator's business."""
        try:
            yield
        except OmgError as error:
            told = (
                str(error).replace(f"{self.folder}{os.sep}", "").replace(str(self.folder), "the data folder")
            )
            raise type(error)(told) from None


@contextmanager
def whole_folder(target: Path, replace: bool) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place when the block ends well.

    Files are flushed to the disk before the folder is renamed, so that not even a power cut leaves a half.
    Where the block fails, nothing of it stays.

    Args:
        target: the folder to make; the ones above it are made too. A link is followed, and stays.
        replace: whether a folder that is there already is replaced. If not, the rename fails.

    Raises:
        OSError: if the folder can't be written, or is there already and ``replace`` is False.
    """
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    try:
        yield made
        for folder, _, files in os.walk(made):
            for name in files:
                Path(folder, name).chmod(0o664 & ~_umask())
                _flush(Path(folder, name))
            _flush(Path(folder))
        # What mkdtemp and safetensors make is for its owner alone; a result follows the user's own habit, but
        # is never open to everyone's changes.
        made.chmod(0o775 & ~_umask())
        move_whole(made, target, replace)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def move_whole(made: Path, target: Path, replace: bool) -> None:
    """Have a finished folder take the place of ``target``, on the same file system, in one step.

    Raises:
        OSError: if it can't be moved, or something is there and ``replace`` is False.
    """
    if replace and target.exists():
        _swap(made, target)
    else:
        made.rename(target)
    _flush(target.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that no reader ever sees half of it, not even after a power cut.

    Raises:
        OSError: if it can't be written; an older file then stays as it was.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        made.chmod(0o666 & ~_umask())
        made.replace(path)
        _flush(path.parent)
    finally:
        made.unlink(missing_ok=True)


class KeyedFiles:
    """A folder of small files, each named by a hash of all that its content depends on.

    Several processes may share it: a file appears whole, and two that write the same one write what either
    would take.
    """

    def __init__(self, folder: Path, suffix: str, *, what: str, remedy: str) -> None:
        """Open a folder, making it if need be.

        Args:
            folder: where it lies.
            suffix: of its files.
            what: what is kept there, for the message.
            remedy: what to do where it can't be written, for the message.

        Raises:
            ConfigError: if it can't be written.
        """
        self._folder, self._suffix = folder, suffix
        with suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise ConfigError(
                f"expected a folder that can be written for {what}, {folder} isn't one: {remedy}"
            )

    def read(self, key: str) -> bytes | None:
        """The content, or None where there is none."""
        try:
            return self.path(key).read_bytes()
        except OSError:
            return None

    def write(self, key: str, content: bytes) -> None:
        """Keep a content; a full disk costs repeated work later, and no result now."""
        path = self.path(key)
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, content)

    def path(self, key: str) -> Path:
        """The file of a key, there or not."""
        return self._folder / key[:2] / f"{key}{self._suffix}"


def _swap(made: Path, target: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    old = aside / target.name
    target.rename(old)
    try:
        made.rename(target)
    except OSError:
        old.rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _flush(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows has no handle to flush a folder by
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_READING_UMASK = threading.Lock()
"""The umask is read by setting it, which two threads must not do at once."""


def _umask() -> int:
    with _READING_UMASK:
        mask = os.umask(0o077)
        os.umask(mask)
    return mask
