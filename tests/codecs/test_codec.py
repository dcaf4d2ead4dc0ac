from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omg_graph.codecs.autoencoder import AutoencoderKind, AutoencoderSettings
from omg_graph.codecs.codec import CLIP, Codec, Rows, codec_class
from omg_graph.data.dataset import ModalityKind, ModalitySpec
from omg_graph.errors import ConfigError
from omg_graph.seeding import derived_seed, generator

PCA = AutoencoderSettings(variance=1.0)
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


def fitted(spec: ModalitySpec, rows: Rows) -> Codec:
    return codec_class(spec.kind).fit(spec, rows, [str(row) for row in range(len(rows))], PCA, 0)


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 20))
def test_inverting_gives_the_input_back(kind: ModalityKind, shape: tuple[int, ...], seed: int) -> None:
    spec, array = made(kind, shape, seed)
    codec = fitted(spec, Rows(array))
    standard = codec.inputs(Rows(array))
    assert standard.shape == (30, spec.size)
    assert standard.dtype == np.float32
    np.testing.assert_allclose(codec.restore(standard), array, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
def test_training_rows_have_mean_zero_and_deviation_one(kind: ModalityKind, shape: tuple[int, ...]) -> None:
    spec, array = made(kind, shape)
    observed = np.arange(30) % 3 != 0
    standard = fitted(spec, Rows(array[observed])).inputs(Rows(array[observed]))
    per_feature = standard.reshape(-1, shape[-1]) if kind == "sequence" else standard
    np.testing.assert_allclose(per_feature.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(per_feature.std(0), 1, atol=1e-4)


def test_padded_frames_are_zero_and_count_for_nothing() -> None:
    spec, array = made("sequence", (5, 3))
    lengths = np.arange(30) % 5 + 1
    inside = np.arange(5)[None] < lengths[:, None]
    clean, spoiled = Rows(array, lengths), Rows(np.where(inside[..., None], array, np.float32(1e4)), lengths)
    first, second = fitted(spec, clean), fitted(spec, spoiled)
    assert np.array_equal(first.mean, second.mean)
    standard = second.inputs(spoiled).reshape(30, 5, 3)
    assert not standard[~inside].any()
    assert np.array_equal(standard, first.inputs(clean).reshape(30, 5, 3))
    assert np.array_equal(second.scored(spoiled).reshape(30, 5, 3).all(-1), inside)


def test_constant_features_are_flagged_and_left_in_their_units() -> None:
    spec, array = made("vector", (4,))
    array[:, 1] = 0.1
    array[:, 2] = 0.0
    codec = fitted(spec, Rows(array))
    assert codec.deviation[[1, 2]].tolist() == [1.0, 1.0]
    assert codec.scored(Rows(array[:2])).tolist() == [[True, False, False, True]] * 2
    assert not codec.inputs(Rows(array))[:, 1:3].any()
    np.testing.assert_allclose(codec.restore(np.zeros((1, 4), np.float32))[0, 1], 0.1)


@pytest.mark.parametrize("unit", [1e-15, 1e-6, 1e6])
def test_units_don_t_make_a_feature_constant(unit: float) -> None:
    """Tesla, volts or counts: what varies does so in any unit."""
    spec, array = made("vector", (4,))
    scaled = Rows((array * unit).astype(np.float32))
    codec = fitted(spec, scaled)
    assert codec.scored(scaled).all()
    expected = fitted(spec, Rows(array)).inputs(Rows(array))
    np.testing.assert_allclose(codec.inputs(scaled), expected, atol=1e-3)


def test_what_models_see_is_limited() -> None:
    spec, array = made("vector", (4,))
    codec = fitted(spec, Rows(array))
    far = (codec.mean + 1e4 * codec.deviation)[None]
    assert codec.inputs(Rows(far)).tolist() == [[CLIP] * 4]
    assert codec.inputs(Rows(-far)).min() == -CLIP
    np.testing.assert_allclose(codec.standard(Rows(far)), 1e4, rtol=1e-3)


@pytest.mark.parametrize(("kind", "shape"), SHAPES)
@pytest.mark.parametrize("autoencoder", ["pca", "vae"])
def test_a_loaded_codec_is_the_saved_one(
    kind: ModalityKind, shape: tuple[int, ...], autoencoder: AutoencoderKind
) -> None:
    spec, array = made(kind, shape)
    sizes, groups = AutoencoderSettings(kind=autoencoder, epochs=2), [str(row) for row in range(30)]
    codec = codec_class(kind).fit(spec, Rows(array), groups, sizes, 0)
    loaded = codec_class(kind).load(spec, codec.state(), [])
    standard = torch.from_numpy(loaded.inputs(Rows(array)))
    assert torch.equal(codec.network.encode(standard), loaded.network.encode(standard))
    assert (loaded.width, loaded.scale, loaded.spec) == (codec.width, codec.scale, spec)


def test_a_kind_that_no_package_registers_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected one of image, sequence, sound, vector, got 'smell'"):
        codec_class("smell")


@pytest.mark.parametrize(
    ("kind", "shape", "size"),
    [
        ("vector", (5,), 5),
        ("sequence", (1, 5), 5),
        ("sequence", (2, 5), 2 * 3 * 5),
        ("sequence", (50, 5), 4 * 3 * 5),
        ("image", (28, 28), 16 * 16),
        ("image", (3, 8, 20), 3 * 8 * 16),
    ],
)
def test_low_level_features_of_each_kind(kind: ModalityKind, shape: tuple[int, ...], size: int) -> None:
    """Phi of Eq. 14 has no parameters, a fixed width, and a finite gradient everywhere."""
    spec = ModalitySpec(name="x", kind=kind, shape=shape)
    for x in (torch.randn(3, spec.size, generator=generator("phi")), torch.zeros(3, spec.size)):
        x.requires_grad_()
        features = codec_class(spec.kind).low_level(spec, x)
        assert features.shape == (3, size)
        features.sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()


def test_a_sequence_s_windows_are_described_by_mean_deviation_and_change() -> None:
    spec = ModalitySpec(name="x", kind="sequence", shape=(8, 1))
    x = torch.tensor([[1.0, 3.0, 5.0, 5.0, 0.0, 0.0, -1.0, 1.0]])
    means, deviations, changes = codec_class(spec.kind).low_level(spec, x).reshape(4, 3).T
    assert torch.allclose(means, torch.tensor([2.0, 5.0, 0.0, 0.0]))
    assert torch.allclose(deviations, torch.tensor([1.0, 0.0, 0.0, 1.0]), atol=2e-3)
    assert torch.allclose(changes, torch.tensor([2.0, 0.0, 0.0, 2.0]))
