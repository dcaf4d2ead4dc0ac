"""Arrays by reference: what a trajectory or a graph's state says of an array, and where arrays live."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from omg_graph.errors import OmgError

Array = npt.NDArray[Any]
PREVIEW = 4


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
        raise TypeError(f"an array of numbers or strings was expected, dtype {contiguous.dtype} came")
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
