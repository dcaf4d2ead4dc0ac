"""Which modalities are hidden in an evaluation: drawn once, written down, the same for every method."""

from __future__ import annotations

import json
import math
from itertools import combinations
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from omg_graph.data.dataset import BoolArray, Split
from omg_graph.errors import DataError, first_fault
from omg_graph.files import write_atomically
from omg_graph.seeding import derived_seed

MAX_MODALITIES = 16
"""For all patterns: there are 2 to the power of their number."""


def random_masks(observed: BoolArray, rate: float, seed: int) -> BoolArray:
    """What to hide so that a share of all slots is missing.

    All (sample, modality) pairs are shuffled by the seed and dropped in that order, save those that would
    leave a sample empty, until round(min(rate, 1 - 1/M) N M) are missing, the ones missing by nature counted.

    Args:
        observed: (N, M), what is there.
        rate: the share of slots to be missing, 0 to 1.
        seed: decides the order.

    Returns:
        (N, M), True where an observed slot is to be hidden.

    Raises:
        DataError: if the rate is no share.
    """
    if not 0.0 <= rate <= 1.0:
        raise DataError(f"expected a missing rate from 0 to 1, got {rate}")
    rows, columns = observed.shape
    left = observed.copy()
    if not observed.size:
        return left
    wanted = round(min(rate, 1.0 - 1.0 / columns) * rows * columns)
    lacking = int((~observed).sum())
    for slot in np.random.default_rng(derived_seed(seed, "missing")).permutation(rows * columns):
        if lacking >= wanted:
            break
        row, column = divmod(int(slot), columns)
        if left[row, column] and left[row].sum() > 1:
            left[row, column] = False
            lacking += 1
    return observed & ~left


def all_patterns(modalities: int) -> BoolArray:
    """(2**M - 1, M): every pattern with something observed, from one modality to all of them.

    Raises:
        DataError: if there are too many to go through.
    """
    if not 1 <= modalities <= MAX_MODALITIES:
        raise DataError(f"expected 1 to {MAX_MODALITIES} modalities for all patterns, got {modalities}")
    chosen = [some for size in range(1, modalities + 1) for some in combinations(range(modalities), size)]
    patterns = np.zeros((len(chosen), modalities), bool)
    for row, some in enumerate(chosen):
        patterns[row, list(some)] = True
    return patterns


class MaskFile(BaseModel):
    """What is observed of each sample, by its id."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modalities: tuple[str, ...]
    seed: int
    nominal_rate: float
    observed: dict[str, tuple[Annotated[int, Field(ge=0, le=1)], ...]]

    @model_validator(mode="after")
    def _has_a_column_for_each(self) -> Self:
        for sample_id, row in self.observed.items():
            if len(row) != len(self.modalities):
                raise ValueError(f"expected {len(self.modalities)} values for {sample_id!r}, got {len(row)}")
        return self

    @classmethod
    def of(cls, split: Split, hidden: BoolArray, *, seed: int, nominal_rate: float) -> MaskFile:
        """The mask of a split in which the marked slots, (samples, modalities), are hidden."""
        left = split.mask() & ~hidden
        observed = {key: tuple(map(int, row)) for key, row in zip(split.ids, left, strict=True)}
        return cls(modalities=split.names, seed=seed, nominal_rate=nominal_rate, observed=observed)

    @classmethod
    def read(cls, path: Path) -> MaskFile:
        """Read a mask.

        Raises:
            DataError: if the file isn't one.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise DataError(f"{path}: expected a mask file: {error.strerror}") from None
        except ValidationError as error:
            raise DataError(f"{path}: expected a mask file, {first_fault(error, 'the file')}") from None

    def write(self, path: Path) -> None:
        """Write the mask atomically: a concurrent reader sees the old or the new file, complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = json.dumps(self.model_dump(mode="json"), ensure_ascii=False) + "\n"
        write_atomically(path, content.encode())

    @property
    def realised_rate(self) -> float:
        """The share of slots that are really missing."""
        slots = [value for row in self.observed.values() for value in row]
        return 1.0 - sum(slots) / len(slots) if slots else math.nan

    def hidden(self, split: Split) -> BoolArray:
        """(samples, modalities): what is observed in the split and not in the mask, by id and name.

        Raises:
            DataError: if the mask doesn't know a sample or a modality of the split.
        """
        strange = [name for name in split.names if name not in self.modalities]
        if strange:
            raise DataError(f"expected a mask for {', '.join(split.names)}, this one lacks {strange[0]!r}")
        columns = [self.modalities.index(name) for name in split.names]
        rows = []
        for sample_id in split.ids:
            if sample_id not in self.observed:
                raise DataError(f"expected a mask for every sample, this one lacks {sample_id!r}")
            rows.append([bool(self.observed[sample_id][column]) for column in columns])
        told = np.array(rows, bool).reshape(len(split), len(columns))
        hidden: BoolArray = split.mask() & ~told
        return hidden
