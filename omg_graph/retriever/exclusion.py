"""Which entries a sample may see: never itself, and none of its own group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NOBODY = -1
"""The number of a sample or group that no entry belongs to."""


class OwnEntries:
    """Finds the entries that are a sample itself or of its group (the recording, the speaker, the patient).

    The rule holds in training, evaluation and use alike: retrieval that sees its own video looks excellent
    in training and fails on new ones.
    """

    def __init__(self, entry_ids: Sequence[str], entry_groups: Sequence[str]) -> None:
        self._number_of_id = {entry_id: row for row, entry_id in enumerate(entry_ids)}
        self._number_of_group = {group: code for code, group in enumerate(dict.fromkeys(entry_groups))}
        self.entry_groups: IntArray = np.array(
            [self._number_of_group[group] for group in entry_groups], dtype=np.int64
        )

    def own_entry(self, ids: Sequence[str]) -> IntArray:
        """(samples,): the row of the entry made from each sample, or ``NOBODY``."""
        return np.array([self._number_of_id.get(sample_id, NOBODY) for sample_id in ids], dtype=np.int64)

    def own_group(self, groups: Sequence[str], allow_own_group: bool = False) -> IntArray:
        """(samples,): the number of the group to leave out for each sample, or ``NOBODY``."""
        if allow_own_group:
            return np.full(len(groups), NOBODY, dtype=np.int64)
        return np.array([self._number_of_group.get(group, NOBODY) for group in groups], dtype=np.int64)

    def allowed(self, ids: Sequence[str], groups: Sequence[str], allow_own_group: bool = False) -> BoolArray:
        """(samples, entries): True where the entry may serve the sample."""
        entries = np.arange(len(self.entry_groups))
        same_entry = self.own_entry(ids)[:, None] == entries
        same_group = self.own_group(groups, allow_own_group)[:, None] == self.entry_groups
        allowed: BoolArray = ~(same_entry | same_group)
        return allowed
