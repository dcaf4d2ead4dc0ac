"""Lost frames of observed sequences: filled beside whatever else is reconstructed, and told apart."""

from __future__ import annotations

import numpy as np

from omg_graph.data.dataset import FloatArray, Split
from omg_graph.model.model import Model
from omg_graph.record.artifacts import ArtifactStore
from omg_graph.record.trajectory import FilledFrames, Trajectory
from omg_graph.state import Batch

NOTHING_MISSING = "nothing was missing: nothing was reconstructed"


def with_filled_frames(
    model: Model, store: ArtifactStore, trajectories: list[Trajectory], split: Split
) -> list[Trajectory]:
    """The trajectories with the sequences whose lost frames were filled; without gaps they are unchanged.

    Args:
        model: Whose latent space fills them.
        store: Where the filled sequences go.
        trajectories: Of the samples, in order.
        split: The samples.
    """
    rows = sorted(
        {row for gaps in _gaps(split).values() for row in np.flatnonzero(gaps.any(axis=1)).tolist()}
    )
    if not rows:
        return trajectories
    some = split.take(rows)
    filled, gaps = model.latent_space.fill_frames(some), _gaps(some)
    out = list(trajectories)
    for place, row in enumerate(rows):
        update: dict[str, dict[str, object]] = {
            "filled": {},
            "arrays": {},
            "lengths": {},
            "length_source": {},
        }
        notes = []
        for name, array in filled.items():
            frames = np.flatnonzero(gaps[name][place])
            if not len(frames):
                continue
            length = int(some.lengths[name][place]) if name in some.lengths else gaps[name].shape[1]
            update["filled"][name] = FilledFrames(frames=tuple(frames.tolist()), of=length)
            update["arrays"][f"filled/{name}"] = store.put(array[place])
            if name in some.lengths:
                update["lengths"][name], update["length_source"][name] = length, "input"
            notes.append(
                f"{len(frames)} of {length} frames of {name} were lost and filled{_how(model, name)}"
            )
        old = out[row]
        kept = tuple(note for note in old.notes if note != NOTHING_MISSING)
        merged: dict[str, object] = {key: getattr(old, key) | value for key, value in update.items()}
        out[row] = old.model_copy(update=merged | {"notes": tuple(dict.fromkeys((*kept, *notes)))})
    return out


def _gaps(split: Split) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.bool_]]]:
    return {name: gaps for name in split.names if (gaps := split.gaps(name)) is not None}


def _how(model: Model, name: str) -> str:
    if model.latent_space.codecs[name].filling() is None:
        return " by interpolation: the model was trained without anything better"
    return ""


def with_gaps(split: Split, name: str, row: int) -> FloatArray:
    """One sample's array as the data gave it: lost frames NaN."""
    array, lost = split.arrays[name][row], split.lost.get(name)
    return array if lost is None else np.where(lost[row][:, None], np.float32(np.nan), array)


def known_truths(batch: Batch, store: ArtifactStore) -> dict[str, FloatArray]:
    """What was hidden, as the data gave it: lost frames NaN. Modality to (samples, ...)."""
    truths = {name: store.get(ref) for name, ref in batch.truth.items()}
    for name in truths.keys() & batch.lost.keys():
        truths[name] = np.where(store.get(batch.lost[name])[..., None], np.float32(np.nan), truths[name])
    return truths
