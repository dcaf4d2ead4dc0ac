from __future__ import annotations

import io
import wave

import numpy as np
import pytest
import torch

from omg_graph.codecs.autoencoder import AutoencoderSettings, GridSettings
from omg_graph.codecs.codec import Codec, Rows, codec_class
from omg_graph.codecs.latents import LatentSpace
from omg_graph.codecs.spectrogram import BANDS, FRAMES, Spectrograms
from omg_graph.data.dataset import ModalitySpec, Split
from omg_graph.errors import DataError

RATE, LONGEST = 8000, 4000
SPEC = ModalitySpec(name="tone", kind="sound", shape=(LONGEST,), rate=RATE)
SMALL = AutoencoderSettings(grid=GridSettings(image_width=12, sound_width=12, tokens=3, epochs=4, rows=100))


def tones(count: int, seed: int = 0) -> Rows:
    """Tones that fade in and out, of a pitch, a loudness and a length of their own."""
    random = np.random.default_rng(seed)
    array, lengths = np.zeros((count, LONGEST), np.float32), random.integers(800, LONGEST + 1, count)
    for row, length in enumerate(lengths):
        time = np.arange(length) / RATE
        pitch, loudness = random.uniform(200, 3000), random.uniform(0.1, 0.8)
        swell = np.sin(np.pi * np.arange(length) / length)
        array[row, :length] = loudness * swell * np.sin(2 * np.pi * pitch * time)
    return Rows(array, lengths.astype(np.int64))


@pytest.fixture(scope="module")
def codec() -> Codec:
    return codec_class("sound").fit(SPEC, tones(150), [], SMALL, 0)


def coded(codec: Codec, rows: Rows) -> np.ndarray:
    """Decoded standard rows."""
    return codec.network.decode(codec.network.encode(torch.from_numpy(codec.inputs(rows)))).numpy()


def test_a_full_scale_sine_is_nought_decibels_in_its_band() -> None:
    spectrograms = Spectrograms(RATE)
    sine = torch.sin(2 * torch.pi * 1000 * torch.arange(RATE) / RATE)
    levels = spectrograms.of(sine)
    assert levels.shape == (BANDS, FRAMES)
    middle = levels[:, FRAMES // 2]
    assert middle.max() == pytest.approx(0, abs=2)
    mel = 2595 * np.log10(1 + 1000 / 700)
    step = 2595 * np.log10(1 + RATE / 2 / 700) / (BANDS + 1)
    assert int(middle.argmax()) == pytest.approx(mel / step - 1, abs=1)
    assert spectrograms.of(torch.zeros(500)).max() == pytest.approx(-80)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_griffin_lim_gives_a_sound_with_the_same_spectrogram(rate: int) -> None:
    spectrograms = Spectrograms(rate)
    time = torch.arange(rate // 2) / rate
    sound = 0.5 * torch.sin(2 * torch.pi * (300 + 600 * time) * time) * torch.hann_window(len(time))
    levels = spectrograms.of(sound)
    made = spectrograms.sounds(levels.unsqueeze(0), [len(sound)])[0]
    assert made.shape == sound.shape
    loud = levels > levels.max() - 30
    assert (spectrograms.of(made) - levels)[loud].abs().mean() < 2.5


def test_other_sounds_of_a_batch_make_no_difference() -> None:
    rows, spectrograms = tones(4), Spectrograms(RATE)
    levels = torch.stack([spectrograms.of(torch.from_numpy(sound)) for sound in rows.array])
    lengths = [1200, 4000, 800, 2500]
    together = spectrograms.sounds(levels, lengths)
    for row, length in enumerate(lengths):
        alone = spectrograms.sounds(levels[row : row + 1], [length])[0]
        torch.testing.assert_close(alone, together[row], atol=1e-3, rtol=0)


def test_sounds_it_never_heard_come_back_with_their_lengths(codec: Codec) -> None:
    rows = tones(40, seed=1)
    decoded, standard = coded(codec, rows), codec.standard(rows)
    assert standard.shape == (40, codec.standard_size(SPEC)) == (40, BANDS * FRAMES + 2)
    assert np.square(decoded - standard).sum() < 0.25 * np.square(standard).sum()
    assert rows.lengths is not None
    exact = codec.lengths(standard)
    np.testing.assert_allclose(exact, rows.lengths, atol=1)
    made = codec.lengths(decoded)
    assert made is not None
    assert np.median(np.abs(np.log(made / rows.lengths))) < 0.2
    sounds = codec.restore(standard)
    assert sounds.shape == (40, LONGEST)
    for sound, length in zip(sounds, rows.lengths, strict=True):
        assert not sound[length + 1 :].any()
    loudness = np.log10(np.square(sounds).sum(axis=1) / np.square(rows.array).sum(axis=1))
    assert np.abs(loudness).max() < 0.3


def test_what_is_padded_counts_for_nothing(codec: Codec) -> None:
    rows = tones(5)
    assert rows.lengths is not None
    noisy = rows.array.copy()
    for row, length in enumerate(rows.lengths):
        noisy[row, length:] = 0.7
    np.testing.assert_array_equal(codec.standard(Rows(noisy, rows.lengths)), codec.standard(rows))
    np.testing.assert_array_equal(codec.summary(Rows(noisy, rows.lengths)), codec.summary(rows))


def test_a_rendered_sound_opens_with_its_rate_and_length(codec: Codec) -> None:
    rows = tones(1, seed=3)
    assert rows.lengths is not None
    length = int(rows.lengths[0])
    rendering = codec.render(rows.array[0], length)
    assert rendering is not None
    assert rendering.suffix == ".wav"
    with wave.open(io.BytesIO(rendering.data)) as file:
        assert (file.getframerate(), file.getnframes(), file.getsampwidth()) == (RATE, length, 2)
        samples = np.frombuffer(file.readframes(length), np.int16)
    np.testing.assert_allclose(samples / 32_767, rows.array[0, :length], atol=1e-4)
    assert rendering.picture.dtype == np.uint8
    assert rendering.picture.shape == (BANDS, FRAMES)


def test_pictures_have_low_tones_below(codec: Codec) -> None:
    time = np.arange(LONGEST) / RATE
    pair = np.stack([np.sin(2 * np.pi * pitch * time) for pitch in (200, 3000)]).astype(np.float32)
    pictures = codec.pictures(codec.standard(Rows(pair)))
    assert pictures is not None
    low, high = pictures[:, :, FRAMES // 2].argmax(axis=1)
    assert high < BANDS // 2 < low


def test_a_loaded_codec_is_the_same(codec: Codec) -> None:
    again = type(codec).load(SPEC, codec.state(), [])
    rows = tones(3, seed=2)
    np.testing.assert_array_equal(coded(again, rows), coded(codec, rows))
    np.testing.assert_array_equal(again.restore(coded(again, rows)), codec.restore(coded(codec, rows)))
    assert (again.tokens, again.estimate, again.scale) == (3, "sample", 1.0)


def test_few_rows_are_encoded_by_principal_components() -> None:
    rows = tones(40)
    few = codec_class("sound").fit(SPEC, rows, [], SMALL, 0)
    assert (few.tokens, few.estimate) == (1, "mean")
    note = codec_class("sound").note(SPEC, 40, SMALL)
    assert note is not None
    assert "tone is encoded by PCA" in note
    standard = few.standard(rows)
    assert np.square(coded(few, rows) - standard).sum() < 0.01 * np.square(standard).sum()


def test_phi_is_fixed_and_differentiable(codec: Codec) -> None:
    rows = torch.randn(2, codec.standard_size(SPEC), requires_grad=True)
    features = codec.low_level(SPEC, rows)
    assert features.shape == (2, 258)
    gradient = torch.autograd.grad(features.square().sum(), rows)[0]
    assert (gradient != 0).float().mean() > 0.9


def test_louder_higher_and_longer_sounds_have_other_summaries() -> None:
    time = np.arange(LONGEST) / RATE

    def summary(pitch: float, loudness: float, length: int) -> np.ndarray:
        sound = (loudness * np.sin(2 * np.pi * pitch * time)).astype(np.float32)
        return codec_class("sound").summary(Rows(sound[None], np.array([length])))[0]

    plain, louder = summary(300, 0.1, 4000), summary(300, 1.0, 4000)
    assert louder[:8].max() - plain[:8].max() == pytest.approx(20, abs=0.1)
    assert summary(3000, 0.1, 4000)[:8].argmax() > plain[:8].argmax()
    assert plain[-1] - summary(300, 0.1, 1000)[-1] == pytest.approx(2)


def test_silence_and_a_single_sample_are_sounds_too(codec: Codec) -> None:
    rows = Rows(np.zeros((2, LONGEST), np.float32), np.array([1, LONGEST]))
    standard = codec.standard(rows)
    assert np.isfinite(standard).all()
    sounds = codec.restore(standard)
    assert np.abs(sounds).max() < 0.01
    assert np.isfinite(codec.summary(rows)).all()


def test_a_sound_without_a_rate_is_refused() -> None:
    with pytest.raises(DataError, match="tone: expected a sound's rate in Hz, got none"):
        codec_class("sound").fit(SPEC.model_copy(update={"rate": None}), tones(5), [], SMALL, 0)


def test_a_space_tells_the_lengths_of_sounds_alone() -> None:
    rows = tones(30)
    assert rows.lengths is not None
    ids = tuple(map(str, range(30)))
    vector = ModalitySpec(name="v", kind="vector", shape=(3,))
    arrays = {"tone": rows.array, "v": np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)}
    seen = {name: np.ones(30, bool) for name in arrays}
    split = Split("train", ids, ids, (SPEC, vector), arrays, seen, {"tone": rows.lengths})
    space = LatentSpace.fit(split, AutoencoderSettings(kind="pca", variance=1.0), 0)
    latents = space.encode(split)
    told = {name: codec.lengths(space.standard(name, latents[name])) for name, codec in space.codecs.items()}
    assert told["v"] is None
    lengths = told["tone"]
    assert lengths is not None
    np.testing.assert_allclose(lengths, rows.lengths, rtol=0.02)
    assert space.decode("tone", latents["tone"][:2]).shape == (2, LONGEST)
