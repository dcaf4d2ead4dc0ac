"""Small copies of arrays, for pictures: neighbouring numbers give way to their mean."""

from __future__ import annotations

import numpy as np

from omg_graph.record.artifacts import Array


def block_sizes(shape: tuple[int, ...], cells: int) -> tuple[int, ...]:
    """How many neighbours along each axis one cell stands for, so that at most ``cells`` are left.

    The axis that has most cells left gives way first. A shape that fits is left as it is, and so are the
    channels of an image.

    Args:
        shape: (features,), (frames, features), (height, width) or (channels, height, width).
        cells: The most cells of the small copy, 1 or more; channels count.
    """
    channels = shape[0] if len(shape) == 3 else 1
    axes = shape[1:] if len(shape) == 3 else shape
    blocks = [1] * len(axes)

    def left() -> list[int]:
        return [-(-size // block) for size, block in zip(axes, blocks, strict=True)]

    while np.prod(left()) * channels > cells and max(left()) > 1:
        longest = int(np.argmax(left()))
        blocks[longest] += 1
    return (1, *blocks) if len(shape) == 3 else tuple(blocks)


def thumbnail(array: Array, blocks: tuple[int, ...]) -> Array:
    """The mean of each block; blocks at the far edges may be smaller.

    Args:
        array: Any number of leading axes, then as many as ``blocks`` has.
        blocks: What ``block_sizes`` says.
    """
    out = np.asarray(array, dtype=np.float64)
    first = out.ndim - len(blocks)
    for axis, block in enumerate(blocks, start=first):
        if block == 1:
            continue
        starts = np.arange(0, out.shape[axis], block)
        counts = np.diff(np.append(starts, out.shape[axis]))
        shape = [1] * out.ndim
        shape[axis] = len(starts)
        out = np.add.reduceat(out, starts, axis=axis) / counts.reshape(shape)
    return out.astype(np.float32)


def spaced(count: int, most: int) -> list[int]:
    """At most ``most`` (two or more) of ``count`` indices, evenly spaced, the first and last among them."""
    if count <= most:
        return list(range(count))
    return sorted({round(index) for index in np.linspace(0, count - 1, most).tolist()})
