"""Stage: standard units and an autoencoder for each modality, fitted on what is really there."""

from __future__ import annotations

from omg_graph.codecs.latents import LatentSpace
from omg_graph.training.run import RunData


def latent_space(run: RunData) -> LatentSpace:
    """The run's codecs: fitted once, then read from its workspace."""
    if not run.workspace.has("codecs"):
        fitted = LatentSpace.fit(run.train, run.config.autoencoder, run.seed)
        run.workspace.save("codecs", fitted.state(), {})
    tensors, _ = run.workspace.load("codecs")
    return LatentSpace.load(run.train.modalities, tensors)


def frame_filling(space: LatentSpace) -> dict[str, dict[str, float]]:
    """How well lost frames of each sequence are filled, for the manifest: held-out errors, 1 for the mean."""
    return {name: errors for name, codec in space.codecs.items() if (errors := codec.filling())}
