"""The few names that a pickle of plain data may mention, and what is built for them without a call."""

from __future__ import annotations

from typing import cast

from omg_graph.data.arrays import PlainArray, array_from_bytes, checked_shape, plain_dtype
from omg_graph.errors import DataError, UnsafeFileError

KEYS = (str, bytes, int, float, bool, type(None))
"""What may be a key or lie in a set: hashing a tuple of tuples would recurse as deep as the file likes."""

_KINDS = {
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
}
for _core in ("numpy.core", "numpy._core"):  # NumPy 1 and 2
    _KINDS[f"{_core}.multiarray", "_reconstruct"] = "reconstruct"
    _KINDS[f"{_core}.multiarray", "scalar"] = "scalar"
    _KINDS[f"{_core}.numeric", "_frombuffer"] = "frombuffer"
for _builtins in ("builtins", "__builtin__"):
    for _container in ("bytes", "bytearray", "set", "frozenset"):
        _KINDS[_builtins, _container] = _container


class PickledName:
    """A name from the table; it refers to nothing that could be called."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class PickledDtype:
    """A data type before and after its byte order is known."""

    def __init__(self, code: str) -> None:
        self.code = code.lstrip("<>|=")
        self.order = ""

    def array(
        self, shape: object, raw: bytes | bytearray | str, limit: int, fortran: bool = False
    ) -> PlainArray:
        """An array of this type, once its declared size is what is there."""
        content = latin1(raw) if isinstance(raw, str) else raw
        dtype = plain_dtype(self.order + self.code)
        return array_from_bytes(content, dtype, checked_shape(shape, limit), fortran=fortran)


class PickledArray:
    """An array that may be referred to before it is filled; one of objects becomes a list."""

    def __init__(self) -> None:
        self.content: PlainArray | list[object] | None = None


def look_up(module: str, attribute: str) -> PickledName:
    """The stand-in for a name.

    Raises:
        UnsafeFileError: that gives the name, if it isn't one of plain data.
    """
    kind = _KINDS.get((module, attribute))
    if kind is None:
        shown = f"{module}.{attribute}"[:120]
        raise UnsafeFileError(
            f"containers, strings, numbers and NumPy arrays were expected, the pickle asks for {shown!r}: "
            "refused before anything in it was run; save the data as NumPy arrays"
        )
    return PickledName(kind)


def build(callee: object, arguments: object, limit: int) -> object:
    """What one of the known names makes of its arguments, in a file of ``limit`` bytes.

    Raises:
        UnsafeFileError: for any other callee, or unusual arguments.
    """
    if not isinstance(callee, PickledName) or not isinstance(arguments, tuple):
        raise UnsafeFileError("plain data was expected, a call of something else came: refused")
    if callee.kind in ("reconstruct", "dtype", "scalar", "frombuffer"):
        return _build_numpy(callee.kind, arguments, limit)
    match callee.kind, arguments:
        case "encode", (str() as text, "latin1" | "latin-1"):
            return latin1(text)
        case "bytes", ():
            return b""
        case "bytearray", (bytes() as content,):
            return bytearray(content)
        case "set" | "frozenset", (list() as items,):
            return set(keys(items))
    raise _unusual(callee.kind)


def _build_numpy(kind: str, arguments: tuple[object, ...], limit: int) -> object:
    match kind, arguments:
        case "reconstruct", (PickledName(kind="ndarray"), (0,), b"b" | "b"):
            return PickledArray()
        case "dtype", (str() as code, *_):
            return PickledDtype(code)
        case "scalar", (PickledDtype() as dtype, (bytes() | str()) as raw):
            return dtype.array((), raw, limit).item()
        case "frombuffer", (
            (bytes() | bytearray()) as raw,
            PickledDtype() as dtype,
            shape,
            "C" | "F" as order,
        ):
            return dtype.array(shape, raw, limit, fortran=order == "F")
        case "frombuffer", (
            (bytes() | bytearray()) as raw,
            PickledDtype() as dtype,
            shape,
            "K",
            tuple() as axes,
        ):
            array = dtype.array(shape, raw, limit)
            if not all(type(axis) is int for axis in axes) or sorted(axes) != list(range(array.ndim)):
                raise DataError("a damaged array: its axes are not in any order")
            return array.transpose(axes)
    raise _unusual(kind)


def _unusual(kind: str) -> UnsafeFileError:
    return UnsafeFileError(f"{kind} with unusual arguments came in the pickle: refused, nothing was run")


def fill(target: object, state: object, limit: int) -> None:
    """Give a data type its byte order, or an array its content.

    Raises:
        UnsafeFileError: for a state of anything else.
        DataError: if the array declares more or less than there is.
    """
    match target, state:
        case PickledDtype(), (
            3 | 4,
            "<" | ">" | "|" | "=" as order,
            None,
            None,
            None,
            int(),
            int(),
            int(),
            *_,
        ):
            target.order = cast("str", order) if order in ("<", ">") else ""
        case PickledArray(content=None), (1, shape, PickledDtype() as dtype, bool(), list() as items):
            if not dtype.code.startswith("O"):
                raise DataError("a damaged pickle: a list where an array's bytes were expected")
            if checked_shape(shape, limit) != (len(items),):
                raise DataError(
                    "an array of objects with one axis was expected: save it as numbers or strings"
                )
            target.content = items
        case PickledArray(content=None), (1, shape, PickledDtype() as dtype, bool() as fortran, content) if (
            isinstance(content, bytes | bytearray | str)
        ):
            target.content = dtype.array(shape, content, limit, fortran)
        case _:
            raise UnsafeFileError("plain data was expected, an object with a state of its own came: refused")


def latin1(text: str) -> bytes:
    """Bytes that a pickle of protocol 2 writes as text."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise DataError("a damaged pickle: bytes that aren't bytes") from None


def keys(items: list[object]) -> list[object]:
    """The same items, once all of them may be keys."""
    if not all(isinstance(item, KEYS) for item in items):
        raise DataError("a damaged pickle: a key that is neither text nor a number")
    return items
