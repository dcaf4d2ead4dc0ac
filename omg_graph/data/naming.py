"""Which names modalities may have: results put an array for each beside others that are named after it."""

from __future__ import annotations

from collections.abc import Collection
from unicodedata import category

from omg_graph.errors import DataError

IDS = "ids"
SUFFIXES = ("_reconstructed", "_filled", "_draws", "_std", "_lengths")
"""What follows a modality's name in the names of the other arrays of ``reconstruction.npz``."""


def check_names(names: Collection[str]) -> None:
    """Refuse names that results have no place for.

    Raises:
        DataError: if a name is blank, holds a control character, or is that of another array of the results.
    """
    taken = {f"{name}{suffix}": name for name in names for suffix in SUFFIXES}
    for name in names:
        if not name.strip():
            raise DataError(f"a name for each modality was expected, {name[:40]!r} came: rename the field")
        if any(category(letter) == "Cc" for letter in name):
            raise DataError(
                f"modality {name[:40]!r}: a name with no control character in it was expected: "
                "rename the field"
            )
        if name == IDS:
            raise DataError(f"modality {name!r}: that name is for the ids in the results: rename the field")
        if name in taken:
            raise DataError(
                f"modality {name[:40]!r}: that name is for an array of modality {taken[name][:40]!r} in the "
                "results: rename the field, or leave it out with --modalities"
            )
