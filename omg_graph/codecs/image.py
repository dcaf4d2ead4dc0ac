"""Images: the codec of a grid of pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from omg_graph.codecs.codec import Rows, VectorCodec
from omg_graph.data.dataset import FloatArray, ModalitySpec

LOW_LEVEL_GRID, SUMMARY_GRID = 16, 4


class ImageCodec(VectorCodec):
    """(height, width) or (channels, height, width): each pixel a feature, described by coarse copies."""

    @staticmethod
    def low_level(
        spec: ModalitySpec, standard: Float[Tensor, "batch size"]
    ) -> Float[Tensor, "batch feature"]:
        """A coarse copy of each channel."""
        shaped = standard.reshape(len(standard), *spec.shape)
        channels = shaped if shaped.ndim == 4 else shaped.unsqueeze(1)
        grid = (min(LOW_LEVEL_GRID, channels.shape[2]), min(LOW_LEVEL_GRID, channels.shape[3]))
        return F.adaptive_avg_pool2d(channels, grid).flatten(1)

    @staticmethod
    def summary(rows: Rows) -> FloatArray:
        """The mean of each cell of a coarse grid, channel by channel."""
        channels = rows.array.reshape(len(rows), -1, *rows.array.shape[-2:])
        cells = [
            cell.mean(axis=(-2, -1))
            for band in np.array_split(channels, min(SUMMARY_GRID, channels.shape[-2]), axis=-2)
            for cell in np.array_split(band, min(SUMMARY_GRID, channels.shape[-1]), axis=-1)
        ]
        return np.concatenate(cells, axis=1).astype(np.float32)
