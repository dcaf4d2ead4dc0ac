"""Cross-validation by group: what each fold trains on, and what it holds out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from omg_graph.data.dataset import IntArray, Split
from omg_graph.data.reader import DataFile
from omg_graph.data.splits import pooled
from omg_graph.errors import ConfigError, DataError
from omg_graph.seeding import derived_seed

POOLED = "train+valid"
"""What results call the rows that folds are made of."""


@dataclass(frozen=True)
class Fold:
    """One fold of a file."""

    number: int
    """From 0."""
    of: int
    data: DataFile
    """Its training rows alone, as the only split ``train``; a part to choose on is still to be held out."""
    held_out: tuple[str, ...]
    """The ids of the rows that it never sees."""
    by_group: bool

    @property
    def note(self) -> str:
        """What a reader may want to know."""
        how = "whole groups" if self.by_group else "rows, for there is only one group"
        return f"fold {self.number} of {self.of}, from 0: {len(self.held_out)} rows held out, {how}"

    def facts(self) -> dict[str, object]:
        """For the manifest."""
        return {"fold": self.number, "folds": self.of, "held_out": list(self.held_out)}


def rows_of_folds(data: DataFile) -> Split:
    """All rows that folds are made of: ``train`` and ``valid`` together, or the only split; never ``test``.

    Raises:
        DataError: if there is nothing to train on, or an id comes twice.
    """
    source = str(data.path)
    if "train" in data.splits:
        return pooled(
            [data.splits[name] for name in ("train", "valid") if name in data.splits], source, POOLED
        )
    if len(data.splits) == 1 and "test" not in data.splits:
        return pooled(list(data.splits.values()), source, POOLED)
    raise DataError(
        f"{source}: expected a split 'train', got {', '.join(data.splits)}; 'test' is never trained on"
    )


def fold_of(data: DataFile, number: int, folds: int) -> Fold:
    """One of ``folds`` folds. Which rows are in it depends on the groups' names and on ``folds`` alone.

    So models of all seeds hold the same rows out, and methods can be paired row by row.

    Raises:
        ConfigError: if there are fewer groups than folds, or no such fold.
        DataError: if there is nothing to train on.
    """
    if folds < 2 or not 0 <= number < folds:
        raise ConfigError(f"--folds: expected 2 or more and a fold among them, got {number} of {folds}")
    rows = rows_of_folds(data)
    assigned: IntArray = group_folds(rows.groups, folds, 0)
    found = int(assigned.max()) + 1
    if found < folds:
        raise ConfigError(f"--folds {folds}: expected at most {found}, one for each group of {data.path}")
    held = assigned == number
    train = replace(rows.take(np.flatnonzero(~held)), name="train")
    return Fold(
        number,
        folds,
        replace(data, splits={"train": train}),
        tuple(np.array(rows.ids)[held].tolist()),
        len(set(rows.groups)) > 1,
    )


def group_folds(groups: tuple[str, ...], folds: int, seed: int) -> IntArray:
    """(rows,): the fold of each row; groups stay whole, folds are as even as they can be.

    With fewer groups than folds there are as many folds as groups; with a single group rows are split.
    scikit-learn's GroupKFold takes no seed and no fewer groups than folds, and would be a new dependency.
    """
    names = list(dict.fromkeys(groups))
    if len(names) == 1:
        return np.random.default_rng(derived_seed(seed, "folds")).permutation(len(groups)) % folds
    order = np.random.default_rng(derived_seed(seed, "folds")).permutation(len(names))
    sizes = {name: groups.count(name) for name in names} if len(names) < 2000 else dict.fromkeys(names, 1)
    loads = np.zeros(min(folds, len(names)), dtype=np.int64)
    assigned: dict[str, int] = {}
    for index in sorted(order, key=lambda i: -sizes[names[i]]):
        lightest = int(loads.argmin())
        assigned[names[index]] = lightest
        loads[lightest] += sizes[names[index]]
    return np.array([assigned[group] for group in groups], dtype=np.int64)
