"""Samples under way: arrays in memory, and the batch in the graph's state that refers to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, Split
from omg_graph.data.recordings import Recording
from omg_graph.data.request import read_request
from omg_graph.errors import DataError
from omg_graph.files import DataFolder
from omg_graph.model.model import Model
from omg_graph.pipeline import Observation, observe
from omg_graph.record.artifacts import ArrayRef, ArtifactStore
from omg_graph.state import Batch, ReconstructionInput, RecordingRef


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


@dataclass(frozen=True)
class LoadedBatch:
    """A batch in memory."""

    split: Split
    """What is observed, without recordings: nothing past the planner reads them."""
    truth: dict[str, FloatArray]
    """Modality to (samples, ...), of modalities that were hidden somewhere."""
    hidden: dict[str, BoolArray]
    """Modality to (samples,): where it was hidden and is really there."""

    def take(self, rows: IntArray) -> LoadedBatch:
        """The given rows, in the given order; rows may come more than once."""
        return LoadedBatch(
            self.split.take(rows),
            {name: array[rows] for name, array in self.truth.items()},
            {name: flags[rows] for name, flags in self.hidden.items()},
        )


def load_batch(batch: Batch, store: ArtifactStore) -> LoadedBatch:
    """What ``store_batch`` kept, without recordings."""
    split = Split(
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
    return LoadedBatch(
        split,
        {name: store.get(ref) for name, ref in batch.truth.items()},
        {name: np.array(rows, dtype=np.bool_) for name, rows in batch.hidden.items()},
    )


def load_recordings(batch: Batch, store: ArtifactStore, folder: DataFolder | None) -> Split:
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
            raise DataError("recording: expected a path or an array, got neither: give one of them")
        array = store.get(ref.array)
        paths = array.dtype.kind == "U"
        return Recording(ref.kind, tuple(map(found, array.tolist())) if paths else array, ref.rate)

    return replace(
        load_batch(batch, store).split,
        recordings={
            name: tuple(None if ref is None else recording(ref) for ref in refs)
            for name, refs in batch.recordings.items()
        },
    )


OBSERVATION = "observation"
"""Among the embeddings of a state: u_X, latents and label estimates side by side, one array."""


def store_observation(observation: Observation, store: ArtifactStore) -> dict[str, ArrayRef]:
    """Put into the store what ``pipeline.observe`` made: each sample is encoded once in a run."""
    parts = [observation.embedding, *(latents.cpu().numpy() for latents in observation.latents.values())]
    if observation.label_estimates is not None:
        parts.append(observation.label_estimates)
    return {OBSERVATION: store.put(np.concatenate(parts, axis=1))}


def load_observation(
    batch: Batch, embeddings: Mapping[str, ArrayRef], model: Model, store: ArtifactStore
) -> Observation:
    """What ``store_observation`` kept.

    A state that a fork begins with, or one of before latents were kept, has u_X alone: the rest is then made
    from the samples.
    """
    rows = store.get(embeddings[OBSERVATION])
    ends = np.cumsum([model.config.shared_width, *model.latent_space.widths.values()])
    if rows.shape[1] == ends[0]:
        return replace(observe(model, load_batch(batch, store).split), embedding=rows)
    embedding, *latents, estimates = np.split(rows, ends, axis=1)
    observed = np.stack([np.array(batch.observed[name], np.bool_) for name in model.names], axis=1)
    return Observation(
        ids=batch.ids,
        groups=batch.groups,
        raw_text=batch.raw_text,
        # copies: what the store holds is read-only
        latents={
            name: torch.tensor(part, device=model.device)
            for name, part in zip(model.names, latents, strict=True)
        },
        observed=torch.tensor(observed, device=model.device),
        embedding=embedding,
        label_estimates=estimates if estimates.shape[1] else None,
    )


def read_batch(
    request: ReconstructionInput, model: Model, store: ArtifactStore, folder: DataFolder | None = None
) -> Batch:
    """The samples that a caller means, put into the store.

    Raises:
        DataError: if there is no input or more than one, or it can't be used.
    """
    if (request.path is None) == (request.samples is None):
        raise DataError("expected either a path or samples as input, and not both: give one of them")
    asked = read_request(
        request.samples or [] if request.path is None else request.path,
        model.latent_space.specs,
        split=request.split,
        missing=request.missing,
        limit=request.limit,
        folder=folder,
    )
    batch = store_batch(asked.observed, asked.truth, asked.hidden, store, folder)
    return batch.model_copy(update={"notes": asked.notes})
