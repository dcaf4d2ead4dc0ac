"""Codecs: from the input's units to latents and back, one class for each kind of modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from omg_graph.codecs.autoencoder import (
    Autoencoder,
    AutoencoderSettings,
    PrincipalComponents,
    fit_autoencoder,
    load_autoencoder,
)
from omg_graph.codecs.convolution import EpochCallback
from omg_graph.codecs.rendering import Pixels, Rendering
from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, ModalitySpec
from omg_graph.plugins import component

GROUP = "omg_graph.codecs"

Estimate = Literal["mean", "sample"]
"""What stands for a missing modality: the conditional mean, or a draw where a mean would be a blur."""

CLIP = 10.0
"""Observed features are clipped to this many training standard deviations before any model sees them."""


@dataclass(frozen=True)
class Training:
    """Where a codec that learns is trained, and who hears of it."""

    device: torch.device
    on_epoch: EpochCallback | None = None


ON_THE_CPU = Training(torch.device("cpu"))


@dataclass(frozen=True)
class Rows:
    """Samples of one modality."""

    array: FloatArray
    """(samples, *shape), in the input's units."""
    lengths: IntArray | None = None
    """(samples,): frames that count, for padded sequences."""
    lost: BoolArray | None = None
    """(samples, frames): lost frames, for sequences with such gaps; zeros in ``array``."""

    def __len__(self) -> int:
        return len(self.array)

    def take(self, rows: IntArray) -> Rows:
        """The given rows, in the given order."""
        return Rows(
            self.array[rows],
            None if self.lengths is None else self.lengths[rows],
            None if self.lost is None else self.lost[rows],
        )


class Codec(Protocol):
    """The interface between the model and a kind of modality.

    *Standard* rows are flattened, (samples, size): zero mean and unit deviation on the training rows, and
    zeros where data are missing. Once the codec is fitted, rows don't influence each other. Latents are
    flat too, (samples, width): token after token, ``width`` / ``tokens`` numbers each.
    """

    @property
    def spec(self) -> ModalitySpec:
        """Name, kind and shape of the modality."""
        ...

    @property
    def width(self) -> int:
        """Of the latents."""
        ...

    @property
    def tokens(self) -> int:
        """How many tokens the latents of one sample are."""
        ...

    @property
    def estimate(self) -> Estimate:
        """What stands for this modality where it is missing, unless a run asks for the other."""
        ...

    @property
    def scale(self) -> float:
        """Root mean square of the latents on the training rows."""
        ...

    @property
    def mean(self) -> FloatArray:
        """Training mean, in the input's units, broadcastable to one sample."""
        ...

    @property
    def deviation(self) -> FloatArray:
        """Training deviation; 1 where a feature is constant in training."""
        ...

    @property
    def network(self) -> Autoencoder:
        """``encode`` and ``decode`` between standard rows and latents, differentiable."""
        ...

    @classmethod
    def fit(
        cls,
        spec: ModalitySpec,
        rows: Rows,
        groups: Sequence[str],
        settings: AutoencoderSettings,
        seed: int,
        training: Training = ON_THE_CPU,
    ) -> Self:
        """Fit on training rows that have the modality; ``groups`` are theirs."""
        ...

    @classmethod
    def draws(cls, rows: int, settings: AutoencoderSettings) -> bool:
        """Whether ``fit`` on so many rows depends on the seed."""
        ...

    @classmethod
    def note(cls, spec: ModalitySpec, rows: int, settings: AutoencoderSettings) -> str | None:
        """What ``fit`` on so many rows does other than a user may expect of the settings."""
        ...

    def coupled(
        self,
        rows: Rows,
        latents: Mapping[str, FloatArray],
        observed: BoolArray,
        groups: Sequence[str],
        seed: int,
    ) -> Self:
        """The codec with lost parts coupled to other modalities' latents; itself if nothing is lost.

        Args:
            rows: Training rows that have the modality.
            latents: The other modalities' latents, (samples, latent), zeros where missing.
            observed: (samples, other modalities).
            groups: Of the rows.
            seed: Decides what is held out.
        """
        ...

    @staticmethod
    def standard_size(spec: ModalitySpec) -> int:
        """Numbers in one standard row."""
        ...

    def standard(self, rows: Rows) -> FloatArray:
        """Standard rows; lost and padded parts are zero."""
        ...

    def cut(self, standard: FloatArray, lengths: IntArray | None) -> FloatArray:
        """Decoded standard rows with zeros past each one's length, where a kind has padded parts."""
        ...

    def inputs(self, rows: Rows) -> FloatArray:
        """Standard rows as model inputs: clipped to ``CLIP`` deviations, lost parts filled from the rest."""
        ...

    def restore(self, standard: FloatArray) -> FloatArray:
        """(samples, *shape) in the input's units."""
        ...

    def lengths(self, standard: FloatArray) -> IntArray | None:
        """The lengths, (samples,), that decoded standard rows tell; None for kinds that tell none."""
        ...

    def pictures(self, standard: FloatArray) -> Pixels | None:
        """What decoded standard rows look like, (samples, height, width) or (samples, height, width, 3).

        None for kinds that are numbers, not something to look at.
        """
        ...

    def render(self, sample: FloatArray, length: int | None) -> Rendering | None:
        """One sample as a file that people can open; None for kinds that are none.

        Args:
            sample: Of the modality's shape, in the input's units.
            length: How much of it counts; all if None.
        """
        ...

    def filled(
        self, rows: Rows, latents: Mapping[str, FloatArray], observed: Mapping[str, BoolArray]
    ) -> FloatArray:
        """The array with lost parts filled, from other modalities too; all else is unchanged, bit by bit."""
        ...

    def filling(self) -> dict[str, float] | None:
        """How well lost parts are filled, for the manifest; None where they are interpolated."""
        ...

    def scored(self, rows: Rows) -> BoolArray:
        """(samples, size): which numbers of standard rows count in a metric."""
        ...

    @staticmethod
    def low_level(
        spec: ModalitySpec, standard: Float[Tensor, "batch size"]
    ) -> Float[Tensor, "batch feature"]:
        """Phi of Eq. 14, which is fixed: a differentiable description of standard rows."""
        ...

    @staticmethod
    def summary(rows: Rows) -> FloatArray:
        """(samples, features): the input of clustering, in the input's units."""
        ...

    def state(self) -> dict[str, Tensor]:
        """All that ``load`` needs beside the specifications."""
        ...

    @classmethod
    def load(cls, spec: ModalitySpec, state: Mapping[str, Tensor], others: Sequence[str]) -> Self:
        """The codec from ``state``; ``others`` are the model's other modalities, in order."""
        ...


@cache
def codec_class(kind: str) -> type[Codec]:
    """The codec of a kind of modality.

    Raises:
        ConfigError: if no installed package registers one.
    """
    found: type[Codec] = component(GROUP, kind)
    return found


@dataclass(frozen=True)
class VectorCodec:
    """A vector of features: standard units and an autoencoder. Other kinds build on it."""

    spec: ModalitySpec
    mean: FloatArray
    deviation: FloatArray
    varies: BoolArray
    """False where a feature is constant in training: such features are left out of every metric."""
    network: Autoencoder
    scale: float

    @property
    def width(self) -> int:
        """Latent width."""
        return self.network.width

    @property
    def tokens(self) -> int:
        """One."""
        return 1

    @property
    def estimate(self) -> Estimate:
        """The mean."""
        return "mean"

    @classmethod
    def fit(
        cls,
        spec: ModalitySpec,
        rows: Rows,
        groups: Sequence[str],
        settings: AutoencoderSettings,
        seed: int,
        training: Training = ON_THE_CPU,  # noqa: ARG003
    ) -> Self:
        """See ``Codec.fit``."""
        samples = rows.array[cls.there(spec, rows)].astype(np.float64)
        mean, spread = samples.mean(axis=0), samples.std(axis=0)
        # relative to the mean, so that features in small units (volts, tesla) aren't taken for constants
        varies = spread > np.maximum(1e-6 * np.abs(mean), 1e-30)
        deviation = np.where(varies, spread, 1.0).astype(np.float32)
        nothing = PrincipalComponents(cls.standard_size(spec), 0)
        codec = cls(spec, mean.astype(np.float32), deviation, varies, nothing, 1.0)
        return codec.with_filler(rows, groups, seed).with_autoencoder(rows, settings, seed)

    def with_autoencoder(self, rows: Rows, settings: AutoencoderSettings, seed: int) -> Self:
        """The codec with the autoencoder of rows of features that the settings ask for, and its scale."""
        features = torch.from_numpy(self.inputs(rows))
        network = fit_autoencoder(features, settings, seed, self.spec.name)
        with torch.inference_mode():
            scale = float(network.encode(features).square().mean().sqrt())
        return replace(self, network=network, scale=max(scale, 1e-6))

    @classmethod
    def draws(cls, rows: int, settings: AutoencoderSettings) -> bool:  # noqa: ARG003
        """See ``Codec.draws``."""
        return settings.kind == "vae"

    @classmethod
    def note(cls, spec: ModalitySpec, rows: int, settings: AutoencoderSettings) -> str | None:  # noqa: ARG003
        """See ``Codec.note``."""
        return None

    @staticmethod
    def there(spec: ModalitySpec, rows: Rows) -> BoolArray:  # noqa: ARG004
        """Which parts of the samples hold data: (samples,), or (samples, frames) for a kind with frames."""
        return np.ones(len(rows), dtype=np.bool_)

    def with_filler(self, rows: Rows, groups: Sequence[str], seed: int) -> Self:  # noqa: ARG002
        """The codec with a filler for lost parts; a vector has none."""
        return self

    def coupled(
        self,
        rows: Rows,  # noqa: ARG002
        latents: Mapping[str, FloatArray],  # noqa: ARG002
        observed: BoolArray,  # noqa: ARG002
        groups: Sequence[str],  # noqa: ARG002
        seed: int,  # noqa: ARG002
    ) -> Self:
        """See ``Codec.coupled``."""
        return self

    @staticmethod
    def standard_size(spec: ModalitySpec) -> int:
        """See ``Codec.standard_size``."""
        return spec.size

    def standard(self, rows: Rows) -> FloatArray:
        """See ``Codec.standard``."""
        there = self.there(self.spec, rows)
        masked = (rows.array - self.mean) / self.deviation
        masked = masked * there.reshape(there.shape + (1,) * (rows.array.ndim - there.ndim))
        flat: FloatArray = masked.reshape(len(rows), -1).astype(np.float32)
        return flat

    def cut(self, standard: FloatArray, lengths: IntArray | None) -> FloatArray:  # noqa: ARG002
        """See ``Codec.cut``; nothing is padded."""
        return standard

    def inputs(self, rows: Rows) -> FloatArray:
        """See ``Codec.inputs``."""
        limited: FloatArray = np.clip(self.standard(rows), -CLIP, CLIP)
        return limited

    def restore(self, standard: FloatArray) -> FloatArray:
        """See ``Codec.restore``."""
        shaped = standard.reshape(len(standard), *self.spec.shape)
        return np.asarray(shaped * self.deviation + self.mean, dtype=np.float32)

    def lengths(self, standard: FloatArray) -> IntArray | None:  # noqa: ARG002
        """See ``Codec.lengths``."""
        return None

    def pictures(self, standard: FloatArray) -> Pixels | None:  # noqa: ARG002
        """See ``Codec.pictures``."""
        return None

    def render(self, sample: FloatArray, length: int | None) -> Rendering | None:  # noqa: ARG002
        """See ``Codec.render``."""
        return None

    def filled(
        self,
        rows: Rows,
        latents: Mapping[str, FloatArray],  # noqa: ARG002
        observed: Mapping[str, BoolArray],  # noqa: ARG002
    ) -> FloatArray:
        """See ``Codec.filled``."""
        return rows.array

    def filling(self) -> dict[str, float] | None:
        """See ``Codec.filling``."""
        return None

    def scored(self, rows: Rows) -> BoolArray:
        """See ``Codec.scored``."""
        there = self.there(self.spec, rows)
        there = there.reshape(there.shape + (1,) * (len(self.spec.shape) + 1 - there.ndim))
        mask = there & np.broadcast_to(self.varies, self.spec.shape)
        return np.ascontiguousarray(mask.reshape(len(rows), -1))

    @staticmethod
    def low_level(
        spec: ModalitySpec,  # noqa: ARG004
        standard: Float[Tensor, "batch size"],
    ) -> Float[Tensor, "batch feature"]:
        """The features themselves."""
        return standard

    @staticmethod
    def summary(rows: Rows) -> FloatArray:
        """The features themselves."""
        return rows.array

    def state(self) -> dict[str, Tensor]:
        """See ``Codec.state``."""
        return {
            "mean": torch.from_numpy(self.mean),
            "deviation": torch.from_numpy(self.deviation),
            "varies": torch.from_numpy(self.varies),
            "scale": torch.tensor(self.scale, dtype=torch.float64),
            "width": torch.tensor(self.width),
        } | {f"autoencoder/{key}": value for key, value in self.network.state_dict().items()}

    @classmethod
    def load(
        cls,
        spec: ModalitySpec,
        state: Mapping[str, Tensor],
        others: Sequence[str],  # noqa: ARG003
    ) -> Self:
        """See ``Codec.load``."""
        return cls(**cls.parts(spec, state))

    @classmethod
    def parts(cls, spec: ModalitySpec, state: Mapping[str, Tensor]) -> dict[str, Any]:
        """The codec's fields, by name, from ``state``."""
        return {
            "spec": spec,
            "mean": state["mean"].numpy(),
            "deviation": state["deviation"].numpy(),
            "varies": state["varies"].numpy(),
            "network": cls.load_network(spec, state),
            "scale": float(state["scale"]),
        }

    @classmethod
    def load_network(cls, spec: ModalitySpec, state: Mapping[str, Tensor]) -> Autoencoder:
        """The autoencoder from ``state``."""
        weights = part_of(state, "autoencoder")
        return load_autoencoder(cls.standard_size(spec), int(state["width"]), weights)


def part_of(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors under ``name/``, without that prefix."""
    prefix = f"{name}/"
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
