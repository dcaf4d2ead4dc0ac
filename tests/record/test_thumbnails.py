"""Small copies of arrays."""

from __future__ import annotations

import numpy as np
import pytest

from omg_graph.record.thumbnails import block_sizes, spaced, thumbnail


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
