"""Arrays on disk, beside a checkpointer: they outlive the process that made them."""

from __future__ import annotations

import io
import os
import re
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from omg_graph.errors import OmgError
from omg_graph.files import write_atomically
from omg_graph.record.artifacts import Array, ArrayRef, content_hash, describe

SECONDS_A_DAY = 86_400

_HASH = re.compile(r"[0-9a-f]{64}")


class DiskArtifactStore:
    """One .npy file for each array, named by its hash, written whole or not at all.

    Args:
        folder: Where the files lie; it is made if it isn't there.
        address: Where the arrays are served over HTTP, for references that a reader elsewhere can follow.
    """

    def __init__(self, folder: Path, address: str | None = None) -> None:
        self.folder = folder
        self.address = address
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, array: Array) -> ArrayRef:
        """Write an array; one with the same content that lies there is young again."""
        ref = describe(array, "")
        path = self.folder / f"{ref.sha256}.npy"
        try:
            os.utime(path)
        except FileNotFoundError:
            content = io.BytesIO()
            np.save(content, np.asarray(array, order="C"), allow_pickle=False)
            write_atomically(path, content.getvalue())
        uri = f"{self.folder.name}/{path.name}" if self.address is None else f"{self.address}/{ref.sha256}"
        return ref.model_copy(update={"uri": uri})

    def prune(self, days: float) -> tuple[int, int]:
        """Delete the arrays that no run has put here for so many days; what refers to them can't be resumed.

        It is safe beside runs: what they put is young, and an array is there whole or not at all.

        Returns:
            How many arrays went, and how many bytes.
        """
        count = size = 0
        oldest = time.time() - days * SECONDS_A_DAY
        for path in self.folder.glob("*.npy"):
            with suppress(FileNotFoundError):  # another process prunes too
                known = path.stat()
                if _HASH.fullmatch(path.stem) and known.st_mtime < oldest:
                    path.unlink()
                    count, size = count + 1, size + known.st_size
        return count, size

    def path(self, sha256: str) -> Path | None:
        """The file of an array by its hash; None if there is none, or it is no hash."""
        path = self.folder / f"{sha256}.npy"
        return path if _HASH.fullmatch(sha256) and path.is_file() else None

    def get(self, ref: ArrayRef) -> Array:
        """Read an array; the name comes from its hash, never from a path in the reference.

        Raises:
            OmgError: if it isn't there or its content isn't what the reference says.
        """
        path = self.path(ref.sha256)
        if path is None:
            raise OmgError(f"the array {ref.uri} isn't in {self.folder}: run the sample again")
        try:
            array: Array | None = np.load(path, allow_pickle=False)
        except (ValueError, EOFError, OSError):
            array = None
        if array is None or content_hash(array) != ref.sha256:
            raise OmgError(f"{path} doesn't hold the array it is named for: delete it and run again")
        return array
