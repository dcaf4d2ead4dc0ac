"""Samples with some modalities missing, in memory: one split of a data file, checked and uniform."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from unicodedata import category

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from omg_graph.data.recordings import Recording
from omg_graph.errors import DataError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]

TEXT_MODALITY = "text"
"""The modality that ``raw_text`` belongs to: hiding it hides the transcript too."""

ModalityKind = Literal["vector", "sequence", "image", "sound"]


class ModalitySpec(BaseModel):
    """What one modality looks like: its name and the shape of one sample of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str
    """``vector``, ``sequence``, ``image``, ``sound``, or another that a codec is registered for."""
    shape: tuple[int, ...]
    """(features,), (frames, features), (height, width), (channels, height, width), or (samples,) of a sound:
    the longest one's."""
    rate: float | None = Field(default=None, exclude_if=lambda rate: rate is None)
    """Samples per second, of a sound."""

    @property
    def size(self) -> int:
        """Numbers in one sample of this modality."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Labels:
    """The target of a split: numbers, or classes by name."""

    name: str
    kind: Literal["regression", "classes"]
    values: npt.NDArray[np.float64]
    """(samples,): the number, or the index into ``class_names``; NaN where a sample has no label."""
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """Samples of one split, one row each; rows that a modality misses hold zeros and ``observed`` False."""

    name: str
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    modalities: tuple[ModalitySpec, ...]
    arrays: dict[str, FloatArray]
    """Modality name to (samples, *shape), finite everywhere."""
    observed: dict[str, BoolArray]
    """Modality name to (samples,)."""
    lengths: dict[str, IntArray] = field(default_factory=dict)
    """Frames that are really there, (samples,), for padded sequences, and samples of sounds."""
    lost: dict[str, BoolArray] = field(default_factory=dict)
    """Frames within the length that the data don't hold, (samples, frames), for sequences with such gaps
    only; zeros in ``arrays``."""
    raw_text: tuple[str | None, ...] | None = None
    recordings: Mapping[str, tuple[Recording | None, ...]] = field(default_factory=dict)
    """Modality to its recordings, None where there is none or where the modality is missing."""
    labels: Labels | None = None
    unimodal: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    """Modality to (samples,): the target as annotators saw it with that modality alone, NaN where unknown."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, in the order of the data."""
        return tuple(spec.name for spec in self.modalities)

    def mask(self) -> BoolArray:
        """(samples, modalities): what is observed."""
        return np.stack([self.observed[name] for name in self.names], axis=1)

    def take(self, rows: Sequence[int] | npt.NDArray[np.integer]) -> Split:
        """The given rows, in the given order."""
        index = np.asarray(rows, dtype=np.int64)

        def chosen(values: tuple[Any, ...]) -> tuple[Any, ...]:
            return tuple(values[i] for i in index)

        labels = self.labels
        return replace(
            self,
            ids=chosen(self.ids),
            groups=chosen(self.groups),
            arrays={name: array[index] for name, array in self.arrays.items()},
            observed={name: flags[index] for name, flags in self.observed.items()},
            lengths={name: lengths[index] for name, lengths in self.lengths.items()},
            lost={name: frames[index] for name, frames in self.lost.items()},
            raw_text=None if self.raw_text is None else chosen(self.raw_text),
            recordings={name: chosen(recordings) for name, recordings in self.recordings.items()},
            labels=None if labels is None else replace(labels, values=labels.values[index]),
            unimodal={name: values[index] for name, values in self.unimodal.items()},
        )

    def only(self, names: Collection[str]) -> Split:
        """The same samples without their other modalities."""
        kept: dict[str, Any] = {
            part: {name: values for name, values in getattr(self, part).items() if name in names}
            for part in ("arrays", "observed", "lengths", "lost", "recordings", "unimodal")
        }
        return replace(self, modalities=tuple(spec for spec in self.modalities if spec.name in names), **kept)

    def gaps(self, name: str) -> BoolArray | None:
        """(samples, frames): the lost frames of rows that are observed otherwise; None where none is."""
        lost = self.lost.get(name)
        there = None if lost is None else lost & self.observed[name][:, None]
        return there if there is not None and there.any() else None

    def without_labels(self) -> Split:
        """The same samples with nothing that a model should not see."""
        return replace(self, labels=None, unimodal={})

    def hide(self, missing: BoolArray) -> Split:
        """A copy in which the marked slots are missing, transcripts and recordings hidden with them.

        Args:
            missing: (samples, modalities), True where a modality is to be hidden; slots that are missing
                anyway may be marked too.

        Raises:
            DataError: if ``missing`` doesn't have a row for each sample and a column for each modality.
        """
        expected = (len(self), len(self.modalities))
        if missing.shape != expected:
            raise DataError(f"expected a mask of shape {expected}, got {missing.shape}")
        arrays, observed, recordings = dict(self.arrays), dict(self.observed), dict(self.recordings)
        raw_text = self.raw_text
        for column, name in enumerate(self.names):
            hidden = missing[:, column]
            if not hidden.any():
                continue
            observed[name] = self.observed[name] & ~hidden
            arrays[name] = self.arrays[name].copy()
            arrays[name][hidden] = 0.0
            if name == TEXT_MODALITY and raw_text is not None:
                raw_text = tuple(None if gone else text for gone, text in zip(hidden, raw_text, strict=True))
            if name in recordings:
                rows = zip(hidden, recordings[name], strict=True)
                recordings[name] = tuple(None if gone else recording for gone, recording in rows)
        return replace(self, arrays=arrays, observed=observed, raw_text=raw_text, recordings=recordings)


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without its axes of length 1."""
    return tuple(size for size in shape if size != 1)


def group_of(sample_id: str) -> str:
    """The part of an id before ``$_$`` (a video of MMSA's files), else the id itself."""
    return sample_id.split("$_$", 1)[0]


RESULT_SUFFIXES = ("_reconstructed", "_filled", "_draws", "_std", "_lengths")
"""What follows a modality's name in the names of the other arrays of ``reconstruction.npz``."""


def check_names(names: Collection[str]) -> None:
    """Refuse names that results have no place for.

    Raises:
        DataError: if a name is blank, holds a control character, or is that of another array of the results.
    """
    taken = {f"{name}{suffix}": name for name in names for suffix in RESULT_SUFFIXES}
    for name in names:
        if not name.strip():
            raise DataError(f"expected a name for each modality, got {name[:40]!r}: rename the field")
        if any(category(letter) == "Cc" for letter in name):
            raise DataError(
                f"modality {name[:40]!r}: expected a name with no control character in it: rename the field"
            )
        if name == "ids":
            raise DataError(f"modality {name!r}: that name is for the ids in the results: rename the field")
        if name in taken:
            raise DataError(
                f"modality {name[:40]!r}: that name is for an array of modality {taken[name][:40]!r} in the "
                "results: rename the field, or leave it out with --modalities"
            )
