"""Which split is read for what."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from omg_graph.data.conforming import conform
from omg_graph.data.dataset import Split
from omg_graph.data.naming import check_names
from omg_graph.data.pooling import pooled
from omg_graph.data.reader import DataFile
from omg_graph.errors import DataError
from omg_graph.seeding import derived_seed

ALL = "all"
"""What is asked for to have every row of a file."""
HELD_OUT = 0.1
"""The share of the training rows that stands in for a missing ``valid``."""


def choose_split(data: DataFile, requested: str | None) -> tuple[Split, str]:
    """The split to reconstruct, and a note on which one it is: the only one, else ``test``, else ``valid``.

    ``all`` are all of them as one, unless a split has that name.

    Raises:
        DataError: if the requested split isn't there, or none of these is.
    """
    splits = data.splits
    if requested == ALL and ALL not in splits:
        return pooled(list(splits.values()), str(data.path), ALL), f"all rows: {', '.join(splits)}"
    if requested is not None:
        if requested not in splits:
            raise DataError(
                f"--split: one of {', '.join(splits)} was expected, {requested!r} came ({data.path})"
            )
        return splits[requested], f"split {requested!r}, as asked"
    if len(splits) == 1:
        (name,) = splits
        return splits[name], "the one sample" if data.single else f"split {name!r}, the only one"
    for name in ("test", "valid"):
        if name in splits:
            return splits[name], f"split {name!r}; --split takes another ({', '.join(splits)})"
    raise DataError(f"{data.path}: a split was expected: give --split with one of {', '.join(splits)}")


def training_splits(data: DataFile, seed: int) -> tuple[Split, Split, str]:
    """What to fit on and what to choose on; ``test`` is never among them.

    ``train`` and ``valid`` where both are there; without ``valid`` a tenth of the training rows, by whole
    groups, is held out. A file with one split, whatever its name, or none, is all training rows. Rows with
    nothing observed are left out, and so are modalities that no training row has.

    Args:
        data: the file.
        seed: decides which groups are held out, together with the groups' names alone.

    Returns:
        The training rows, the validation rows, which hold the same modalities, and a note on both.

    Raises:
        DataError: if there is nothing to train on, or nothing to hold out.
    """
    splits, source = data.splits, str(data.path)
    if "train" in splits:
        train = splits["train"]
    elif len(splits) == 1 and "test" not in splits:
        (train,) = splits.values()
    else:
        raise DataError(
            f"{source}: a split 'train' was expected, {', '.join(splits)} came; 'test' is never trained on"
        )
    seen = [spec for spec in train.modalities if train.observed[spec.name].any()]
    if not seen:
        raise DataError(f"{source}: {train.name}: nothing is observed in any row")
    try:
        check_names([spec.name for spec in seen])
    except DataError as error:
        raise DataError(f"{source}: {error}") from None
    known = {spec.name for spec in seen}
    unseen = [name for name in train.names if name not in known]
    train, notes = conform(_only(train, known), seen, source, empty_rows="drop")
    remarks = [f"fitted on {train.name!r} ({len(train)})", *notes]
    if "valid" in splits:
        unseen += [name for name in splits["valid"].names if name not in known and name not in unseen]
    if unseen:
        remarks.append(f"{', '.join(unseen)} left out: no row of {train.name!r} has it")
    if "valid" in splits and splits["valid"] is not train and train.name != "valid":
        valid, notes = conform(_only(splits["valid"], known), seen, source, empty_rows="drop")
        remarks += [f"chosen on 'valid' ({len(valid)})", *notes]
        return train, valid, "; ".join(remarks)
    unread = [name for name in splits if name not in (train.name, "test")]
    if unread:
        remarks.append(f"not read: {', '.join(unread)}; a split to choose on is called 'valid'")
    held, how = _held_out(train, seed, source)
    valid = train.take(np.flatnonzero(held))
    train = train.take(np.flatnonzero(~held))
    remarks += [f"{len(valid)} of them held out to choose on, {how}"]
    return train, valid, "; ".join(remarks)


def _only(split: Split, names: Collection[str]) -> Split:
    """The split without its other modalities."""
    return replace(
        split,
        modalities=tuple(spec for spec in split.modalities if spec.name in names),
        arrays={name: array for name, array in split.arrays.items() if name in names},
        observed={name: rows for name, rows in split.observed.items() if name in names},
        lengths={name: rows for name, rows in split.lengths.items() if name in names},
        lost={name: rows for name, rows in split.lost.items() if name in names},
        recordings={name: rows for name, rows in split.recordings.items() if name in names},
        unimodal={name: values for name, values in split.unimodal.items() if name in names},
    )


def _held_out(train: Split, seed: int, source: str) -> tuple[np.ndarray[tuple[int], np.dtype[np.bool_]], str]:
    if len(train) < 2:
        raise DataError(f"{source}: at least two training samples were expected, {len(train)} came")
    by_group = len(set(train.groups)) > 1
    owners = train.groups if by_group else train.ids
    names = sorted(set(owners))
    order = np.random.default_rng(derived_seed(seed, "held out")).permutation(len(names))
    wanted = max(1, round(HELD_OUT * len(train)))
    chosen: set[str] = set()
    rows = 0
    for position in order[:-1]:
        if rows >= wanted:
            break
        chosen.add(names[position])
        rows += owners.count(names[position])
    held = np.array([owner in chosen for owner in owners], bool)
    how = f"by group ({len(chosen)} of {len(names)})" if by_group else "by row, for there is only one group"
    return held, how
