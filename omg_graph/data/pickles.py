"""Read pickles of plain data without running anything in them.

A pickle is a program for a small stack machine. Python's own machine imports and calls whatever the program
names; this one knows containers, strings, numbers and NumPy's arrays of those, and can call nothing. Names
are looked up in a fixed table, what they stand for is built from checked arguments, and every size is
bounded by the size of the file.
"""

from __future__ import annotations

import mmap
import pickletools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from omg_graph.data.arrays import PlainArray, array_from_bytes, checked_shape, plain_dtype, printable
from omg_graph.errors import DataError, UnsafeFileError

MAX_DEPTH = 32
"""Containers inside containers; a batch of images as nested lists takes seven."""

MAX_CONTAINERS = 2_000_000
"""Lists, tuples and mappings in one file: an empty one takes a byte there and a hundred here."""

MAX_REPEATS = 8
"""How often over the file's own size shared parts may be repeated by reference."""

MAX_BITS = 128
"""Of an integer: longer ones are no data, and take for ever to print."""

_MARK = object()
"""Where the items of a container begin on the stack."""


def read_pickle(path: Path) -> object:
    """The plain data in a pickle of protocol 2 to 5: containers, strings, numbers, NumPy arrays of those.

    Arrays of objects come back as lists, NumPy scalars as Python's.

    Raises:
        UnsafeFileError: if the file names anything beyond plain data; nothing in it is run.
        DataError: if it is damaged, or declares more than a file of its size can hold.
    """
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: expected a pickle, the file is empty")
    try:
        # A map hands out what is there, however much a damaged length asks for, and keeps no second copy.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
            return load_plain(cast("IO[bytes]", stream), size)
    except DataError as error:
        raise type(error)(f"{path}: {printable(error)}") from None


def load_plain(stream: IO[bytes], size: int) -> object:
    """The plain data in a stream of ``size`` bytes that is fully in reach; see ``read_pickle``."""
    machine = _Machine(size)
    for name, argument in _operations(stream):
        machine.step(name, argument)
    return _settled(machine.result(), size)


def _operations(stream: IO[bytes]) -> Iterator[tuple[str, Any]]:
    try:
        for operation, argument, _ in pickletools.genops(stream):
            yield operation.name, argument
    except (ValueError, OverflowError, EOFError) as error:
        raise DataError(f"a damaged pickle: {str(error)[:120]}") from None


class _Machine:
    """The stack, the memo and the few operations on them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.containers = 0

    def result(self) -> object:
        """What the program leaves."""
        value = self.pop()
        if self.stack:
            raise DataError("a damaged pickle: it ends with things left over")
        return value

    def step(self, name: str, argument: Any) -> None:
        """Run one operation."""
        if name in _WITH_ARGUMENT:
            _WITH_ARGUMENT[name](self, argument)
        elif name in _WITHOUT_ARGUMENT:
            _WITHOUT_ARGUMENT[name](self)
        else:
            raise UnsafeFileError(f"expected plain data, got the pickle operation {name}: refused")

    def push(self, value: object) -> None:
        """Put a value on the stack."""
        if type(value) is int and value.bit_length() > MAX_BITS:
            raise DataError(f"expected numbers of 64 bits, got one of {value.bit_length()} bits")
        self.stack.append(value)

    def push_container(self, value: object) -> None:
        """Put a new container on the stack, counted."""
        self.containers += 1
        if self.containers > MAX_CONTAINERS:
            raise DataError(f"more than {MAX_CONTAINERS} lists or mappings: save numbers as NumPy arrays")
        self.stack.append(value)

    def top(self) -> object:
        """The topmost value."""
        if not self.stack or self.stack[-1] is _MARK:
            raise DataError("a damaged pickle: it takes more than it has")
        return self.stack[-1]

    def pop(self) -> object:
        """The topmost value, taken away."""
        value = self.top()
        self.stack.pop()
        return value

    def items(self) -> list[object]:
        """Everything above the last mark, taken away with the mark."""
        for position in range(len(self.stack) - 1, -1, -1):
            if self.stack[position] is _MARK:
                found = self.stack[position + 1 :]
                del self.stack[position:]
                return found
        raise DataError("a damaged pickle: a container without a beginning")

    def drop(self) -> None:
        """Forget the topmost value or mark."""
        if not self.stack:
            raise DataError("a damaged pickle: it takes more than it has")
        self.stack.pop()

    def drop_items(self) -> None:
        """Forget everything down to the last mark."""
        self.items()

    def put(self, key: int) -> None:
        """Remember the topmost value."""
        self.memo[key] = self.top()

    def get(self, key: int) -> None:
        """Push a remembered value."""
        if key not in self.memo:
            raise DataError("a damaged pickle: it refers to something it hasn't stored")
        self.stack.append(self.memo[key])

    def push_name(self, name: str) -> None:
        """Push a name that is written out, module and attribute with a space between."""
        module, _, attribute = name.partition(" ")
        self.push(look_up(module, attribute))

    def push_name_on_stack(self) -> None:
        """Push the name whose module and attribute lie on the stack."""
        attribute, module = self.pop(), self.pop()
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise DataError("a damaged pickle: a name that isn't text")
        self.push(look_up(module, attribute))

    def reduce(self) -> None:
        """Do what would be a call."""
        arguments, callee = self.pop(), self.pop()
        self.push_container(build(callee, arguments, self.size))

    def build(self) -> None:
        """Give the topmost value the state that lies above it."""
        state = self.pop()
        fill(self.top(), state, self.size)

    def push_tuple(self, length: int) -> None:
        """Make a tuple of the topmost values."""
        parts = [self.pop() for _ in range(length)]
        self.push_container(tuple(reversed(parts)))

    def extend(self, items: list[object]) -> None:
        """Append to the list below."""
        target = self.top()
        if not isinstance(target, list):
            raise DataError("a damaged pickle: it appends to something that isn't a list")
        target.extend(items)

    def update(self, items: list[object]) -> None:
        """Set keys of the mapping below."""
        target = self.top()
        if not isinstance(target, dict):
            raise DataError("a damaged pickle: it sets a key of something that isn't a mapping")
        target.update(_pairs(items))

    def add(self, items: list[object]) -> None:
        """Add to the set below."""
        target = self.top()
        if not isinstance(target, set):
            raise DataError("a damaged pickle: it adds to something that isn't a set")
        target.update(keys(items))


_WITHOUT_ARGUMENT: dict[str, Callable[[_Machine], None]] = {
    "STOP": lambda machine: None,  # noqa: ARG005
    "NONE": lambda machine: machine.push(None),
    "NEWTRUE": lambda machine: machine.push(True),
    "NEWFALSE": lambda machine: machine.push(False),
    "EMPTY_LIST": lambda machine: machine.push_container([]),
    "EMPTY_TUPLE": lambda machine: machine.push_container(()),
    "EMPTY_DICT": lambda machine: machine.push_container({}),
    "EMPTY_SET": lambda machine: machine.push_container(set()),
    "MARK": lambda machine: machine.push(_MARK),
    "POP": _Machine.drop,
    "POP_MARK": _Machine.drop_items,
    "DUP": lambda machine: machine.push(machine.top()),
    "MEMOIZE": lambda machine: machine.put(len(machine.memo)),
    "TUPLE": lambda machine: machine.push_container(tuple(machine.items())),
    "TUPLE1": lambda machine: machine.push_tuple(1),
    "TUPLE2": lambda machine: machine.push_tuple(2),
    "TUPLE3": lambda machine: machine.push_tuple(3),
    "LIST": lambda machine: machine.push_container(machine.items()),
    "DICT": lambda machine: machine.push_container(_pairs(machine.items())),
    "FROZENSET": lambda machine: machine.push_container(set(keys(machine.items()))),
    "APPEND": lambda machine: machine.extend([machine.pop()]),
    "APPENDS": lambda machine: machine.extend(machine.items()),
    "SETITEM": lambda machine: machine.update([machine.pop(), machine.pop()][::-1]),
    "SETITEMS": lambda machine: machine.update(machine.items()),
    "ADDITEMS": lambda machine: machine.add(machine.items()),
    "STACK_GLOBAL": _Machine.push_name_on_stack,
    "REDUCE": _Machine.reduce,
    "BUILD": _Machine.build,
}
_LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
_WITH_ARGUMENT: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, argument: None),  # noqa: ARG005
    **dict.fromkeys(_LITERALS, _Machine.push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": _Machine.push_name,
}


def _pairs(items: list[object]) -> dict[object, object]:
    if len(items) % 2:
        raise DataError("a damaged pickle: a key without a value")
    return dict(zip(keys(items[::2]), items[1::2], strict=True))


def _settled(root: object, size: int) -> object:
    """The finished data: arrays in the place of their stand-ins, depth and repetition bounded."""
    limit = MAX_REPEATS * size + 65_536
    done: dict[int, tuple[object, int]] = {}

    def settle(value: object, depth: int) -> tuple[object, int]:
        if isinstance(value, (*KEYS, bytearray)):
            return value, 1
        if id(value) in done:
            return done[id(value)]
        if depth > MAX_DEPTH:
            raise DataError(f"containers lie more than {MAX_DEPTH} deep, or inside themselves")
        plain = value.content if isinstance(value, PickledArray) else value
        result: object = plain
        if isinstance(plain, list | tuple):
            parts = [settle(item, depth + 1) for item in plain]
            weight = 1 + sum(part[1] for part in parts)
            result = type(plain)(part[0] for part in parts)
        elif isinstance(plain, dict):
            entries = {key: settle(item, depth + 1) for key, item in plain.items()}
            weight = 1 + sum(1 + part[1] for part in entries.values())
            result = {key: part[0] for key, part in entries.items()}
        elif isinstance(plain, np.ndarray):
            weight = 1 + plain.nbytes
        elif isinstance(plain, set):
            weight = 1 + len(plain)
        else:
            raise DataError("expected plain data, got an unfinished array or a bare name of NumPy's")
        if weight > limit:
            raise DataError(
                "a few bytes are repeated by reference into more than such a file can hold: refused"
            )
        done[id(value)] = (result, weight)
        return result, weight

    return settle(root, 0)[0]


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
            f"expected containers, strings, numbers and NumPy arrays, the pickle asks for {shown!r}: "
            "refused before anything in it was run; save the data as NumPy arrays"
        )
    return PickledName(kind)


def build(callee: object, arguments: object, limit: int) -> object:
    """What one of the known names makes of its arguments, in a file of ``limit`` bytes.

    Raises:
        UnsafeFileError: for any other callee, or unusual arguments.
    """
    if not isinstance(callee, PickledName) or not isinstance(arguments, tuple):
        raise UnsafeFileError("expected plain data, got a call of something else: refused")
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
    return UnsafeFileError(
        f"expected plain data, got {kind} with unusual arguments in the pickle: refused, nothing was run"
    )


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
                raise DataError("a damaged pickle: a list in the place of an array's bytes")
            if checked_shape(shape, limit) != (len(items),):
                raise DataError("expected an array of objects with one axis: save it as numbers or strings")
            target.content = items
        case PickledArray(content=None), (1, shape, PickledDtype() as dtype, bool() as fortran, content) if (
            isinstance(content, bytes | bytearray | str)
        ):
            target.content = dtype.array(shape, content, limit, fortran)
        case _:
            raise UnsafeFileError("expected plain data, got an object with a state of its own: refused")


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
