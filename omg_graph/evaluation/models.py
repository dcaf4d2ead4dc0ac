"""Which models an evaluation measures, and on which rows: a model, one for each seed, or folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omg_graph.data.dataset import BoolArray, Split
from omg_graph.data.reader import DataFile
from omg_graph.errors import ConfigError, ModelError
from omg_graph.model.collection import read_collection
from omg_graph.model.config import Manifest
from omg_graph.model.folder import MANIFEST, read_manifest
from omg_graph.training.folds import rows_of_folds


def model_folders(folder: Path) -> list[Path]:
    """The folder itself if it is a model, else the models in it, by name or in the order of ``models.json``.

    Raises:
        ModelError: if there is none, training was cut off, or two have the same seed and fold.
    """
    if (folder / MANIFEST).is_file() or not folder.is_dir():
        read_manifest(folder)
        return [folder]
    several = read_collection(folder)
    if several is None:
        found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    elif not several.finished:
        raise ModelError(
            f"{folder}: expected finished models, some are still to be trained: go on with --resume"
        )
    else:
        found = [folder / model.folder for model in several.models]
    if not found:
        read_manifest(folder)  # says what is wrong
    kinds = [(manifest.seed, fold_number(manifest)) for manifest in map(read_manifest, found)]
    twice = [kind for kind in kinds if kinds.count(kind) > 1]
    if twice:
        seed, fold = twice[0]
        where = "" if fold is None else f" of fold {fold}"
        raise ModelError(
            f"{folder}: expected models of different seeds, seed {seed}{where} comes twice: "
            "evaluate one model after the other"
        )
    return found


def fold_number(manifest: Manifest) -> int | None:
    """Which fold a model holds out; None of a model that holds out none."""
    fold = manifest.data.get("fold")
    return None if fold is None else int(fold["fold"])


def held_out_rows(manifest: Manifest, ids: Sequence[str]) -> BoolArray | None:
    """(rows,): which of these rows a model of a fold held out; None of a model that holds out none."""
    fold = manifest.data.get("fold")
    if fold is None:
        return None
    held = set(fold["held_out"])
    return np.array([sample in held for sample in ids], np.bool_)


def rows_held_out(folders: Sequence[Path], data: DataFile, split: str | None) -> tuple[Split, str] | None:
    """The rows that models of folds are measured on, each on its own part; None where there are no folds.

    Raises:
        ModelError: if some models are of folds and others aren't, or of other folds.
        ConfigError: if the data aren't those they were trained on, or a split is asked for.
    """
    manifests = [read_manifest(folder) for folder in folders]
    of_folds = [manifest for manifest in manifests if fold_number(manifest) is not None]
    if not of_folds:
        return None
    numbers = {manifest.data["fold"]["folds"] for manifest in of_folds}
    if len(of_folds) < len(manifests) or len(numbers) > 1:
        raise ModelError("expected models of the same folds, got others: evaluate them one by one")
    if split is not None:
        raise ConfigError(
            f"--split {split}: models of folds are measured on the rows that each held out: leave it out"
        )
    for folder, manifest in zip(folders, manifests, strict=True):
        if manifest.data.get("sha256") != data.sha256:
            raise ConfigError(
                f"{folder}: a model of a fold is measured on the rows that it held out of "
                f"{manifest.data.get('file')}, {data.path} is another file: give that one with --data"
            )
    rows = rows_of_folds(data)
    held = np.zeros(len(rows), np.bool_)
    for manifest in manifests:
        part = held_out_rows(manifest, rows.ids)
        held |= False if part is None else part
    found = sorted({fold for manifest in manifests if (fold := fold_number(manifest)) is not None})
    note = f"{int(held.sum())} of {len(rows)} rows, each by the model that held it out (fold"
    note += f"{'s' if len(found) > 1 else ''} {', '.join(map(str, found))} of {numbers.pop()})"
    return rows.take(np.flatnonzero(held)), note
