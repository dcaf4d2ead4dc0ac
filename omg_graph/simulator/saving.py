"""Write simulated clips to a data file that reads like any other."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from omg_graph.data.dataset import Split
from omg_graph.errors import DataError
from omg_graph.files import write_atomically

SUFFIXES = (".npz", ".pkl", ".pickle")


def check_path(path: Path) -> None:
    """See that a data file can be written there.

    Raises:
        DataError: if its name says neither ``.npz`` nor ``.pkl``, or it is a folder.
    """
    if path.suffix.lower() not in SUFFIXES or path.is_dir():
        raise DataError(f"a file name that ends in .npz or .pkl was expected, {path} came: name such a file")


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
        raise DataError(
            f"{split.name}: complete clips with text and labels were expected: save them as drawn"
        )
    return {
        "id": np.array(split.ids, dtype=np.str_),
        "group": np.array(split.groups, dtype=np.str_),
        "raw_text": np.array(split.raw_text, dtype=np.str_),
        **split.arrays,
        split.labels.name: split.labels.values,
    }
