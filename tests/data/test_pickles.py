"""Pickles of plain data come back equal; everything else is refused before it does anything."""

from __future__ import annotations

import datetime
import io
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_graph.data.pickles import load_plain, read_pickle
from omg_graph.errors import DataError, UnsafeFileError

PROTOCOLS = [2, 3, 4, 5]


def load(content: bytes) -> object:
    return load_plain(io.BytesIO(content), len(content))


def same(left: object, right: object) -> bool:
    if isinstance(right, np.ndarray):
        return (
            isinstance(left, np.ndarray)
            and left.dtype == right.dtype
            and left.shape == right.shape
            and left.tobytes() == right.tobytes()
        )
    if isinstance(right, dict):
        return (
            isinstance(left, dict)
            and list(left) == list(right)
            and all(same(left[k], right[k]) for k in right)
        )
    if isinstance(right, list | tuple):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


atoms = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(), st.binary()
)
arrays = st.builds(
    lambda code, shape: np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(code),
    st.sampled_from(["<f4", "<f8", ">f4", "<i8", "|u1", "|b1", "<U3", "|S2", ">i2", "<f2"]),
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
)
plain = st.recursive(
    atoms | arrays,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=4), inner, max_size=4),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(plain, st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back_equal(data: object, protocol: int) -> None:
    assert same(load(pickle.dumps(data, protocol)), data)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (np.float32(1.5), 1.5),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.str_("né"), "né"),
        (np.array(["a", None, 2], dtype=object), ["a", None, 2]),
        ({1, 2}, {1, 2}),
        (frozenset((3,)), {3}),
    ],
)
def test_scalars_and_objects_become_pythons_own(protocol: int, data: object, expected: object) -> None:
    result = load(pickle.dumps(data, protocol))
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_order_of_memory_is_kept(protocol: int) -> None:
    for array in (np.asfortranarray(np.eye(3)[:2]), np.arange(24.0).reshape(2, 3, 4).transpose(0, 2, 1)):
        np.testing.assert_array_equal(load(pickle.dumps(array, protocol)), array)


@pytest.mark.parametrize("protocol", [2, 3])
def test_numpy_1_and_2_name_their_modules_differently(protocol: int) -> None:
    # The names differ in length, so only protocols 2 and 3, which write them as lines, can be edited.
    content = pickle.dumps([np.arange(3.0), np.float64(2)], protocol)
    old = content.replace(b"numpy._core.", b"numpy.core.")
    assert old != content
    assert same(load(old), load(content))


def test_an_array_that_is_shared_stays_usable_in_both_places() -> None:
    array = np.arange(5.0)
    result = load(pickle.dumps({"a": array, "b": [array, array]}))
    assert isinstance(result, dict)
    np.testing.assert_array_equal(result["b"][1], array)


class Bomb:
    """Would write a file if it were ever loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "run"
    file = tmp_path / "evil.pkl"
    file.write_bytes(pickle.dumps({"train": {"text": np.zeros((2, 3)), "more": Bomb(mark)}}, protocol))
    with pytest.raises(UnsafeFileError, match=r"posix\.system"):
        read_pickle(file)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (eval, r"builtins\.eval"),
        (OrderedDict(a=1), r"collections\.OrderedDict"),
        (datetime.date(2020, 1, 1), r"datetime\.date"),
        (Path("x"), r"pathlib"),
        (np.ma.masked_array([1.0]), r"numpy\.ma"),
        (np.random.default_rng(0), r"numpy\.random"),
    ],
)
def test_anything_else_is_refused_by_name(data: object, name: str) -> None:
    for protocol in PROTOCOLS:
        with pytest.raises(UnsafeFileError, match=name.replace("builtins", "(builtins|__builtin__)")):
            load(pickle.dumps(data, protocol))


@pytest.mark.parametrize(
    "array",
    [
        np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.array([1j]),
        np.array([[None, 1], [2, 3]], dtype=object),
        np.array([object], dtype=object),
    ],
)
def test_arrays_of_anything_else_are_refused(array: np.ndarray) -> None:
    for protocol in PROTOCOLS:
        with pytest.raises(DataError):
            load(pickle.dumps(array, protocol))


def pickled_array(shape: tuple[object, ...], code: str, raw: object) -> bytes:
    """The pickle of an array that declares whatever it is told to."""
    from numpy._core.multiarray import _reconstruct

    class Told:
        def __reduce__(self) -> tuple[object, ...]:
            return _reconstruct, (np.ndarray, (0,), b"b"), (1, shape, np.dtype(code), False, raw)

    return pickle.dumps(Told(), 4)


@pytest.mark.parametrize(
    ("shape", "code", "raw"),
    [
        ((10**12,), "f8", b"\0" * 8),
        ((10**12, 0), "f4", b""),
        ((2**32, 2**32), "f4", b""),
        ((-1,), "f4", b""),
        ((1.5,), "f4", b"\0" * 4),
        (((1,),), "f4", b"\0" * 4),
        ((2,), "f4", b"\0" * 9),
        ((1,), "O", b"\0" * 8),
        ((1,), "f8", [1.0]),
        ((3,), "O", [1]),
        ((1,) * 40, "f4", b"\0" * 4),
        ((1,), f"U{10**8}", b"\0" * 4),
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(
    shape: tuple[object, ...], code: str, raw: object
) -> None:
    with pytest.raises(DataError):
        load(pickled_array(shape, code, raw))


def test_a_length_beyond_the_file_is_an_error_and_no_allocation() -> None:
    for opcode in (b"\x8e", b"\x96", b"\x8d"):  # BINBYTES8, BYTEARRAY8, BINUNICODE8
        with pytest.raises(DataError):
            load(b"\x80\x05" + opcode + (2**40).to_bytes(8, "little") + b"x.")


def test_a_far_memo_key_costs_nothing() -> None:
    assert load(b"\x80\x02Nr\xff\xff\xff\xff.") is None


def test_repetition_by_reference_is_bounded() -> None:
    layer: list[object] = ["ha"] * 8
    for _ in range(25):
        layer = [layer, layer, layer, layer]
    with pytest.raises(DataError, match="repeated by reference"):
        load(pickle.dumps(layer))


def test_one_array_can_not_be_repeated_into_the_whole_memory() -> None:
    with pytest.raises(DataError, match="repeated by reference"):
        load(pickle.dumps([np.zeros(20_000)] * 1000))


def test_a_list_inside_itself_is_refused() -> None:
    knot: list[object] = []
    knot.append(knot)
    with pytest.raises(DataError, match="inside themselves"):
        load(pickle.dumps(knot))


@pytest.mark.parametrize("opening", [b"]", b"(", b"}"])
def test_depth_is_bounded(opening: bytes) -> None:
    depth = 200_000
    body = {b"]": b"]" * depth + b"a" * (depth - 1), b"(": b"(" * depth + b"t" * depth}.get(
        opening, b"}" + b"K\x00}" * depth + b"s" * depth
    )
    with pytest.raises(DataError, match="deep"):
        load(b"\x80\x02" + body + b".")


def test_a_deep_tuple_is_no_key() -> None:
    with pytest.raises(DataError, match="key"):
        load(b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.")


def test_a_number_of_a_million_digits_is_refused() -> None:
    with pytest.raises(DataError):
        load(pickle.dumps(1 << 4_000_000))


@pytest.mark.parametrize(
    "content", [b"", b".", b"\x80\x04.", b"\x80\x04N", b"\x80\x04)\x86.", b"\x80\x04cposix\n"]
)
def test_what_is_cut_short_is_damaged(content: bytes) -> None:
    with pytest.raises(DataError):
        load(content)


SAMPLE = {
    "train": {
        "id": ["a$_$1", "b$_$2"],
        "raw_text": np.array(["hello", "you"]),
        "text": np.arange(6, dtype=np.float32).reshape(2, 3),
        "names": np.array(["x", None], dtype=object),
        "label": [np.float32(1), None],
        "set": {1, "a"},
    }
}


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(PROTOCOLS),
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 3)), max_size=4
    ),
)
def test_damage_is_always_a_data_error(protocol: int, edits: list[tuple[float, bytes, int]]) -> None:
    content = bytearray(pickle.dumps(SAMPLE, protocol))
    for place, inserted, removed in edits:
        start = int(place * len(content))
        content[start : start + removed] = inserted
    caught = ""
    try:
        load(bytes(content))
    except DataError as error:
        caught = str(error)
    assert "\n" not in caught


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_noise_is_always_a_data_error(noise: bytes) -> None:
    caught = "what was loaded"
    try:
        load(b"\x80\x04" + noise + b".")
    except DataError as error:
        caught = str(error)
    assert caught
