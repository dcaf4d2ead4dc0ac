"""Arrays as few letters: for pictures, whose eye sees no more than some hundred levels."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from omg_graph.record.artifacts import Array

LEVELS = {"picture": 0xFF, "curve": 0xFFFF}


def span(arrays: Mapping[str, Array]) -> tuple[float, float]:
    """The least and the largest finite number; (0, 1) where there is none."""
    finite = [part for array in arrays.values() if (part := array[np.isfinite(array)]).size]
    if not finite:
        return 0.0, 1.0
    return float(min(part.min() for part in finite)), float(max(part.max() for part in finite))


def packed(array: Array, low: float, high: float, use: str) -> str:
    """Levels between ``low`` and ``high`` as base64, row by row; the last level stands for no number.

    Args:
        array: Of any shape.
        low: What level 0 stands for.
        high: What the last level but one stands for.
        use: ``picture`` for 255 levels, ``curve`` for 65,535.
    """
    top = LEVELS[use]
    finite = np.isfinite(array)
    share = (np.where(finite, array, low) - low) / ((high - low) or 1.0)
    levels = np.where(finite, np.rint(np.clip(share, 0.0, 1.0) * (top - 1)), top).astype(
        "<u1" if top == 0xFF else "<u2"
    )
    return base64.b64encode(levels.tobytes()).decode("ascii")


def bundle(arrays: Mapping[str, Array], use: str) -> dict[str, Any]:
    """Arrays of one shape on one scale: shape, low, high, levels, and each by its name."""
    low, high = span(arrays)
    shape = next(iter(arrays.values())).shape
    return {
        "shape": list(shape),
        "low": rounded(low),
        "high": rounded(high),
        "levels": LEVELS[use],
        "series": {name: packed(array, low, high, use) for name, array in arrays.items()},
    }


def rounded(number: float) -> float | None:
    """Five significant digits, as JSON can say them: nothing for what isn't finite."""
    return float(f"{number:.5g}") if np.isfinite(number) else None
