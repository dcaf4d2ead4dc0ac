"""Results of ``omg run`` read again: trajectories, the arrays they refer to and the facts of the run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from omg_graph.data.dataset import FloatArray
from omg_graph.errors import DataError, OmgError
from omg_graph.record.artifacts import Array, ArrayRef
from omg_graph.record.results import ARRAYS, DEVIATION, MEAN, RUN, TRAJECTORIES
from omg_graph.record.run_facts import RunFacts
from omg_graph.record.trajectory import Trajectory

_PLACE = re.compile(re.escape(ARRAYS) + r"#(?P<key>.+)\[(?P<row>\d+)\]")


class SavedArrays:
    """The file of arrays beside trajectories, read array by array."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        if path.is_file():
            try:
                self._file = safe_open(path, framework="numpy")
            except SafetensorError as error:
                raise DataError(
                    f"{path}: a safetensors file was expected ({error}): run the samples again"
                ) from None
        self._keys = frozenset(self._file.keys()) if self._file is not None else frozenset()

    @property
    def there(self) -> bool:
        """Whether there is such a file."""
        return self._file is not None

    def get(self, ref: ArrayRef) -> Array:
        """The array that a reference stands for.

        Raises:
            OmgError: if it isn't there.
        """
        array = self.find(ref)
        if array is None:
            raise OmgError(f"the array {ref.uri} isn't in {self.path}: run the samples again")
        return array

    def find(self, ref: ArrayRef | None) -> Array | None:
        """The array that a reference stands for, or None if it isn't there."""
        place = None if ref is None else _PLACE.fullmatch(ref.uri)
        if place is None or place["key"] not in self._keys:
            return None
        rows = self._file.get_slice(place["key"])
        row = int(place["row"])
        if row >= rows.get_shape()[0]:
            return None
        found: Array = rows[row : row + 1][0]
        return found

    def statistic(self, kind: str, name: str) -> FloatArray | None:
        """A modality's training mean or deviation, in the input's units; None if it isn't there."""
        key = f"{kind}/{name}"
        return np.asarray(self._file.get_tensor(key), np.float32) if key in self._keys else None


@dataclass(frozen=True)
class SavedRun:
    """A folder of results."""

    folder: Path
    trajectories: tuple[Trajectory, ...]
    arrays: SavedArrays
    facts: RunFacts | None
    """None where the trajectories came without their run's facts."""
    lacking: tuple[str, ...] = field(default=())
    """What isn't there, in words for a reader."""

    def trajectory(self, sample_id: str) -> Trajectory:
        """The trajectory of a sample.

        Raises:
            DataError: if there is none.
        """
        for trajectory in self.trajectories:
            if trajectory.id == sample_id:
                return trajectory
        raise DataError(
            f"{self.folder}: there is no sample {sample_id!r}, but "
            f"{_some([t.id for t in self.trajectories])}: name one of them with --id"
        )

    def scale(self, name: str) -> tuple[FloatArray, FloatArray] | None:
        """A modality's training mean and deviation of each feature; None where they aren't there."""
        mean, deviation = self.arrays.statistic(MEAN, name), self.arrays.statistic(DEVIATION, name)
        return None if mean is None or deviation is None else (mean, deviation)


def open_run(path: Path) -> SavedRun:
    """Read results that ``omg run`` wrote.

    Args:
        path: The folder, or its trajectory.jsonl. What lies beside it is read where it is there.

    Raises:
        DataError: if there are no trajectories, or files that can't be read.
    """
    file = path / TRAJECTORIES if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"{path}: a folder that omg run wrote, or its {TRAJECTORIES}, was expected: run omg run first"
        )
    folder = file.parent
    trajectories = _trajectories(file)
    arrays, facts_file = SavedArrays(folder / ARRAYS), folder / RUN
    facts = None
    lacking = []
    if facts_file.is_file():
        facts = _facts(facts_file)
    else:
        lacking.append(f"{RUN} isn't there: features have no names, and words no order")
    if not arrays.there:
        lacking.append(f"{ARRAYS} isn't there: nothing can be drawn of what was reconstructed")
    return SavedRun(folder, trajectories, arrays, facts, tuple(lacking))


def _trajectories(file: Path) -> tuple[Trajectory, ...]:
    found = []
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    found.append(_trajectory(line, f"{file}, line {number}"))
    except UnicodeDecodeError:
        raise DataError(
            f"{file}: one trajectory a line was expected, other bytes came: give {TRAJECTORIES}"
        ) from None
    if not found:
        raise DataError(f"{file}: one trajectory or more was expected, none came: run omg run again")
    return tuple(found)


def _trajectory(line: str, place: str) -> Trajectory:
    try:
        return Trajectory.model_validate_json(line)
    except ValidationError as error:
        raise DataError(
            f"{place}: a trajectory that omg run wrote was expected ({_first(error)}): run it again"
        ) from None


def _facts(file: Path) -> RunFacts:
    try:
        return RunFacts.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise DataError(f"{file}: what omg run wrote was expected ({_first(error)}): run it again") from None


def _first(error: ValidationError) -> str:
    told = error.errors()[0]
    where = ".".join(str(part) for part in told["loc"])
    return f"{where}: {told['msg']}" if where else str(told["msg"])


def _some(ids: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(repr(sample_id) for sample_id in ids[:most])
    return shown + (f" and {len(ids) - most} more" if len(ids) > most else "")
