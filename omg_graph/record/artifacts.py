"""Arrays by reference: what a state says of an array, where arrays live, and small copies of them."""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from omg_graph.errors import OmgError
from omg_graph.files import write_atomically

Array = npt.NDArray[Any]
PREVIEW = 4

SECONDS_A_DAY = 86_400

_HASH = re.compile(r"[0-9a-f]{64}")


class ArrayStatistics(BaseModel):
    """Range and spread of an array's finite entries."""

    model_config = ConfigDict(frozen=True)

    minimum: float
    maximum: float
    mean: float
    deviation: float


class ArrayRef(BaseModel):
    """What there is to know of an array without holding it."""

    model_config = ConfigDict(frozen=True)

    uri: str = Field(description="Where the array lies.")
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    statistics: ArrayStatistics | None = None
    preview: tuple[float, ...] = Field(default=(), description="The first few numbers.")


def describe(array: Array, uri: str) -> ArrayRef:
    """The reference of an array that lies at ``uri``.

    Raises:
        TypeError: for arrays of Python objects, which have no content of their own to name them by.
    """
    # np.ascontiguousarray would give a scalar a dimension
    contiguous = np.asarray(array, order="C")
    if contiguous.dtype.hasobject:
        raise TypeError(f"expected an array of numbers or strings, got dtype {contiguous.dtype}")
    statistics: ArrayStatistics | None = None
    preview: tuple[float, ...] = ()
    if contiguous.dtype.kind in "fiub" and contiguous.size:
        numbers = contiguous.astype(np.float64).ravel()
        finite = numbers[np.isfinite(numbers)]
        if finite.size:
            # in units of the largest entry, so that no square overflows
            scale = float(np.abs(finite).max()) or 1.0
            statistics = ArrayStatistics(
                minimum=_short(finite.min()),
                maximum=_short(finite.max()),
                mean=_short(scale * (finite / scale).mean()),
                deviation=_short(scale * (finite / scale).std()),
            )
            preview = tuple(_short(number) for number in finite[:PREVIEW])
    return ArrayRef(
        uri=uri,
        shape=contiguous.shape,
        dtype=str(contiguous.dtype),
        sha256=content_hash(contiguous),
        statistics=statistics,
        preview=preview,
    )


def content_hash(array: Array) -> str:
    """SHA-256 of an array's dtype, shape and bytes."""
    contiguous = np.asarray(array, order="C")
    digest = hashlib.sha256(f"{contiguous.dtype.str}{contiguous.shape}".encode())
    digest.update(contiguous.tobytes())
    return digest.hexdigest()


def _short(number: float) -> float:
    return float(f"{float(number):.6g}")


class ArtifactStore(Protocol):
    """Somewhere to keep arrays by what they hold."""

    def put(self, array: Array) -> ArrayRef:
        """Keep an array."""
        ...

    def get(self, ref: ArrayRef) -> Array:
        """The array that a reference stands for."""
        ...


class MemoryArtifactStore:
    """Arrays in memory, the least recently used ones dropped beyond a bound."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self._arrays: OrderedDict[str, Array] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, array: Array) -> ArrayRef:
        """Keep a read-only copy."""
        ref = describe(array, "")
        ref = ref.model_copy(update={"uri": f"memory:{ref.sha256}"})
        with self._lock:
            if ref.sha256 in self._arrays:
                self._arrays.move_to_end(ref.sha256)
                return ref
            kept = np.array(array)
            kept.flags.writeable = False
            self._arrays[ref.sha256] = kept
            self._bytes += kept.nbytes
            while self._bytes > self.max_bytes and len(self._arrays) > 1:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        return ref

    def get(self, ref: ArrayRef) -> Array:
        """The array that a reference stands for.

        Raises:
            OmgError: if it was dropped, or belongs to another process's store.
        """
        with self._lock:
            if ref.sha256 in self._arrays:
                self._arrays.move_to_end(ref.sha256)
                return self._arrays[ref.sha256]
        raise OmgError(
            f"the array {ref.uri} is no longer in memory: build the graph with a larger or a "
            "disk-backed artifact store, or run the sample again"
        )


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


def block_sizes(shape: tuple[int, ...], cells: int) -> tuple[int, ...]:
    """How many neighbours along each axis one cell stands for, so that at most ``cells`` are left.

    The axis that has most cells left gives way first. A shape that fits is left as it is, and so are the
    channels of an image.

    Args:
        shape: (features,), (frames, features), (height, width) or (channels, height, width).
        cells: The most cells of the small copy, 1 or more; channels count.
    """
    channels = shape[0] if len(shape) == 3 else 1
    axes = shape[1:] if len(shape) == 3 else shape
    blocks = [1] * len(axes)

    def left() -> list[int]:
        return [-(-size // block) for size, block in zip(axes, blocks, strict=True)]

    while np.prod(left()) * channels > cells and max(left()) > 1:
        longest = int(np.argmax(left()))
        blocks[longest] += 1
    return (1, *blocks) if len(shape) == 3 else tuple(blocks)


def thumbnail(array: Array, blocks: tuple[int, ...]) -> Array:
    """The mean of each block; blocks at the far edges may be smaller.

    Args:
        array: Any number of leading axes, then as many as ``blocks`` has.
        blocks: What ``block_sizes`` says.
    """
    out = np.asarray(array, dtype=np.float64)
    first = out.ndim - len(blocks)
    for axis, block in enumerate(blocks, start=first):
        if block == 1:
            continue
        starts = np.arange(0, out.shape[axis], block)
        counts = np.diff(np.append(starts, out.shape[axis]))
        shape = [1] * out.ndim
        shape[axis] = len(starts)
        out = np.add.reduceat(out, starts, axis=axis) / counts.reshape(shape)
    return out.astype(np.float32)


def spaced(count: int, most: int) -> list[int]:
    """At most ``most`` (two or more) of ``count`` indices, evenly spaced, the first and last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(index) for index in np.linspace(0, count - 1, most).tolist()})
