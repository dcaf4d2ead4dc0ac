"""Files and folders that are there whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
        if replace and target.exists():
            _swap(made, target)
        else:
            made.rename(target)
        _flush(target.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)


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


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
