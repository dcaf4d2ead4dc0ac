from __future__ import annotations

import numpy as np
import torch

from omg_graph.codecs.autoencoder import AutoencoderSettings
from omg_graph.codecs.codec import Rows
from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import ModalitySpec, Split


def made() -> tuple[LatentSpace, Split]:
    random = np.random.default_rng(5)
    specs = (
        ModalitySpec(name="items", kind="vector", shape=(4,)),
        ModalitySpec(name="a.b", kind="sequence", shape=(3, 2)),
    )
    arrays = {spec.name: random.normal(3, 2, (20, *spec.shape)).astype(np.float32) for spec in specs}
    observed = {"items": np.arange(20) % 4 != 0, "a.b": np.arange(20) % 4 != 1}
    for name, array in arrays.items():
        array[~observed[name]] = 1e6  # what stands in a missing row counts for nothing
    ids = tuple(f"r{row}" for row in range(20))
    split = Split("train", ids, ids, specs, arrays, observed)
    return LatentSpace.fit(split, AutoencoderSettings(variance=1.0), 0), split


def test_latents_of_what_is_missing_are_zero_and_the_rest_comes_back() -> None:
    """D(E(Y)) = Y when no variance is left out; units and shapes are the input's."""
    space, split = made()
    for name, latents in space.encode(split).items():
        seen = split.observed[name]
        assert latents.shape == (20, space.widths[name])
        assert not latents[torch.from_numpy(~seen)].any()
        decoded = space.decode(name, latents)
        assert decoded.shape == split.arrays[name].shape
        np.testing.assert_allclose(decoded[seen], split.arrays[name][seen], atol=1e-3)
        # no latent stands for the training mean
        mean = np.broadcast_to(space.codecs[name].mean, decoded[~seen].shape)
        np.testing.assert_allclose(decoded[~seen], mean, atol=1e-5)


def test_a_space_knows_its_modalities_in_order() -> None:
    space, split = made()
    assert space.names == tuple(space) == tuple(space.widths) == tuple(space.scales) == split.names
    assert space.specs == split.modalities


def test_decoded_standard_rows_are_those_of_the_decoded_samples() -> None:
    """Metrics compare these: the same numbers, zero past a sequence's length."""
    space, split = made()
    for name, latents in space.encode(split).items():
        codec, lengths = space.codecs[name], split.lengths.get(name)
        again = codec.standard(Rows(space.decode(name, latents), lengths))
        np.testing.assert_allclose(space.standard(name, latents, lengths), again, atol=1e-4)
        assert again.shape == (len(split), codec.standard_size(codec.spec))


def test_vectors_are_one_token_and_their_estimate_is_the_mean() -> None:
    space, _ = made()
    assert set(space.tokens.values()) == {1}
    assert {codec.estimate for codec in space.codecs.values()} == {"mean"}
    assert all(space.codecs[name].render(np.zeros(1, np.float32), None) is None for name in space)
