"""What is kept of a run for pictures alone: how an estimate takes shape, small."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from omg_graph.codecs.codec import Rows
from omg_graph.data.dataset import FloatArray, IntArray
from omg_graph.model.model import Model
from omg_graph.pipeline import Execution
from omg_graph.record.thumbnails import block_sizes, spaced, thumbnail

STEPS_SHOWN = 25
"""The most steps whose clean estimate is kept."""

CELLS_SHOWN = 1024
"""The most numbers of each of them."""


def emerging(model: Model, execution: Execution, lengths: Mapping[str, IntArray]) -> dict[str, FloatArray]:
    """The clean estimate z_0|t of draw 0 step by step, decoded and made small.

    Args:
        model: Which decodes it.
        execution: What the executor made of a batch.
        lengths: Frames that count of a padded sequence, (samples,).

    Returns:
        Modality to (samples, steps, ...) in standard units: the steps that ``spaced`` names, each a
        ``thumbnail``.
    """
    out = {}
    for name, path in execution.paths.items():
        codec = model.latent_space.codecs[name]
        shape = codec.spec.shape
        blocks = block_sizes(shape, CELLS_SHOWN)
        shown = []
        for step in spaced(len(path.clean), STEPS_SHOWN):
            residual = path.clean[step].to(model.device)
            latents = model.executor.latent_estimate(name, residual, execution.anchors[name])
            standard = codec.standard(Rows(model.latent_space.decode(name, latents), lengths.get(name)))
            shown.append(thumbnail(standard.reshape(-1, *shape), blocks))
        out[name] = np.stack(shown, axis=1)
    return out
