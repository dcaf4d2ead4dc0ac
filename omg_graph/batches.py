"""Between samples in memory and a batch in the graph's state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from omg_graph.data.dataset import BoolArray, Split
from omg_graph.data.recordings import Recording
from omg_graph.errors import DataError
from omg_graph.files import DataFolder
from omg_graph.record.artifacts import ArtifactStore
from omg_graph.state import Batch, RecordingRef


def store_batch(
    split: Split,
    truth: Split | None,
    hidden: BoolArray | None,
    store: ArtifactStore,
    folder: DataFolder | None = None,
) -> Batch:
    """Put a split's arrays into the store.

    Args:
        split: What is observed.
        truth: The same rows before anything was hidden.
        hidden: (samples, modalities), what was hidden and is really there.
        store: Where arrays go.
        folder: What the paths of recordings are made relative to; they stay whole if None.
    """
    arrays = {name: store.put(split.arrays[name]) for name in split.names}
    batch = Batch(
        ids=split.ids,
        groups=split.groups,
        modalities=split.modalities,
        arrays=arrays,
        observed={name: tuple(rows.tolist()) for name, rows in split.observed.items()},
        lengths={name: tuple(rows.tolist()) for name, rows in split.lengths.items()},
        lost={name: store.put(rows) for name, rows in split.lost.items()},
        raw_text=split.raw_text,
        recordings={
            name: tuple(None if one is None else _reference(one, store, folder) for one in found)
            for name, found in split.recordings.items()
        },
    )
    if truth is None or hidden is None or not hidden.any():
        return batch
    columns = [c for c in range(len(split.names)) if hidden[:, c].any()]
    return batch.model_copy(
        update={
            "truth": {split.names[c]: store.put(truth.arrays[split.names[c]]) for c in columns},
            "hidden": {split.names[c]: tuple(hidden[:, c].tolist()) for c in columns},
        }
    )


def _reference(recording: Recording, store: ArtifactStore, folder: DataFolder | None) -> RecordingRef:
    source, rate = recording.source, recording.rate

    def named(path: Path) -> str:
        return str(path if folder is None else path.relative_to(folder.folder))

    if isinstance(source, Path):
        return RecordingRef(kind=recording.kind, path=named(source), rate=rate)
    # a video has thousands of images: their paths are no small thing either
    array = np.array([named(path) for path in source], np.str_) if isinstance(source, tuple) else source
    return RecordingRef(kind=recording.kind, array=store.put(array), rate=rate)


def load_observation(batch: Batch, store: ArtifactStore, folder: DataFolder | None) -> Split:
    """The samples of a batch, with the recordings behind what is observed.

    Args:
        batch: What ``store_batch`` made.
        store: Where its arrays are.
        folder: The one folder that recordings may lie in; anywhere if None.

    Raises:
        DataError: if a recording lies elsewhere.
    """

    def found(name: str) -> Path:
        return Path(name) if folder is None else folder.find(name, "recording")

    def recording(ref: RecordingRef) -> Recording:
        if ref.path is not None:
            return Recording(ref.kind, found(ref.path), ref.rate)
        if ref.array is None:
            raise DataError("recording: a path or an array was expected, neither came: give one of them")
        array = store.get(ref.array)
        paths = array.dtype.kind == "U"
        return Recording(ref.kind, tuple(map(found, array.tolist())) if paths else array, ref.rate)

    return replace(
        load_split(batch, store),
        recordings={
            name: tuple(None if ref is None else recording(ref) for ref in refs)
            for name, refs in batch.recordings.items()
        },
    )


def load_split(batch: Batch, store: ArtifactStore) -> Split:
    """The samples of a batch without recordings, which nothing past the planner has a use for."""
    return Split(
        name="batch",
        ids=batch.ids,
        groups=batch.groups,
        modalities=batch.modalities,
        arrays={name: store.get(ref) for name, ref in batch.arrays.items()},
        observed={name: np.array(rows, dtype=np.bool_) for name, rows in batch.observed.items()},
        lengths={name: np.array(rows, dtype=np.int64) for name, rows in batch.lengths.items()},
        lost={name: store.get(ref) for name, ref in batch.lost.items()},
        raw_text=batch.raw_text,
    )
