from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omg_graph.errors import DataError
from omg_graph.retriever.keys import PLAN_VIEW, build_keys, side_by_side


def test_views_lie_one_after_the_other() -> None:
    views = side_by_side({"a": 2, "b": 3})
    assert [(view.name, view.columns) for view in views] == [("a", slice(0, 2)), ("b", slice(2, 5))]


def test_inner_product_is_the_sum_of_cosines_over_observed_views() -> None:
    vectors = {"a": np.array([[3.0, 4.0], [4.0, 3.0]]), "b": np.array([[1.0, 0.0], [5.0, 5.0]])}
    keys, has_view = build_keys(vectors, {"a": np.array([True, True]), "b": np.array([True, False])})
    np.testing.assert_allclose(keys, [[0.6, 0.8, 1, 0], [0.8, 0.6, 0, 0]], rtol=1e-6)
    assert has_view.tolist() == [[True, True], [True, False]]
    assert keys[0] @ keys[1] == pytest.approx(0.96)


@given(scale=st.floats(1e-6, 1e6), row=st.integers(0, 4))
def test_scale_and_company_do_not_matter(scale: float, row: int) -> None:
    vectors = np.random.default_rng(3).normal(size=(5, 7))
    together, _ = build_keys({"a": vectors}, {"a": np.ones(5, np.bool_)})
    alone, _ = build_keys({"a": scale * vectors[row : row + 1]}, {"a": np.ones(1, np.bool_)})
    np.testing.assert_allclose(alone[0], together[row], atol=1e-6)
    assert np.linalg.norm(alone) == pytest.approx(1.0, abs=1e-6)


def test_zeros_stay_zero_and_count_as_observed() -> None:
    keys, has_view = build_keys({"a": np.zeros((1, 3))}, {"a": np.array([True])})
    assert not keys.any()
    assert has_view.all()


def test_what_a_missing_view_holds_is_ignored() -> None:
    vectors = np.array([[1.0, 0.0], [np.nan, 2.0]])
    keys, _ = build_keys({"a": vectors}, {"a": np.array([True, False])})
    assert keys.tolist() == [[1, 0], [0, 0]]
    with pytest.raises(DataError, match="view a: expected finite vectors, row 1 isn't"):
        build_keys({"a": vectors}, {"a": np.array([True, True])})


@pytest.mark.parametrize(
    "vectors", [{}, {"a": np.ones((2, 1, 3))}, {"a": np.ones((2, 3)), "b": np.ones((3, 3))}]
)
def test_shapes_that_do_not_agree_are_refused(vectors: dict[str, np.ndarray]) -> None:
    with pytest.raises(DataError, match="expected"):
        build_keys(vectors, {name: np.ones(2, np.bool_) for name in vectors})


def test_plans_are_a_view_of_their_own() -> None:
    vectors = {"a": np.array([[3.0, 4.0], [1.0, 0.0]]), PLAN_VIEW: np.array([[0.0, 2.0], [0.0, 0.0]])}
    keys, has_view = build_keys(vectors, {"a": np.array([True, False]), PLAN_VIEW: np.array([True, False])})
    np.testing.assert_allclose(keys, [[0.6, 0.8, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert has_view.tolist() == [[True, True], [False, False]]
