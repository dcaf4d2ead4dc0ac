from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from omg_graph.codecs.autoencoder import AutoencoderSettings, GridSettings
from omg_graph.codecs.codec import Codec, Rows, codec_class
from omg_graph.codecs.convolution import ConvolutionalAutoencoder, detail, low_level_features
from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import ModalitySpec, Split

SIDE = 16
SPEC = ModalitySpec(name="spots", kind="image", shape=(SIDE, SIDE))
SMALL = AutoencoderSettings(grid=GridSettings(image_width=12, sound_width=12, tokens=3, epochs=6, rows=200))


def spots(count: int, seed: int = 0, channels: int = 0) -> np.ndarray:
    """Bright spots on dark ground: five numbers decide an image. Pixels between 0 and 255."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[:SIDE, :SIDE]
    middle = random.uniform(5, 11, (2, count, 1, 1))
    sizes = random.uniform(1.5, 3.5, (2, count, 1, 1))
    distance = ((down - middle[0]) / sizes[0]) ** 2 + ((across - middle[1]) / sizes[1]) ** 2
    grey = 255 / (1 + np.exp(4 * (distance - 1)))
    if channels:
        grey = grey[:, None] * random.uniform(0.3, 1, (count, channels, 1, 1))
    return grey.astype(np.float32)


@pytest.fixture(scope="module")
def codec() -> Codec:
    rows = Rows(spots(240))
    return codec_class("image").fit(SPEC, rows, [], SMALL, 0)


def coded(codec: Codec, rows: Rows) -> tuple[torch.Tensor, np.ndarray]:
    """Latents and decoded standard rows."""
    latents = codec.network.encode(torch.from_numpy(codec.inputs(rows)))
    return latents, codec.network.decode(latents).numpy()


def test_images_it_never_saw_come_back(codec: Codec) -> None:
    rows = Rows(spots(60, seed=1))
    _, decoded = coded(codec, rows)
    standard = codec.standard(rows)
    assert np.square(decoded - standard).sum() < 0.12 * np.square(standard).sum()
    again = codec.restore(decoded)
    assert again.shape == rows.array.shape
    assert again.min() >= rows.array.min() - 1
    assert again.max() <= 256
    assert codec.lengths(decoded) is None


def test_latents_have_unit_scale_and_whole_tokens(codec: Codec) -> None:
    latents, _ = coded(codec, Rows(spots(240)))
    assert latents.shape == (240, codec.width) == (240, 12)
    assert (codec.tokens, codec.estimate, codec.scale) == (3, "sample", 1.0)
    torch.testing.assert_close(latents.mean(0), torch.zeros(12), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.std(0), torch.ones(12), atol=1e-2, rtol=0)


def test_standard_rows_have_unit_spread_over_the_whole_image(codec: Codec) -> None:
    """One deviation for all pixels, so that squared error is the share of the pixels' variance."""
    standard = codec.standard(Rows(spots(240)))
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=1e-4)
    assert np.square(standard).mean() == pytest.approx(1, abs=1e-3)
    assert len(np.unique(codec.deviation)) == 1


def test_the_seed_decides_everything() -> None:
    rows = Rows(spots(200))
    quick = SMALL.model_copy(update={"grid": SMALL.grid.model_copy(update={"epochs": 1})})
    codecs = [codec_class("image").fit(SPEC, rows, [], quick, seed) for seed in (0, 0, 1)]
    first, again, other = (codec.state() for codec in codecs)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_a_loaded_codec_is_the_same(codec: Codec) -> None:
    again = type(codec).load(SPEC, codec.state(), [])
    rows = Rows(spots(5, seed=2))
    assert (again.tokens, again.estimate, again.width) == (codec.tokens, codec.estimate, codec.width)
    for one, other in zip(coded(again, rows), coded(codec, rows), strict=True):
        np.testing.assert_array_equal(one, other)
    first, second = again.render(rows.array[0], None), codec.render(rows.array[0], None)
    assert first is not None
    assert second is not None
    assert first.data == second.data


def test_a_rendered_image_opens_with_its_size_and_pixels(codec: Codec) -> None:
    sample = spots(1, seed=3)[0]
    rendering = codec.render(sample, None)
    assert rendering is not None
    assert rendering.suffix == ".png"
    with Image.open(io.BytesIO(rendering.data)) as image:
        assert image.size == (SIDE, SIDE)
        pixels = np.asarray(image)
    np.testing.assert_array_equal(pixels, rendering.picture)
    brightest = spots(240).max()
    assert np.abs(pixels - 255 * np.minimum(sample / brightest, 1)).max() < 1
    beyond = codec.render(np.full_like(sample, 1e6), None)
    assert beyond is not None
    assert (beyond.picture == 255).all()


def test_pictures_in_colour_of_few_rows_by_pca() -> None:
    """Too few rows to learn from: principal components, and a note that says so."""
    spec = ModalitySpec(name="coloured", kind="image", shape=(3, SIDE, SIDE))
    array = spots(40, channels=3)
    few = codec_class("image").fit(spec, Rows(array), [], SMALL, 0)
    assert (few.tokens, few.estimate) == (1, "mean")
    note = codec_class("image").note(spec, 40, SMALL)
    assert note is not None
    assert "coloured is encoded by PCA: 40 training rows are fewer than the 200" in note
    assert codec_class("image").note(spec, 200, SMALL) is None
    asked = AutoencoderSettings(kind="pca")
    assert codec_class("image").note(spec, 40, asked) is None
    assert not asked.learns_grid(10_000)
    rendering = few.render(array[0], None)
    assert rendering is not None
    assert rendering.picture.shape == (SIDE, SIDE, 3)
    pictures = few.pictures(coded(few, Rows(array))[1])
    assert pictures is not None
    assert pictures.shape == (40, SIDE, SIDE, 3)


def test_the_space_hears_of_epochs_and_says_what_it_learned_less() -> None:
    ids = tuple(map(str, range(200)))
    seen = {"spots": np.ones(200, bool), "rare": np.arange(200) < 50}
    specs = (SPEC, SPEC.model_copy(update={"name": "rare"}))
    split = Split("train", ids, ids, specs, {"spots": spots(200), "rare": spots(200, 1)}, seen)
    heard: list[tuple[str, int, int]] = []
    quick = SMALL.model_copy(update={"grid": SMALL.grid.model_copy(update={"epochs": 2})})
    space = LatentSpace.fit(split, quick, 0, on_epoch=lambda *epoch: heard.append(epoch[:3]))
    assert heard == [("spots", 1, 2), ("spots", 2, 2)]
    assert space.tokens == {"spots": 3, "rare": 1}
    assert [note.split(" is ")[0] for note in LatentSpace.notes(split, quick)] == ["rare"]
    assert LatentSpace.draws(split, quick)
    assert not LatentSpace.draws(split, AutoencoderSettings(kind="pca"))
    again = LatentSpace.load(specs, space.state())
    assert again.tokens == space.tokens
    latents = space.encode(split)["spots"]
    np.testing.assert_array_equal(again.decode("spots", latents), space.decode("spots", latents))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 9, 30), (2, 5, 4), (1, 50, 41), (1, 100, 128)])
def test_any_size_has_a_network(shape: tuple[int, int, int]) -> None:
    network = ConvolutionalAutoencoder(shape, 1, 6, 2)
    rows = torch.randn(2, math.prod(shape) + 1)
    decoded = network.decode(network.encode(rows))
    assert decoded.shape == rows.shape
    assert max(network.coarse) <= 7
    levels = network.rows(decoded).levels
    assert levels.min() >= 0
    assert levels.max() <= 1


@pytest.mark.parametrize(("shape", "count"), [((1, 28, 28), 256), ((3, 20, 9), 3 * 16 * 9), ((1, 3, 4), 12)])
def test_phi_is_fixed_differentiable_and_sees_edges(shape: tuple[int, int, int], count: int) -> None:
    """As many numbers as the coarse copies of version 0.1.0, whose models' heads have these sizes."""
    spec = ModalitySpec(name="x", kind="image", shape=shape)
    rows = torch.randn(2, math.prod(shape), requires_grad=True)
    features = codec_class("image").low_level(spec, rows)
    assert features.shape == (2, count)
    assert torch.equal(features, codec_class("image").low_level(spec, rows))
    gradient = torch.autograd.grad(features.square().sum(), rows)[0]
    assert gradient.abs().sum() > 0


def test_phi_tells_sharp_images_from_blurs_of_the_same_brightness() -> None:
    sharp = torch.zeros(1, 1, 16, 16)
    sharp[..., 8:] = 1
    blurred = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    flat = low_level_features(torch.full_like(sharp, 0.5), (16, 16))
    distances = [(low_level_features(x, (16, 16)) - flat).abs().sum() for x in (blurred, sharp)]
    assert distances[1] > 1.5 * distances[0]


def test_decoded_rows_have_as_much_detail_as_the_rows(codec: Codec) -> None:
    """Edges of what a network is unsure of would be grey: the contrast makes up for it."""
    rows = Rows(spots(240))
    _, decoded = coded(codec, rows)
    network = codec.network
    assert isinstance(network, ConvolutionalAutoencoder)
    assert 1 <= float(network.contrast) < 2
    wanted, made = (
        detail(network.rows(torch.from_numpy(standard)).levels).square().mean()
        for standard in (codec.standard(rows), decoded)
    )
    assert float(made) == pytest.approx(float(wanted), rel=0.1)


def test_an_image_codec_of_version_0_1_loads_and_shows_its_images() -> None:
    """Its folders don't hold the range of the pixels: what is usual around the mean is shown."""
    array = spots(40)
    state = codec_class("image").fit(SPEC, Rows(array), [], AutoencoderSettings(kind="pca"), 0).state()
    old = {name: value for name, value in state.items() if name not in ("low", "high")}
    codec = codec_class("image").load(SPEC, old, [])
    rendering = codec.render(array[0], None)
    assert rendering is not None
    assert rendering.picture.max() > 200
    assert np.corrcoef(rendering.picture.reshape(-1), array[0].reshape(-1))[0, 1] > 0.9
