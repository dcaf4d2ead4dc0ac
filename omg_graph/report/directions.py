"""A path through many dimensions as seen from its two principal directions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from omg_graph.record.artifacts import Array

Float64 = npt.NDArray[np.float64]


def principal_directions(*paths: Array) -> tuple[list[Float64], tuple[float, float]]:
    """Several paths in the two directions in which their points, taken together, vary most.

    Each direction points to where the first path ends, so that the same path gives the same picture.

    Args:
        paths: (points, dimensions) each.

    Returns:
        Each path as (points, 2), and the share of the variance along either direction.
    """
    stacked = np.concatenate([np.asarray(path, dtype=np.float64) for path in paths])
    centred = stacked - stacked.mean(axis=0)
    _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
    count = min(2, len(directions))
    seen, shares = np.zeros((len(stacked), 2)), np.zeros(2)
    seen[:, :count] = centred @ directions[:count].T
    seen *= np.where(seen[len(paths[0]) - 1] < 0, -1.0, 1.0)
    shares[:count] = lengths[:count] ** 2 / (float((lengths**2).sum()) or 1.0)
    ends = np.cumsum([len(path) for path in paths])[:-1]
    return np.split(seen, ends), (float(shares[0]), float(shares[1]))
