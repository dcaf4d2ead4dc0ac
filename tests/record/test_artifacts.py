"""Arrays by reference, and small copies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from omg_graph.errors import OmgError
from omg_graph.record.artifacts import (
    PREVIEW,
    ArrayRef,
    ArtifactStore,
    DiskArtifactStore,
    MemoryArtifactStore,
    block_sizes,
    content_hash,
    describe,
    spaced,
    thumbnail,
)

arrays = hnp.arrays(
    st.sampled_from([np.float32, np.float64, np.int64, np.bool_, np.dtype("<U3"), np.dtype(">f4")]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
Build = Callable[[], ArtifactStore]


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ArtifactStore:
    if request.param == "memory":
        return MemoryArtifactStore()
    return DiskArtifactStore(tmp_path_factory.mktemp("store"))


@given(array=arrays)
def test_a_reference_says_what_the_array_is(array: np.ndarray) -> None:
    ref = describe(array, "somewhere")
    assert (ref.shape, ref.dtype) == (array.shape, str(array.dtype))
    assert ref == ArrayRef.model_validate_json(ref.model_dump_json())
    assert ref.sha256 == content_hash(np.array(array, order="F"))
    assert len(ref.preview) <= PREVIEW


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.arange(6).reshape(2, 3).T,
        np.array(3.5),
        np.zeros((0, 4)),
        np.array(["a", "bc"]),
        np.array([np.nan, np.inf, 1.0]),
    ],
)
def test_what_was_put_comes_back(store: ArtifactStore, array: np.ndarray) -> None:
    ref = store.put(array)
    back = store.get(ref)
    np.testing.assert_array_equal(back, array)
    assert (back.shape, back.dtype) == (array.shape, array.dtype)
    assert store.put(array.copy()) == ref


def test_what_was_put_can_t_be_changed_from_outside(store: ArtifactStore) -> None:
    array = np.zeros(3)
    ref = store.put(array)
    array[:] = 1.0
    assert store.get(ref).tolist() == [0.0, 0.0, 0.0]


def test_statistics_leave_out_what_isn_t_finite() -> None:
    ref = describe(np.array([1.0, np.nan, 3.0, np.inf]), "")
    assert ref.statistics is not None
    assert ref.statistics.model_dump() == {"minimum": 1.0, "maximum": 3.0, "mean": 2.0, "deviation": 1.0}
    assert ref.preview == (1.0, 3.0)
    assert describe(np.full(2, np.nan), "").statistics is None


def test_statistics_of_huge_numbers_are_finite() -> None:
    huge = np.array([1e308, -1e308])
    ref = describe(huge, "")
    assert ref.statistics is not None
    assert (ref.statistics.mean, ref.statistics.deviation) == (0.0, 1e308)
    assert ArrayRef.model_validate_json(ref.model_dump_json()) == ref


def test_shape_and_type_belong_to_the_content() -> None:
    zeros = np.zeros(4, np.float32)
    hashes = {content_hash(each) for each in (zeros, zeros.reshape(2, 2), zeros.astype(np.int32), zeros[:3])}
    assert len(hashes) == 4


def test_arrays_of_objects_are_refused(store: ArtifactStore) -> None:
    with pytest.raises(TypeError, match="numbers or strings, got dtype object"):
        store.put(np.array([{}, None], dtype=object))


def test_memory_is_bounded_and_forgets_the_longest_unused() -> None:
    store = MemoryArtifactStore(max_bytes=3 * 80)
    refs = [store.put(np.full(10, float(number))) for number in range(3)]
    store.get(refs[0])
    store.put(np.full(10, 9.0))
    assert store.get(refs[0])[0] == 0.0
    assert store.get(refs[2])[0] == 2.0
    with pytest.raises(OmgError, match=r"no longer in memory: .*larger or a disk-backed artifact store"):
        store.get(refs[1])
    # one array beyond the bound is kept all the same: it was asked for just now
    large = store.put(np.zeros(100))
    assert len(store.get(large)) == 100


def test_arrays_on_disk_outlive_the_store(tmp_path: Path) -> None:
    ref = DiskArtifactStore(tmp_path / "a").put(np.arange(5))
    assert ref.uri == f"a/{ref.sha256}.npy"
    assert DiskArtifactStore(tmp_path / "a").get(ref).tolist() == [0, 1, 2, 3, 4]
    assert [path.suffix for path in (tmp_path / "a").iterdir()] == [".npy"]


@pytest.mark.parametrize("damage", ["other", "cut", "empty", "pickle"])
def test_content_that_was_tampered_with_is_refused(tmp_path: Path, damage: str) -> None:
    store = DiskArtifactStore(tmp_path)
    ref = store.put(np.arange(5))
    (path,) = tmp_path.iterdir()
    if damage == "other":
        np.save(path, np.arange(6))
    elif damage == "pickle":
        np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "cut" else b"")
    with pytest.raises(OmgError, match="doesn't hold the array it is named for"):
        store.get(ref)


def test_a_reference_s_path_is_never_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.npy"
    np.save(outside, np.arange(3))
    store = DiskArtifactStore(tmp_path / "inside")
    forged = describe(np.arange(3), outside.as_uri())
    for ref in (forged, forged.model_copy(update={"sha256": "../outside"})):
        with pytest.raises(OmgError, match="isn't in"):
            store.get(ref)


def test_old_arrays_are_pruned_and_those_that_a_run_made_again_stay(tmp_path: Path) -> None:
    store = DiskArtifactStore(tmp_path)
    old, again, new = (store.put(np.full(3, value)) for value in (1.0, 2.0, 3.0))
    stranger = tmp_path / "notes.npy"
    stranger.write_bytes(b"no array of the store's")
    for name in (old.sha256, again.sha256, "notes"):
        os.utime(tmp_path / f"{name}.npy", (0, 0))
    store.put(np.full(3, 2.0))
    count, size = store.prune(days=30)
    assert (count, size > 0) == (1, True)
    assert store.path(old.sha256) is None
    assert stranger.exists()
    for ref, value in ((again, 2.0), (new, 3.0)):
        assert (store.get(ref) == value).all()
    assert store.put(np.full(3, 1.0)).sha256 == old.sha256
    assert store.path(old.sha256) is not None


@pytest.mark.parametrize(
    ("shape", "cells"), [((10,), 3), ((50, 74), 1024), ((3, 100, 80), 600), ((1, 1), 1), ((7, 1000), 64)]
)
def test_a_small_copy_has_no_more_cells_than_asked_for(shape: tuple[int, ...], cells: int) -> None:
    small = thumbnail(np.zeros(shape), block_sizes(shape, cells))
    assert small.size <= cells
    assert small.ndim == len(shape)


def test_what_fits_is_left_as_it_is() -> None:
    array = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    np.testing.assert_array_equal(thumbnail(array, block_sizes((4, 6), 24)), array)


def test_channels_never_give_way() -> None:
    assert block_sizes((3, 10, 10), 3) == (1, 10, 10)


def test_each_cell_is_the_mean_of_its_block() -> None:
    np.testing.assert_allclose(thumbnail(np.arange(5.0), (2,)), [0.5, 2.5, 4.0])
    leading = thumbnail(np.arange(12.0).reshape(2, 2, 3), (2, 2))
    np.testing.assert_allclose(leading, [[[2.0, 3.5]], [[8.0, 9.5]]])


def test_spaced_takes_both_ends() -> None:
    assert spaced(3, 12) == [0, 1, 2]
    assert spaced(20, 5) == [0, 5, 10, 14, 19]
    assert len(spaced(1000, 12)) == 12
