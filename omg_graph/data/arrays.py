"""Arrays from untrusted bytes, alone or in an ``.npz`` file: sizes are checked before any memory is taken."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from pathlib import Path

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


def is_nothing(value: object) -> bool:
    """Whether a value is None, or a lone NaN, which is how data frames say None."""
    return value is None or (isinstance(value, (float, np.floating)) and bool(np.isnan(value)))


def shape_of(value: object) -> tuple[int, ...] | None:
    """The shape of numbers in an array or in lists, by each list's first item; None of anything else."""
    if isinstance(value, np.ndarray):
        return value.shape if value.dtype.kind in "biuf" else None
    if isinstance(value, (list, tuple)):
        some = [item for item in value if item is not None]
        inner = shape_of(next((item for item in some if not is_nothing(item)), some[0] if some else None))
        return None if inner is None else (len(value), *inner)
    return () if isinstance(value, (int, float, np.number, np.bool_)) else None


def is_scalar(value: object) -> bool:
    """Whether a value is one text or number, and not a list of them."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0
    return isinstance(value, (str, bytes, int, float, np.generic))


def per_sample(value: object, rows: int, label: str, *, single: bool) -> list[object]:
    """A field with one value for each sample, as a list of Python's own values; None may be among them.

    Args:
        value: an array or a list; with ``single`` the value of the one sample will do.
        rows: how many samples there are.
        label: of the field, for messages.
        single: whether there is one sample, whose fields need no axis of samples.

    Raises:
        DataError: if there isn't one value for each sample.
    """
    if isinstance(value, np.ndarray):
        value = (value.reshape(-1) if value.size == rows else value).tolist()
    if single and is_scalar(value):
        value = [value]
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{label}: expected a list of {rows} values, got {type(value).__name__}: give a list")
    if len(value) != rows:
        raise DataError(f"{label}: expected {rows} values, got {len(value)}: give one for each sample")
    return [
        item.item() if isinstance(item, (np.generic, np.ndarray)) and item.size == 1 else item
        for item in value
    ]


def plain_dtype(text: str) -> np.dtype[np.generic]:
    """The data type that a short code such as ``<f4`` names, if it is one of numbers, booleans or strings.

    Raises:
        UnsafeFileError: for objects, records, dates and whatever else isn't plain.
    """
    if not _PLAIN_DTYPE.fullmatch(text):
        raise UnsafeFileError(
            f"expected arrays of numbers, booleans or strings, got one of dtype {text[:40]!r}: save "
            "it as one of those"
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


MAX_INFLATION = 100
"""How often over the file's size its members may unpack to, beside a fixed allowance."""

ALLOWANCE = 64 * 2**20
"""Bytes that any file may unpack to: small masks compress a thousandfold."""

_ENTRY = r"'(\w+)'\s*:\s*('[^']*'|True|False|\([\d,\sL]*\))"
_HEADER = re.compile(rf"\s*\{{\s*{_ENTRY}\s*,\s*{_ENTRY}\s*,\s*{_ENTRY}\s*,?\s*\}}\s*")


def read_npz(path: Path) -> dict[str, PlainArray]:
    """The arrays of an ``.npz`` file by name.

    NumPy's own reader takes the memory that a header declares before it looks at the data, and lets records
    and dates through: hence this one.

    Raises:
        UnsafeFileError: if a member holds pickled objects or records; nothing in it is run.
        DataError: if the file is damaged, or declares more than a file of its size can hold.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _members(archive, path.stat().st_size)
    except DataError as error:
        raise type(error)(f"{path}: {printable(error)}") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        struct.error,
        EOFError,
        NotImplementedError,
        OSError,
        RuntimeError,  # a member under a password
        ValueError,
    ) as error:
        raise DataError(f"{path}: a damaged .npz file: {printable(error)}") from None


def _members(archive: zipfile.ZipFile, size: int) -> dict[str, PlainArray]:
    entries = archive.infolist()
    names = [entry.filename for entry in entries]
    if not names or not all(name.endswith(".npy") for name in names):
        shown = ", ".join(name[:40] for name in names[:3]) or "nothing"
        raise DataError(f"expected an .npz file, whose members are .npy arrays, got a zip file with {shown}")
    if len(set(names)) < len(names):
        raise DataError("two members of the file have the same name")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise DataError("an unusual compression: save it with numpy.savez or numpy.savez_compressed")
    total = sum(entry.file_size for entry in entries)
    if total > ALLOWANCE + MAX_INFLATION * size:
        raise DataError(f"a file of {size} bytes declares {total} bytes of data, which is refused")
    return {name[: -len(".npy")]: _array(archive, entry) for name, entry in zip(names, entries, strict=True)}


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> PlainArray:
    with archive.open(entry) as member:
        content = io.BytesIO(member.read(entry.file_size))
    start = content.read(8)
    if len(start) < 8 or start[:6] != b"\x93NUMPY" or start[6] not in (1, 2, 3):
        raise DataError(f"{entry.filename[:40]} is not a NumPy array")
    width = "<H" if start[6] == 1 else "<I"
    (length,) = struct.unpack(width, content.read(struct.calcsize(width)))
    header = content.read(min(length, 10_000)).decode("latin-1")
    match = _HEADER.fullmatch(header)
    fields = dict(zip(match.groups()[::2], match.groups()[1::2], strict=True)) if match else {}
    if set(fields) != {"descr", "fortran_order", "shape"}:
        raise UnsafeFileError(
            f"expected arrays of numbers or strings, {entry.filename[:40]} holds something else: save "
            "each field as an array of its own"
        )
    try:
        dtype = plain_dtype(fields["descr"].strip("'"))
    except DataError as error:
        raise type(error)(f"{entry.filename[:40]}: {error}") from None
    sizes = tuple(int(part) for part in re.findall(r"\d+", fields["shape"]))
    shape = checked_shape(sizes, entry.file_size)
    return array_from_bytes(content.read(), dtype, shape, fortran=fields["fortran_order"] == "True")
