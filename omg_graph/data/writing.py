"""Write samples to data files: one alone, or whole splits."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from omg_graph.data.dataset import FloatArray, Split
from omg_graph.data.recordings import Recording
from omg_graph.errors import DataError
from omg_graph.files import write_atomically


def save_sample(path: Path, sample: Split) -> None:
    """Write a split of one sample as a pickle of a plain mapping (protocol 4).

    ``read_data_file`` reads it; missing modalities are None. Recordings in files are named, not copied.

    Raises:
        DataError: if the split hasn't exactly one row, or a recording doesn't lie below the file's folder.
    """
    if len(sample) != 1:
        raise DataError(f"expected one sample, got {len(sample)}: take one row of the split")
    content: dict[str, object] = {"id": sample.ids[0], "group": sample.groups[0]}
    if sample.raw_text is not None:
        content["raw_text"] = sample.raw_text[0]
    for name in sample.names:
        there = bool(sample.observed[name][0])
        content[name] = _with_gaps(sample, name) if there else None
        if there and name in sample.lengths:
            content[f"{name}_lengths"] = int(sample.lengths[name][0])
    for name, (recording,) in sample.recordings.items():
        if recording is not None:
            content[f"raw_{name}"] = _named(recording, path.parent.resolve())
            content[f"raw_{name}_rate"] = recording.rate
    labels = sample.labels
    if labels is not None and np.isfinite(labels.values[0]):
        value = float(labels.values[0])
        content[labels.name] = labels.class_names[int(value)] if labels.kind == "classes" else value
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=4))


def _named(recording: Recording, folder: Path) -> object:
    """What names a recording in a file of this folder: paths, or the array itself."""
    if isinstance(recording.source, np.ndarray):
        return recording.source
    names = []
    for path in recording.paths:
        if not path.resolve().is_relative_to(folder):
            raise DataError(f"{path}: expected a recording below {folder}: copy it there")
        names.append(path.resolve().relative_to(folder).as_posix())
    return names if recording.kind == "video" else names[0]


def _with_gaps(sample: Split, name: str) -> FloatArray:
    """The sample's array, lost frames NaN."""
    array = np.array(sample.arrays[name][0])
    if name in sample.lost:
        array[sample.lost[name][0]] = np.nan
    return array


SUFFIXES = (".npz", ".pkl", ".pickle")


def check_path(path: Path) -> None:
    """See that a data file can be written there.

    Raises:
        DataError: if its name says neither ``.npz`` nor ``.pkl``, or it is a folder.
    """
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        raise DataError(f"expected a file name that ends in .npz or .pkl, got {path}: name such a file")


def save_corpus(path: Path, splits: Mapping[str, Split]) -> None:
    """Write complete splits as ``.npz`` (numbers and strings) or as a pickle in MMSA's layout (protocol 4).

    The same splits give the same bytes.

    Raises:
        DataError: if the name has another ending, a split misses something, or the file can't be written.
    """
    check_path(path)
    fields = {name: _fields(split) for name, split in splits.items()}
    if path.suffix.lower() == ".npz":
        buffer = io.BytesIO()
        arrays = {f"{name}/{key}": value for name, rows in fields.items() for key, value in rows.items()}
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        content = buffer.getvalue()
    else:
        texts = ("id", "group", "raw_text")
        plain = {
            name: {key: value.tolist() if key in texts else value for key, value in rows.items()}
            for name, rows in fields.items()
        }
        content = pickle.dumps(plain, protocol=4)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise DataError(f"{path}: the file can't be written ({error.strerror}): name another place") from None


def _fields(split: Split) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.generic]]]:
    if not split.mask().all() or split.raw_text is None or split.labels is None:
        raise DataError(f"{split.name}: expected complete clips with text and labels: save them as drawn")
    return {
        "id": np.array(split.ids, dtype=np.str_),
        "group": np.array(split.groups, dtype=np.str_),
        "raw_text": np.array(split.raw_text, dtype=np.str_),
        **split.arrays,
        split.labels.name: split.labels.values,
    }
