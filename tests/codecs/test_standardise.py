from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omg_graph.codecs.standardise import CLIP, Standardiser, frame_mask
from omg_graph.data.dataset import ModalityKind, ModalitySpec
from omg_graph.seeding import derived_seed

SHAPES: list[tuple[ModalityKind, tuple[int, ...]]] = [
    ("vector", (4,)),
    ("sequence", (5, 3)),
    ("image", (3, 4)),
    ("image", (2, 3, 4)),
]


def made(kind: ModalityKind, shape: tuple[int, ...], seed: int = 0) -> tuple[ModalitySpec, np.ndarray]:
    random = np.random.default_rng(derived_seed("standardise", seed))
    array = random.normal(7.0, 3.0, (30, *shape)).astype(np.float32)
    return ModalitySpec(name="x", kind=kind, shape=shape), array


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
@given(seed=st.integers(0, 20))
def test_inverting_gives_the_input_back(kind: ModalityKind, shape: tuple[int, ...], seed: int) -> None:
    spec, array = made(kind, shape, seed)
    standardiser = Standardiser.fit(spec, array, np.ones(30, dtype=np.bool_))
    standard = standardiser.apply(array)
    assert standard.shape == (30, spec.size)
    assert standard.dtype == np.float32
    np.testing.assert_allclose(standardiser.invert(standard), array, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_training_rows_have_mean_zero_and_deviation_one(kind: ModalityKind, shape: tuple[int, ...]) -> None:
    spec, array = made(kind, shape)
    observed = np.arange(30) % 3 != 0
    array[~observed] = 1e6  # what stands in a missing row counts for nothing
    standard = Standardiser.fit(spec, array, observed).apply(array)[observed]
    per_feature = standard.reshape(-1, shape[-1]) if kind == "sequence" else standard
    np.testing.assert_allclose(per_feature.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(per_feature.std(0), 1, atol=1e-4)


def test_padded_frames_are_zero_and_count_for_nothing() -> None:
    spec, array = made("sequence", (5, 3))
    lengths = np.arange(30) % 5 + 1
    inside = frame_mask(spec, 30, lengths)
    assert np.array_equal(inside.sum(1), lengths)
    spoiled = np.where(inside[..., None], array, np.float32(1e4))
    everywhere = np.ones(30, dtype=np.bool_)
    first = Standardiser.fit(spec, array, everywhere, lengths)
    second = Standardiser.fit(spec, spoiled, everywhere, lengths)
    assert np.array_equal(first.mean, second.mean)
    standard = second.apply(spoiled, lengths).reshape(30, 5, 3)
    assert not standard[~inside].any()
    assert np.array_equal(standard, first.apply(array, lengths).reshape(30, 5, 3))
    assert np.array_equal(second.scored(30, lengths).reshape(30, 5, 3).all(-1), inside)


def test_constant_features_are_flagged_and_left_in_their_units() -> None:
    spec, array = made("vector", (4,))
    array[:, 1] = 0.1
    array[:, 2] = 0.0
    standardiser = Standardiser.fit(spec, array, np.ones(30, dtype=np.bool_))
    assert standardiser.varies.tolist() == [True, False, False, True]
    assert standardiser.deviation[[1, 2]].tolist() == [1.0, 1.0]
    assert standardiser.scored(2).tolist() == [[True, False, False, True]] * 2
    assert not standardiser.apply(array)[:, 1:3].any()
    np.testing.assert_allclose(standardiser.invert(np.zeros((1, 4), np.float32))[0, 1], 0.1)


@pytest.mark.parametrize("unit", [1e-15, 1e-6, 1e6])
def test_units_don_t_make_a_feature_constant(unit: float) -> None:
    """Tesla, volts or counts: what varies does so in any unit."""
    spec, array = made("vector", (4,))
    everywhere = np.ones(30, dtype=np.bool_)
    scaled = (array * unit).astype(np.float32)
    standardiser = Standardiser.fit(spec, scaled, everywhere)
    assert standardiser.varies.all()
    expected = Standardiser.fit(spec, array, everywhere).apply(array)
    np.testing.assert_allclose(standardiser.apply(scaled), expected, atol=1e-3)


def test_what_models_see_is_limited() -> None:
    spec, array = made("vector", (4,))
    standardiser = Standardiser.fit(spec, array, np.ones(30, dtype=np.bool_))
    far = standardiser.mean + 1e4 * standardiser.deviation
    assert standardiser.apply(far[None]).tolist() == [[CLIP] * 4]
    assert standardiser.apply(-far[None]).min() == -CLIP
    np.testing.assert_allclose(standardiser.standard(far[None]), 1e4, rtol=1e-3)
