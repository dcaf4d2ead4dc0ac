"""A path seen from its two principal directions."""

from __future__ import annotations

import numpy as np
import pytest

from omg_graph.report.directions import principal_directions


def test_a_path_in_a_plane_keeps_its_distances() -> None:
    random = np.random.default_rng(0)
    flat = random.standard_normal((7, 2))
    turned, _ = np.linalg.qr(random.standard_normal((5, 5)))
    (seen,), shares = principal_directions(flat @ turned[:2])
    distances = [np.linalg.norm(each[:, None] - each[None], axis=-1) for each in (seen, flat)]
    np.testing.assert_allclose(*distances, atol=1e-12)
    assert sum(shares) == pytest.approx(1.0)


def test_it_points_to_where_the_first_path_ends_whatever_its_sign() -> None:
    path = np.cumsum(np.random.default_rng(1).standard_normal((6, 4)), axis=0)
    (seen,), _ = principal_directions(path)
    (mirrored,), _ = principal_directions(-path)
    np.testing.assert_allclose(seen, mirrored, atol=1e-12)
    assert (seen[-1] >= 0).all()


def test_several_paths_share_their_directions() -> None:
    one, other = np.array([[0.0, 0], [2, 0]]), np.array([[0.0, 1], [2, 1]])
    (first, second), _ = principal_directions(one, other)
    np.testing.assert_allclose(first[1] - first[0], second[1] - second[0])
    np.testing.assert_allclose(np.linalg.norm(first - second, axis=1), 1.0)


def test_one_dimension_and_no_movement_are_no_error() -> None:
    (line,), shares = principal_directions(np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(line, [[-0.5, 0], [0.5, 0]])
    assert shares == (1.0, 0.0)
    (still,), shares = principal_directions(np.zeros((3, 2)))
    assert not still.any()
    assert shares == (0.0, 0.0)
