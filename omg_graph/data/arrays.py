"""Arrays from untrusted bytes: what they declare is checked before anything is allocated."""

from __future__ import annotations

import math
import re

import numpy as np
import numpy.typing as npt

from omg_graph.errors import DataError, UnsafeFileError

PlainArray = npt.NDArray[np.generic]
"""An array of numbers, booleans or strings."""

_PLAIN_DTYPE = re.compile(r"[<>=|]?(\?|b1|[iu][1248]|f(2|4|8|12|16)|[US]0*[1-9]\d{0,9})")

MAX_DIMENSIONS = 8


def printable(text: object) -> str:
    """One line that shows text from a file without obeying its control characters."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in str(text))


def whole_text(text: str | bytes) -> str:
    """Text that can be written: halves of a letter that a careless cut left become the replacement sign."""
    if isinstance(text, bytes):
        return text.decode("utf-8", "replace")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def plain_dtype(text: str) -> np.dtype[np.generic]:
    """The data type that a short code such as ``<f4`` names, if it is one of numbers, booleans or strings.

    Raises:
        UnsafeFileError: for objects, records, dates and whatever else isn't plain.
    """
    if not _PLAIN_DTYPE.fullmatch(text):
        raise UnsafeFileError(
            f"arrays of numbers, booleans or strings were expected, one of dtype {text[:40]!r} came: "
            "save it as one of those"
        )
    try:
        return np.dtype(text)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"array of dtype {text[:40]!r}: {error}") from None


def checked_shape(shape: object, limit: int) -> tuple[int, ...]:
    """A declared shape, once it is one that a file of ``limit`` bytes can mean.

    Raises:
        DataError: for anything but a short tuple of sizes, or for a size beyond the file's own.
    """
    if not isinstance(shape, tuple) or not all(type(size) is int for size in shape):
        raise DataError("a damaged array: its shape is not a tuple of integers")
    sizes: tuple[int, ...] = shape
    if len(sizes) > MAX_DIMENSIONS or any(size < 0 or size > limit for size in sizes):
        raise DataError(
            f"an array declares the shape {str(sizes)[:80]}, more than a file of {limit} bytes holds"
        )
    return sizes


def array_from_bytes(
    raw: bytes | bytearray,
    dtype: np.dtype[np.generic],
    shape: tuple[int, ...],
    *,
    fortran: bool = False,
) -> PlainArray:
    """The array of this type and shape that lies in ``raw``, as a view wherever NumPy can.

    Raises:
        DataError: if the bytes are not exactly as many as the shape declares.
    """
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(raw):
        raise DataError(
            f"a damaged array: shape {shape} of {dtype} takes {expected} bytes, the file holds {len(raw)}"
        )
    flat: PlainArray = np.frombuffer(raw, dtype=dtype) if raw else np.empty(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")
