"""Keys and raw queries: the unit-length vectors of what is observed, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from omg_graph.errors import DataError

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
PLAN_VIEW = "plan in words"
"""The view of plans, behind those of modalities, where a model compares entries by them too."""


@dataclass(frozen=True)
class View:
    """One part of a key: where the vector of one modality (or ``psi``) lies in it."""

    name: str
    width: int
    offset: int

    @property
    def columns(self) -> slice:
        """The columns of a key that this view fills."""
        return slice(self.offset, self.offset + self.width)


def side_by_side(widths: Mapping[str, int]) -> tuple[View, ...]:
    """Views of these widths one after the other, in the order given."""
    views, offset = [], 0
    for name, width in widths.items():
        views.append(View(name, width, offset))
        offset += width
    return tuple(views)


def build_keys(
    view_vectors: Mapping[str, npt.NDArray[np.floating]], observed: Mapping[str, BoolArray]
) -> tuple[FloatArray, BoolArray]:
    """Keys of entries, and in the very same way the raw queries of samples.

    Args:
        view_vectors: view name to (rows, width), in any scale; sequences are pooled before. The order of
            the names is the order of the views in the key.
        observed: view name to (rows,), False where a row misses the view; what its vector holds is ignored.

    Returns:
        Keys (rows, sum of widths) with each observed view at unit length and zeros for the others, so that
        an inner product is the sum of per-view cosines, and ``has_view`` (rows, views). A vector of zeros
        stays zero and counts as observed: its cosine with everything is 0.

    Raises:
        DataError: if there is no view, shapes don't agree or an observed vector isn't finite.
    """
    if not view_vectors:
        raise DataError("expected at least one view to build keys from, got none; name the modalities")
    rows = {len(vectors) for vectors in view_vectors.values()}
    parts: list[FloatArray] = []
    flags: list[BoolArray] = []
    for name, vectors in view_vectors.items():
        there = np.asarray(observed[name], dtype=np.bool_)
        if vectors.ndim != 2 or len(rows) > 1 or there.shape != vectors.shape[:1]:
            raise DataError(
                f"view {name}: expected (rows, width) vectors and (rows,) flags for the same rows in every "
                f"view, got {vectors.shape} and {there.shape}; pool sequences and align rows first"
            )
        exact = np.where(there[:, None], vectors, 0.0).astype(np.float64)
        if not np.isfinite(exact).all():
            raise DataError(
                f"view {name}: expected finite vectors, row {_first_bad(exact)} isn't; "
                "mark it as not observed or fill it"
            )
        norms = np.linalg.norm(exact, axis=1, keepdims=True)
        parts.append((exact / np.where(norms > 0.0, norms, 1.0)).astype(np.float32))
        flags.append(there)
    return np.concatenate(parts, axis=1), np.stack(flags, axis=1)


def _first_bad(rows: npt.NDArray[np.float64]) -> int:
    return int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
