"""The latent space of a model: the codecs of all its modalities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from omg_graph.codecs.autoencoder import AutoencoderSettings
from omg_graph.codecs.codec import Codec, Rows, Training, codec_class, part_of
from omg_graph.data.dataset import FloatArray, IntArray, ModalitySpec, Split
from omg_graph.errors import DataError

NamedEpochCallback = Callable[[str, int, int, float], None]
"""(modality, epoch from 1, epochs, loss)."""


@dataclass(frozen=True)
class LatentSpace:
    """The codecs of all modalities, in the model's order."""

    codecs: dict[str, Codec]

    @classmethod
    def fit(
        cls,
        split: Split,
        settings: AutoencoderSettings,
        seed: int,
        *,
        device: torch.device | None = None,
        on_epoch: NamedEpochCallback | None = None,
    ) -> LatentSpace:
        """Codecs of all modalities, each fitted on the rows that have it.

        Args:
            split: Training rows.
            settings: Of the autoencoders.
            seed: Decides everything random.
            device: Where codecs that learn are trained; the CPU by default.
            on_epoch: Called after each epoch of such a codec.

        Raises:
            DataError: if a modality is there in fewer than two rows.
        """
        codecs = {}
        for spec in split.modalities:
            there = np.flatnonzero(split.observed[spec.name])
            if len(there) < 2:
                raise DataError(
                    f"modality {spec.name} is there in {len(there)} of {len(split)} training rows, at "
                    "least 2 are needed: leave it out with --modalities"
                )
            codecs[spec.name] = codec_class(spec.kind).fit(
                spec,
                rows_of(split, spec.name).take(there),
                _groups(split, there),
                settings,
                seed,
                Training(
                    device or torch.device("cpu"), None if on_epoch is None else partial(on_epoch, spec.name)
                ),
            )
        space = cls(codecs)
        if all(codec.filling() is None for codec in codecs.values()):
            return space
        latents = {name: value.numpy() for name, value in space.encode(split).items()}
        for name, codec in codecs.items():
            there = np.flatnonzero(split.observed[name])
            codecs[name] = codec.coupled(
                rows_of(split, name).take(there),
                {other: rows[there] for other, rows in latents.items() if other != name},
                split.mask()[there][:, [other != name for other in split.names]],
                _groups(split, there),
                seed,
            )
        return space

    @staticmethod
    def draws(split: Split, settings: AutoencoderSettings) -> bool:
        """Whether ``fit`` depends on the seed."""
        return any(
            codec_class(spec.kind).draws(int(split.observed[spec.name].sum()), settings)
            for spec in split.modalities
        )

    @staticmethod
    def notes(split: Split, settings: AutoencoderSettings) -> list[str]:
        """What ``fit`` does other than a user may expect of the settings."""
        notes = (
            codec_class(spec.kind).note(spec, int(split.observed[spec.name].sum()), settings)
            for spec in split.modalities
        )
        return [note for note in notes if note is not None]

    def __iter__(self) -> Iterator[str]:
        return iter(self.codecs)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names."""
        return tuple(self.codecs)

    @property
    def widths(self) -> dict[str, int]:
        """Latent width of each modality."""
        return {name: codec.width for name, codec in self.codecs.items()}

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens in the latents of each modality."""
        return {name: codec.tokens for name, codec in self.codecs.items()}

    @property
    def sampled(self) -> tuple[str, ...]:
        """Modalities for which a draw stands where they are missing."""
        return tuple(name for name, codec in self.codecs.items() if codec.estimate == "sample")

    @property
    def scales(self) -> dict[str, float]:
        """Root mean square of each modality's training latents."""
        return {name: codec.scale for name, codec in self.codecs.items()}

    @property
    def specs(self) -> tuple[ModalitySpec, ...]:
        """Name, kind and shape of each modality."""
        return tuple(codec.spec for codec in self.codecs.values())

    @property
    def feature_means(self) -> dict[str, FloatArray]:
        """The training mean of each feature, in the input's units."""
        return {name: codec.mean for name, codec in self.codecs.items()}

    def encode(self, split: Split) -> dict[str, Float[Tensor, "sample latent"]]:
        """Modality to (samples, latent), on the CPU; rows that miss it are zero."""
        latents = {}
        for name, codec in self.codecs.items():
            there = split.observed[name][:, None]
            with torch.inference_mode():
                latent = codec.network.encode(torch.from_numpy(codec.inputs(rows_of(split, name)) * there))
            latents[name] = latent.clone() * torch.from_numpy(there)
        return latents

    def fill_frames(self, split: Split) -> dict[str, FloatArray]:
        """Sequences with lost frames filled from the sample's other observed data.

        Returns:
            Modality to (samples, frames, features) in the input's units, for modalities with lost frames;
            observed numbers are unchanged, bit by bit.
        """
        rows = {name: rows_of(split, name) for name in self.codecs}
        lossy = [name for name, some in rows.items() if some.lost is not None]
        latents = {name: value.numpy() for name, value in self.encode(split).items()} if lossy else {}
        return {name: self.codecs[name].filled(rows[name], latents, split.observed) for name in lossy}

    def standard(
        self, name: str, latents: Float[Tensor, "sample latent"], lengths: IntArray | None = None
    ) -> FloatArray:
        """Decoded standard rows, which metrics compare; zeros past the lengths, where they are given."""
        codec = self.codecs[name]
        with torch.inference_mode():
            features = codec.network.decode(latents.cpu())
        return codec.cut(features.numpy().astype(np.float32), lengths)

    def decode(self, name: str, latents: Float[Tensor, "sample latent"]) -> FloatArray:
        """(samples, *shape) in the input's units; what is past a length that the latents tell is zero."""
        return self.codecs[name].restore(self.standard(name, latents))

    def state(self) -> dict[str, Tensor]:
        """Everything but the modalities' names and shapes, as plain tensors."""
        return {
            f"{number}/{key}": value
            for number, codec in enumerate(self.codecs.values())
            for key, value in codec.state().items()
        }

    @classmethod
    def load(cls, specs: Sequence[ModalitySpec], state: Mapping[str, Tensor]) -> LatentSpace:
        """The latent space from ``state``."""
        return cls(
            {
                spec.name: codec_class(spec.kind).load(
                    spec,
                    part_of(state, str(number)),
                    [other.name for other in specs if other.name != spec.name],
                )
                for number, spec in enumerate(specs)
            }
        )


def rows_of(split: Split, name: str) -> Rows:
    """One modality of a split."""
    return Rows(split.arrays[name], split.lengths.get(name), split.gaps(name))


def _groups(split: Split, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    return [split.groups[row] for row in rows]
