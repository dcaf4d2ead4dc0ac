"""Log-mel spectrograms of sounds, stretched to a fixed number of frames, and sounds of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from omg_graph.seeding import generator

FRAMES, BANDS = 32, 32
WINDOW = 0.032
"""Seconds of a window, at least: the next power of two in samples."""
OVERLAP = 4
"""Windows that a sample lies in."""
FLOOR = -80.0
"""dB: quieter is silence."""
ITERATIONS = 32
MOMENTUM = 0.99
FITS = 40
"""Steps in which magnitudes are fitted to mel bands."""
AT_ONCE = 64


@dataclass(frozen=True)
class Spectrograms:
    """Between sounds of one rate, from -1 to 1, and (bands, frames) in dB, 0 for a full-scale sine's peak.

    Mel bands are HTK's triangles (mel = 2595 log10(1 + f / 700), S. Young et al., The HTK Book), with a peak
    of 1, from 0 Hz to half the rate.
    """

    rate: float

    @property
    def window(self) -> int:
        """Samples in a window; neighbouring windows are a quarter of it apart."""
        return int(2 ** math.ceil(math.log2(max(8.0, WINDOW * self.rate))))

    @property
    def hop(self) -> int:
        """Samples between windows."""
        return self.window // OVERLAP

    def of(self, sound: Float[Tensor, " sample"]) -> Float[Tensor, "band frame"]:
        """The spectrogram of a whole sound, its time stretched or squeezed to ``FRAMES``."""
        magnitudes = self._transform(sound.unsqueeze(0))[0].abs()
        power = self._filters() @ (magnitudes / (self.window / 4)).square()
        levels = 10 * power.clamp(min=10 ** (FLOOR / 10)).log10()
        return levels @ _stretching(levels.shape[1], FRAMES).T

    def sounds(
        self, levels: Float[Tensor, "sound band frame"], lengths: list[int]
    ) -> list[Float[Tensor, " sample"]]:
        """Sounds with these spectrograms and lengths in samples, by the fast Griffin-Lim algorithm.

        Magnitudes are fitted to the mel bands by multiplicative updates, which keep them from being negative;
        phases begin at random, always the same (N. Perraudin, P. Balazs, P. Sondergaard, A fast Griffin-Lim
        algorithm, 2013).
        """
        made: list[Tensor] = [torch.zeros(0)] * len(lengths)
        order = sorted(range(len(lengths)), key=lengths.__getitem__)
        for start in range(0, len(lengths), AT_ONCE):
            some = order[start : start + AT_ONCE]
            for row, sound in zip(some, self._some(levels[some], [lengths[i] for i in some]), strict=True):
                made[row] = sound
        return made

    def _some(self, levels: Tensor, lengths: list[int]) -> list[Tensor]:
        frames = [1 + length // self.hop for length in lengths]
        # silence behind each, so that how long the others are makes no difference
        longest = max(frames) + OVERLAP
        magnitudes = torch.zeros(len(lengths), self.window // 2 + 1, longest)
        phases = torch.zeros_like(magnitudes)
        for row, count in enumerate(frames):
            stretched = levels[row] @ _stretching(FRAMES, count).T
            magnitudes[row, :, :count] = self._magnitudes(stretched)
            draw = generator("griffin-lim", count)
            phases[row, :, :count] = 2 * math.pi * torch.rand(len(magnitudes[row]), count, generator=draw)
        samples = (longest - 1) * self.hop
        angles, before = torch.polar(torch.ones_like(phases), phases), torch.zeros(())
        for _ in range(ITERATIONS):
            again = self._transform(self._inverse(magnitudes * angles, samples))
            ahead = again + MOMENTUM * (again - before)
            angles, before = ahead / ahead.abs().clamp(min=1e-12), again
        sounds = self._inverse(magnitudes * angles, samples)
        return [sound[:length].clamp(-1, 1) for sound, length in zip(sounds, lengths, strict=True)]

    def _magnitudes(self, levels: Float[Tensor, "band frame"]) -> Float[Tensor, "bin frame"]:
        filters = self._filters()
        power = (10 ** (levels / 10)) * (levels > FLOOR + 0.5)
        fitted = filters.T @ power
        for _ in range(FITS):
            fitted = fitted * (filters.T @ power) / (filters.T @ (filters @ fitted)).clamp(min=1e-20)
        return fitted.sqrt() * (self.window / 4)

    def _filters(self) -> Float[Tensor, "band bin"]:
        return _mel_filters(self.rate, self.window)

    def _transform(self, sounds: Float[Tensor, "sound sample"]) -> Float[Tensor, "sound bin frame"]:
        hann = torch.hann_window(self.window)
        return torch.stft(
            sounds, self.window, self.hop, window=hann, pad_mode="constant", return_complex=True
        )

    def _inverse(self, spectra: Tensor, samples: int) -> Float[Tensor, "sound sample"]:
        return torch.istft(
            spectra, self.window, self.hop, window=torch.hann_window(self.window), length=samples
        )


@cache
def _mel_filters(rate: float, window: int) -> Tensor:
    """(bands, bins)."""
    highest = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, highest, BANDS + 2, dtype=torch.float64) / 2595) - 1)
    bins = torch.linspace(0, rate / 2, window // 2 + 1, dtype=torch.float64)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0).float()


@cache
def _stretching(given: int, wanted: int) -> Tensor:
    """(wanted, given): linear interpolation, or triangular means where there are fewer."""
    scale = given / wanted
    places = (torch.arange(wanted, dtype=torch.float64) + 0.5) * scale - 0.5
    places = places.clamp(0, given - 1)
    distance = (places[:, None] - torch.arange(given, dtype=torch.float64)).abs()
    weights = (1 - distance / max(1.0, scale)).clamp(min=0)
    return (weights / weights.sum(dim=1, keepdim=True)).float()
