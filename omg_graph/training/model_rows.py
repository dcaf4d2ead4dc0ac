"""What a trained model's planner is taught on: the rows of a data file, in the model's own shapes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from omg_graph.data.columns import FillNonfinite
from omg_graph.data.dataset import Split
from omg_graph.data.splits import conform, training_splits
from omg_graph.errors import DataError
from omg_graph.model.model import Model
from omg_graph.training.folds import fold_of


@dataclass(frozen=True)
class ModelRows:
    """The rows that a planner learns from and is checked on, in the model's shapes."""

    train: Split
    valid: Split
    facts: dict[str, Any]
    """The file and its hash."""
    notes: tuple[str, ...]
    numbered: bool = False
    """Whether row numbers of the file serve as ids."""


def read_model_rows(
    model: Model,
    path: Path,
    *,
    label: str | None = None,
    fill_nonfinite: FillNonfinite | None = None,
    seed: int | None = None,
    checked: str = "valid",
) -> ModelRows:
    """The training and validation rows of a data file: the very ones that the model had, if it is its own.

    A model of one fold is taught that fold's rows, so that it never sees what it is to be measured on.

    Args:
        model: Whose modalities the rows get.
        path: A pickle or ``.npz``.
        label: The field that holds the label; the model's own target by default.
        fill_nonfinite: What takes the place of single non-finite numbers.
        seed: Decides which rows are held out where there is no ``valid``; the model's own by default.
        checked: Which split takes the place of the rows that training held out.

    Raises:
        DataError: if the file can't be used, or has no such split.
    """
    target, manifest = model.config.target, model.manifest
    read = partial(
        model.read,
        path,
        label=label or (None if target is None else target.name),
        fill_nonfinite=fill_nonfinite,
        leave_out=tuple({"test"} - {checked}),
    )
    data = read()
    own = manifest.data.get("sha256") == data.sha256
    if own and any(split.names != model.names for split in data.splits.values()):
        # which rows the model held out was decided by the modalities that it was trained on
        data = read(modalities=model.names)
    seed = manifest.seed if seed is None else seed
    notes = [*data.notes]
    fold = manifest.data.get("fold") if own else None
    if fold is not None:
        part = fold_of(data, int(fold["fold"]), int(fold["folds"]))
        notes.append(part.note)
        train, valid, note = training_splits(part.data, 0)
    else:
        train, valid, note = training_splits(data, seed)
    if checked != "valid":
        if checked not in data.splits:
            known = ", ".join(dict.fromkeys(("valid", *data.splits)))
            raise DataError(f"{path}: expected a split of {known}, got {checked!r}: name one of them")
        valid = data.splits[checked]
    if not own:
        notes.append(f"{path.name} isn't the file that the model was trained on")
    splits = []
    for split in (train, valid):
        fitted, remarks = conform(split, model.config.modalities, str(path), empty_rows="drop")
        splits.append(fitted)
        notes += remarks
    facts = {"file": path.name, "sha256": data.sha256}
    return ModelRows(splits[0], splits[1], facts, (*notes, note), data.numbered)
