"""Read ``.npz`` files of numbers and strings, refusing objects and sizes that the file can't hold."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib
from pathlib import Path

from omg_graph.data.arrays import PlainArray, array_from_bytes, checked_shape, plain_dtype, printable
from omg_graph.errors import DataError, UnsafeFileError

MAX_INFLATION = 100
"""How often over the file's size its members may unpack to, beside a fixed allowance."""

ALLOWANCE = 64 * 2**20
"""Bytes that any file may unpack to: small masks compress a thousandfold."""

_ENTRY = r"'(\w+)'\s*:\s*('[^']*'|True|False|\([\d,\sL]*\))"
_HEADER = re.compile(rf"\s*\{{\s*{_ENTRY}\s*,\s*{_ENTRY}\s*,\s*{_ENTRY}\s*,?\s*\}}\s*")


def read_npz(path: Path) -> dict[str, PlainArray]:
    """The arrays of an ``.npz`` file by name.

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
        raise DataError(
            f"an .npz file was expected, whose members are .npy arrays; a zip file with {shown} came"
        )
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
            f"arrays of numbers or strings were expected, {entry.filename[:40]} holds something else: "
            "save each field as an array of its own"
        )
    try:
        dtype = plain_dtype(fields["descr"].strip("'"))
    except DataError as error:
        raise type(error)(f"{entry.filename[:40]}: {error}") from None
    sizes = tuple(int(part) for part in re.findall(r"\d+", fields["shape"]))
    shape = checked_shape(sizes, entry.file_size)
    return array_from_bytes(content.read(), dtype, shape, fortran=fields["fortran_order"] == "True")
