"""Arrays of numbers and strings come back equal; objects and sizes that can't be are refused."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_graph.data.arrays import read_npz
from omg_graph.errors import DataError, UnsafeFileError


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_equal(tmp_path: Path, save: object) -> None:
    path = tmp_path / "a.npz"
    arrays = {
        "train/text": np.arange(6.0).reshape(2, 3),
        "id": np.array(["né", "b"]),
        "scalar": np.array(3),
        "mask": np.array([True, False]),
        "columns": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "empty": np.zeros((0, 4), np.float32),
    }
    save(path, **arrays)  # type: ignore[operator]
    result = read_npz(path)
    assert list(result) == list(arrays)
    for name, array in arrays.items():
        assert result[name].dtype == array.dtype
        np.testing.assert_array_equal(result[name], array)


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, {}], dtype=object),
        np.array([(1, 2)], dtype="i4,i4"),
        np.array(["2020"], dtype="M8[Y]"),
    ],
)
def test_objects_and_records_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, x=array)
    with pytest.raises(UnsafeFileError, match="x"):
        read_npz(path)


def member(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode("latin-1") + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + data


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 0), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': __import__('os').getcwd(), }",
        "{'descr': '<f8', 'fortran_order': False}",
        "{'descr': '<f8', 'descr': '<f4', 'shape': (1,)}",
        "nonsense",
    ],
)
def test_headers_that_lie_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError):
        read_npz(archive(tmp_path / "a.npz", x=member(header, b"\0" * 8)))


def test_the_order_of_a_header_is_free(tmp_path: Path) -> None:
    header = "{'shape': (1,), 'descr': '<f8', 'fortran_order': False}"
    assert read_npz(archive(tmp_path / "a.npz", x=member(header, b"\0" * 8)))["x"].tolist() == [0.0]


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    size = 80 * 2**20
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}"
    path = archive(tmp_path / "a.npz", x=member(header, bytes(size)))
    assert path.stat().st_size < 200_000
    with pytest.raises(DataError, match="declares"):
        read_npz(path)


def test_a_zip_of_other_things_is_no_npz(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"x")
    with pytest.raises(DataError, match=r"archive/data\.pkl"):
        read_npz(path)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3), st.integers(0, 3)), max_size=4
    )
)
def test_damage_is_always_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[float, bytes, int]]
) -> None:
    memory = io.BytesIO()
    np.savez_compressed(memory, text=np.arange(6.0).reshape(2, 3), id=np.array(["a", "b"]))
    content = bytearray(memory.getvalue())
    for place, inserted, removed in edits:
        start = int(place * len(content))
        content[start : start + removed] = inserted
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content)
    caught = ""
    try:
        read_npz(path)
    except DataError as error:
        caught = str(error)
    assert "\n" not in caught
