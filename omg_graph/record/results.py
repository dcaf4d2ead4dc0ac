"""A folder of results: reconstructions, trajectories, their arrays and facts of the run; written and read."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from omg_graph.data.dataset import FloatArray, ModalitySpec, check_names
from omg_graph.errors import DataError, OmgError, first_fault
from omg_graph.files import whole_folder
from omg_graph.record.artifacts import Array, ArrayRef, ArtifactStore
from omg_graph.record.trajectory import Trajectory

if TYPE_CHECKING:
    from omg_graph.model.model import Model
    from omg_graph.state import Settings

RECONSTRUCTION = "reconstruction.npz"
TRAJECTORIES = "trajectory.jsonl"
ARRAYS = "arrays.safetensors"
RUN = "run.json"
REPORT = "report.html"
OURS = {RECONSTRUCTION, TRAJECTORIES, ARRAYS, RUN, REPORT}

MEAN, DEVIATION = "training_mean", "training_deviation"
"""Arrays beside those of the trajectories: of each modality's features, in the input's units."""

_PLACE = re.compile(re.escape(ARRAYS) + r"#(?P<key>.+)\[(?P<row>\d+)\]")


class RunFacts(BaseModel):
    """Enough to tell a run's story without its model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(description="Of omg-graph.")
    model: str = Field(description="The model's name.")
    fingerprint: str
    synthetic: bool = Field(description="Whether the model was trained on simulated data.")
    modalities: tuple[ModalitySpec, ...]
    feature_names: dict[str, tuple[str, ...]] = {}
    feature_units: dict[str, tuple[str, ...]] = {}
    label: str | None = Field(default=None, description="What is predicted.")
    degrees: dict[str, float] | None = Field(
        default=None, description="The number that each word of an ordered label stands for."
    )
    settings: dict[str, JsonValue] = {}

    @classmethod
    def of(cls, model: Model, settings: Settings) -> RunFacts:
        """The facts of a run that is about to start."""
        config = model.config
        return cls(
            version=version("omg-graph"),
            model=config.name,
            fingerprint=model.manifest.fingerprint,
            synthetic=config.synthetic,
            modalities=model.latent_space.specs,
            feature_names=config.feature_names,
            feature_units=config.feature_units,
            label=None if config.target is None else config.target.name,
            degrees=model.schema.degrees,
            settings=settings.model_dump(mode="json"),
        )


class ResultWriter:
    """Takes trajectories one by one, as they are made, and writes the folder at the end, whole."""

    def __init__(self, model: Model, settings: Settings) -> None:
        check_names(model.names)
        self.facts = RunFacts.of(model, settings)
        self.specs = {spec.name: spec for spec in self.facts.modalities}
        self.draws = settings.draws
        self.trajectories: list[Trajectory] = []
        self._points: dict[str, dict[int, Array]] = {}
        self._drawn: dict[str, dict[int, Array]] = {}
        self._filled: dict[str, dict[int, Array]] = {}
        self._kept: dict[str, list[Array]] = {}
        self._statistics: dict[str, Array] = {}
        for name, codec in model.latent_space.codecs.items():
            self._statistics[f"{MEAN}/{name}"] = codec.mean
            self._statistics[f"{DEVIATION}/{name}"] = codec.deviation

    def add(self, trajectory: Trajectory, store: ArtifactStore) -> None:
        """Take a trajectory and, while the store has them, its arrays."""
        row = len(self.trajectories)
        for name, ref in trajectory.reconstruction.items():
            self._points.setdefault(name, {})[row] = store.get(ref)
        refs = {f"reconstruction/{name}": ref for name, ref in trajectory.reconstruction.items()}
        moved = {}
        for key, ref in (trajectory.arrays | refs).items():
            array = store.get(ref)
            kind, _, name = key.partition("/")
            if kind == "draws":
                self._drawn.setdefault(name, {})[row] = array
            if kind == "filled":
                self._filled.setdefault(name, {})[row] = array
            rows = self._kept.setdefault(self._place(key, array), [])
            moved[key] = ref.model_copy(update={"uri": f"{ARRAYS}#{self._place(key, array)}[{len(rows)}]"})
            rows.append(array)
        self.trajectories.append(
            trajectory.model_copy(
                update={
                    "reconstruction": {n: moved[f"reconstruction/{n}"] for n in trajectory.reconstruction},
                    "arrays": {key: moved[key] for key in trajectory.arrays},
                }
            )
        )

    def _place(self, key: str, array: Array) -> str:
        """Arrays of one kind and shape are stacked: a header for each would outgrow the data."""
        shape = "x".join(str(size) for size in array.shape)
        return f"{key}/{shape}"

    def write(self, folder: Path, *, single: bool) -> None:
        """Write the folder; results of an earlier run there are replaced whole.

        Raises:
            OmgError: if something else lies there.
        """
        check_output(folder)
        with whole_folder(folder, replace=True) as made:
            with (made / RECONSTRUCTION).open("wb") as file:
                save_npz(file, self.reconstruction(single=single))
            with (made / TRAJECTORIES).open("w", encoding="utf-8") as lines:
                for trajectory in self.trajectories:
                    lines.write(json.dumps(document(trajectory), ensure_ascii=False, allow_nan=False) + "\n")
            stacked = {key: np.stack(rows) for key, rows in sorted(self._kept.items())}
            save_file(stacked | self._statistics, made / ARRAYS)
            (made / RUN).write_text(self.facts.model_dump_json(indent=2) + "\n", "utf-8")

    def reconstruction(self, *, single: bool) -> dict[str, npt.NDArray[Any]]:
        """The arrays of ``reconstruction.npz``; for a single sample without a leading axis."""
        count = len(self.trajectories)
        out: dict[str, npt.NDArray[Any]] = {"ids": np.array([t.id for t in self.trajectories])}
        for name, spec in self.specs.items():
            points, filled = self._points.get(name, {}), self._filled.get(name, {})
            if not points and not filled:
                continue
            rows = np.full((count, *spec.shape), np.nan, dtype=np.float32)
            made = np.zeros(count, dtype=np.bool_)
            for row, point in points.items():
                rows[row], made[row] = point, True
            for row, sequence in filled.items():
                rows[row] = sequence
            out[name] = rows[0] if single else rows
            out[f"{name}_reconstructed"] = made
            if filled:
                out[f"{name}_filled"] = self._made_up(name, made)
            if self.draws > 1 and name in self._drawn:
                drawn = np.full((count, self.draws, *spec.shape), np.nan, dtype=np.float32)
                for row, array in self._drawn[name].items():
                    drawn[row] = array
                deviation = drawn.std(axis=1, ddof=1)
                out[f"{name}_draws"] = drawn[0] if single else drawn
                out[f"{name}_std"] = deviation[0] if single else deviation
            lengths = [t.lengths.get(name) for t in self.trajectories]
            if any(length is not None for length in lengths):
                out[f"{name}_lengths"] = np.array([length or 0 for length in lengths], dtype=np.int64)
        return out

    def _made_up(self, name: str, reconstructed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """(samples, frames): lost frames that were filled, and every frame of what was reconstructed."""
        frames = self.specs[name].shape[0]
        made = np.zeros((len(self.trajectories), frames), dtype=np.bool_)
        for row, trajectory in enumerate(self.trajectories):
            if reconstructed[row]:
                made[row, : trajectory.lengths.get(name, frames)] = True
            elif name in trajectory.filled:
                made[row, list(trajectory.filled[name].frames)] = True
        return made


def save_npz(file: IO[bytes], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as ``numpy.savez`` does, which would take some names for options of its own."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def document(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as JSON."""
    plain: dict[str, Any] = trajectory.model_dump(mode="json", exclude={"candidates"})
    return plain


def check_output(folder: Path) -> None:
    """Refuse to write where something other than results lies.

    Raises:
        OmgError: if the folder is a file, or holds anything that a run didn't write.
    """
    place = folder.resolve()
    if place == Path.cwd():
        raise OmgError(
            f"--output {folder}: the folder you are in can't be replaced: name one inside it, or leave it"
        )
    if folder.is_dir():
        others = sorted(path.name for path in folder.iterdir() if path.name not in OURS)
        if others:
            raise OmgError(
                f"--output {folder}: an empty or new folder, or results of an earlier run, were expected; "
                f"it holds {others[0]!r}: choose another folder"
            )
    elif folder.exists():
        raise OmgError(f"--output {folder}: expected a folder, a file is there: choose another name")
    above = next((parent for parent in place.parents if parent.exists()), place)
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise OmgError(
            f"--output {folder}: expected a place to write, {above} can't be written to: choose another"
        )


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

    def scale(self, name: str) -> tuple[FloatArray, FloatArray] | None:
        """A modality's training mean and deviation, in the input's units; None where they aren't there."""
        keys = [f"{kind}/{name}" for kind in (MEAN, DEVIATION)]
        if not self._keys.issuperset(keys):
            return None
        mean, deviation = (np.asarray(self._file.get_tensor(key), np.float32) for key in keys)
        return mean, deviation


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
            f"{path}: expected a folder that omg run wrote, or its {TRAJECTORIES}: run omg run first"
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
            f"{file}: expected one trajectory a line, got other bytes: give {TRAJECTORIES}"
        ) from None
    if not found:
        raise DataError(f"{file}: expected one trajectory or more, got none: run omg run again")
    return tuple(found)


def _trajectory(line: str, place: str) -> Trajectory:
    try:
        return Trajectory.model_validate_json(line)
    except ValidationError as error:
        raise DataError(
            f"{place}: expected a trajectory that omg run wrote ({first_fault(error)}): run it again"
        ) from None


def _facts(file: Path) -> RunFacts:
    try:
        return RunFacts.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise DataError(f"{file}: expected what omg run wrote ({first_fault(error)}): run it again") from None


def _some(ids: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(repr(sample_id) for sample_id in ids[:most])
    return shown + (f" and {len(ids) - most} more" if len(ids) > most else "")
