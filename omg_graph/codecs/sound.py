"""Sounds: the codec of samples at a rate, as log-mel spectrograms of a fixed size and durations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from omg_graph.codecs.autoencoder import AutoencoderSettings, PrincipalComponents
from omg_graph.codecs.codec import ON_THE_CPU, Rows, Training
from omg_graph.codecs.convolution import Shape, low_level_features
from omg_graph.codecs.grid import GridCodec
from omg_graph.codecs.rendering import Pixels, Rendering
from omg_graph.codecs.spectrogram import BANDS, FLOOR, FRAMES, Spectrograms
from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, ModalitySpec
from omg_graph.data.media import wav_bytes
from omg_graph.errors import DataError

CELLS = BANDS * FRAMES
LOW_LEVEL_SIDE = 16
SUMMARY_WINDOW, SUMMARY_BANDS, SUMMARY_PARTS = 256, 8, 3
LEVEL, DURATION = CELLS, CELLS + 1
"""Places in a standard row."""
BELOW, ABOVE = 45.0, 25.0
"""dB: what is further below a sound's level is silence, and what is further above it is cut off."""
RANGE = BELOW + ABOVE
DARK, BRIGHT = -30.0, 15.0
"""dB around a sound's level that pictures show as black and white."""


@dataclass(frozen=True)
class SoundCodec(GridCodec):
    """(samples,), padded with zeros behind each sound's length.

    A standard row is a spectrogram, band by band, in dB around the sound's level (of its mean power), then
    that level and the duration's logarithm; the spectrogram has one deviation for all its cells.
    """

    centre: FloatArray
    """(size,): a standard row's training mean, in dB, dB and log seconds."""
    spread: FloatArray
    """(size,): its deviation."""
    full: float
    """What stands for full scale: 1, or the largest sample in training if that is more."""

    @staticmethod
    def grid(spec: ModalitySpec) -> tuple[Shape, int]:  # noqa: ARG004
        """The spectrogram, its level, and the duration."""
        return (1, BANDS, FRAMES), 2

    @staticmethod
    def standard_size(spec: ModalitySpec) -> int:  # noqa: ARG004
        """See ``Codec.standard_size``."""
        return CELLS + 2

    @classmethod
    def fit(
        cls,
        spec: ModalitySpec,
        rows: Rows,
        groups: Sequence[str],  # noqa: ARG003
        settings: AutoencoderSettings,
        seed: int,
        training: Training = ON_THE_CPU,
    ) -> Self:
        """See ``Codec.fit``."""
        full = max(1.0, float(np.abs(rows.array).max()))
        described = _described(spec, rows, full)
        centre, deviation = described.mean(axis=0), described.std(axis=0)
        spread = deviation.copy()
        spread[:CELLS] = np.sqrt(np.square(deviation[:CELLS]).mean())
        spread = np.where(spread > 1e-6, spread, 1.0)
        codec = cls(
            spec,
            mean=np.zeros(1, np.float32),
            deviation=np.ones(1, np.float32),
            varies=deviation > 1e-6,
            network=PrincipalComponents(CELLS + 2, 0),
            scale=1.0,
            centre=centre.astype(np.float32),
            spread=spread.astype(np.float32),
            full=full,
        )
        if not settings.learns_grid(len(rows)):
            return codec.with_autoencoder(rows, settings, seed)
        base, gain = (centre[:CELLS] + BELOW) / RANGE, spread[:CELLS] / RANGE
        width = settings.grid.sound_width
        return codec.learned(rows, base, gain, settings, seed, training, width=width, pictures=False)

    def standard(self, rows: Rows) -> FloatArray:
        """See ``Codec.standard``."""
        described = _described(self.spec, rows, self.full)
        return np.asarray((described - self.centre) / self.spread, dtype=np.float32)

    def restore(self, standard: FloatArray) -> FloatArray:
        """See ``Codec.restore``: by Griffin-Lim, with the durations that the rows tell."""
        lengths = self.lengths(standard)
        levels = self._levels(standard) + self._numbers(standard, LEVEL)[:, None, None]
        levels[self._levels(standard) < 0.5 - BELOW] = FLOOR
        out = np.zeros((len(standard), *self.spec.shape), np.float32)
        made = Spectrograms(_rate(self.spec)).sounds(torch.from_numpy(levels), lengths.tolist())
        for row, sound in enumerate(made):
            out[row, : len(sound)] = self.full * sound.numpy()
        return out

    def lengths(self, standard: FloatArray) -> IntArray:
        """See ``Codec.lengths``: samples, at least one and at most the longest."""
        seconds = np.exp(self._numbers(standard, DURATION).astype(np.float64).clip(-30, 30))
        samples = np.clip(np.round(seconds * _rate(self.spec)), 1, self.spec.shape[0])
        return np.asarray(samples, dtype=np.int64)

    def scored(self, rows: Rows) -> BoolArray:
        """See ``Codec.scored``: the cells, the level and the duration, where they vary in training."""
        return np.broadcast_to(self.varies, (len(rows), CELLS + 2)).copy()

    def pictures(self, standard: FloatArray) -> Pixels:
        """See ``Codec.pictures``: spectrograms, time to the right, low tones below, loud ones bright."""
        shown = (self._levels(standard) - DARK) / (BRIGHT - DARK)
        return np.asarray(np.round(255 * shown.clip(0, 1)[:, ::-1]), dtype=np.uint8)

    def render(self, sample: FloatArray, length: int | None) -> Rendering:
        """See ``Codec.render``: a WAV file of 16 bits at the modality's rate."""
        sound = sample if length is None else sample[:length]
        rows = Rows(sound[None])
        data = wav_bytes(sound / self.full, round(_rate(self.spec)))
        return Rendering(".wav", data, self.pictures(self.standard(rows))[0])

    def _levels(self, standard: FloatArray) -> FloatArray:
        """(samples, bands, frames) in dB around each sound's level."""
        cells = standard[:, :CELLS] * self.spread[:CELLS] + self.centre[:CELLS]
        return np.asarray(cells.reshape(-1, BANDS, FRAMES), dtype=np.float32)

    def _numbers(self, standard: FloatArray, place: int) -> FloatArray:
        """(samples,): a level in dB, or the duration's logarithm."""
        return np.asarray(standard[:, place] * self.spread[place] + self.centre[place], dtype=np.float32)

    @staticmethod
    def low_level(
        spec: ModalitySpec,  # noqa: ARG004
        standard: Float[Tensor, "batch size"],
    ) -> Float[Tensor, "batch feature"]:
        """Features of fixed shallow convolutions of the spectrogram, the level and the duration."""
        grids = standard[:, :CELLS].reshape(-1, 1, BANDS, FRAMES)
        features = low_level_features(grids, (LOW_LEVEL_SIDE, LOW_LEVEL_SIDE))
        return torch.cat([features, standard[:, CELLS:]], dim=1)

    @staticmethod
    def summary(rows: Rows) -> FloatArray:
        """Levels in dB of eight bands, each twice as wide as the one below, in each third of the time.

        Then the length's logarithm to the base 2.
        """
        out = np.zeros((len(rows), SUMMARY_BANDS * SUMMARY_PARTS + 1), np.float32)
        bins = SUMMARY_WINDOW // 2
        edges = [0, *(bins >> step for step in range(SUMMARY_BANDS - 1, -1, -1))]
        for row, sound in enumerate(_sounds(rows)):
            for part, piece in enumerate(np.array_split(sound, SUMMARY_PARTS)):
                padded = np.pad(piece, (0, -len(piece) % SUMMARY_WINDOW or (not len(piece)) * SUMMARY_WINDOW))
                windows = padded.reshape(-1, SUMMARY_WINDOW) * np.hanning(SUMMARY_WINDOW)
                power = np.square(np.abs(np.fft.rfft(windows, axis=1))).mean(axis=0) / SUMMARY_WINDOW
                for band in range(SUMMARY_BANDS):
                    mean = power[edges[band] : max(edges[band + 1], edges[band] + 1)].mean()
                    out[row, part * SUMMARY_BANDS + band] = 10 * np.log10(mean + 10 ** (FLOOR / 10))
            out[row, -1] = np.log2(max(1, len(sound)))
        return out

    def state(self) -> dict[str, Tensor]:
        """See ``Codec.state``."""
        return super().state() | {
            "centre": torch.from_numpy(self.centre),
            "spread": torch.from_numpy(self.spread),
            "full": torch.tensor(self.full, dtype=torch.float64),
        }

    @classmethod
    def parts(cls, spec: ModalitySpec, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """The codec's fields, by name, from ``state``."""
        return super().parts(spec, state) | {
            "centre": state["centre"].numpy(),
            "spread": state["spread"].numpy(),
            "full": float(state["full"]),
        }


def _rate(spec: ModalitySpec) -> float:
    if spec.rate is None:
        raise DataError(f"{spec.name}: expected a sound's rate in Hz, got none: give {spec.name}_rate")
    return spec.rate


def _sounds(rows: Rows) -> Iterator[FloatArray]:
    """Each sound without what is padded; at least one sample."""
    lengths = np.full(len(rows), rows.array.shape[1]) if rows.lengths is None else rows.lengths
    for sound, length in zip(rows.array, lengths, strict=True):
        yield sound[: max(1, int(length))]


def _described(spec: ModalitySpec, rows: Rows, full: float) -> FloatArray:
    """(samples, size): spectrograms in dB around their level, that level in dB, and log seconds."""
    spectrograms, out = Spectrograms(_rate(spec)), np.zeros((len(rows), CELLS + 2), np.float32)
    for row, sound in enumerate(_sounds(rows)):
        levels = spectrograms.of(torch.from_numpy(np.asarray(sound / full, dtype=np.float32)))
        level = 10 * (10 ** (levels / 10)).mean().log10()
        out[row, :CELLS] = (levels - level).clamp(-BELOW, ABOVE).numpy().reshape(-1)
        out[row, LEVEL] = float(level)
        out[row, DURATION] = np.log(len(sound) / spectrograms.rate)
    return out
