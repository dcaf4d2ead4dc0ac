"""Stage: standard units and an autoencoder for each modality, fitted on what is really there."""

from __future__ import annotations

import numpy as np
import torch

from omg_graph.encoders.standardise import Standardiser
from omg_graph.errors import DataError
from omg_graph.executor.autoencoder import Autoencoder, PrincipalComponents, VariationalAutoencoder
from omg_graph.executor.latents import LatentSpace, ModalityCodec
from omg_graph.model.codecs import codec_tensors, codecs_from_tensors
from omg_graph.samples.dataset import Split
from omg_graph.seeding import generator, seeded
from omg_graph.training.config import AutoencoderSettings
from omg_graph.training.fitting import FitSettings, fit
from omg_graph.training.run import RunData


def fit_latent_space(split: Split, settings: AutoencoderSettings, seed: int) -> LatentSpace:
    """Codecs of all modalities.

    Raises:
        DataError: if a modality is there in fewer than two rows.
    """
    codecs = {}
    for spec in split.modalities:
        observed = split.observed[spec.name]
        if int(observed.sum()) < 2:
            raise DataError(
                f"modality {spec.name} is there in {int(observed.sum())} of {len(split)} training rows, at "
                "least 2 are needed: leave it out with --modalities"
            )
        lengths = split.lengths.get(spec.name)
        standardiser = Standardiser.fit(spec, split.arrays[spec.name], observed, lengths)
        features = torch.from_numpy(standardiser.apply(split.arrays[spec.name], lengths)[observed])
        autoencoder: Autoencoder
        if settings.kind == "pca":
            autoencoder = PrincipalComponents.fit(features, settings.variance, settings.max_width)
        else:
            autoencoder = _fit_variational(features, settings, seed, spec.name)
        with torch.inference_mode():
            latents = autoencoder.encode(features)
        scale = float(latents.square().mean().sqrt())
        codecs[spec.name] = ModalityCodec(standardiser, autoencoder.eval(), max(scale, 1e-6))
    return LatentSpace(codecs)


def _fit_variational(
    features: torch.Tensor, settings: AutoencoderSettings, seed: int, name: str
) -> VariationalAutoencoder:
    width = min(settings.max_width, features.shape[1])
    with seeded(seed, "vae", name):
        model = VariationalAutoencoder(features.shape[1], width)

    def examples(epoch: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        order = torch.randperm(len(features), generator=generator(seed, "vae", name, epoch))
        return order.numpy()

    def loss(batch: np.ndarray[tuple[int], np.dtype[np.int64]], epoch: int) -> torch.Tensor:
        noise = torch.randn(len(batch), width, generator=generator(seed, "vae", name, epoch, int(batch[0])))
        return model.loss(features[batch], noise, settings.divergence_weight)

    fit(
        model,
        loss,
        examples,
        FitSettings(settings.epochs, 64, 1e-3, 0.0),
        seed=seed,
        purpose=f"vae {name}",
    )
    return model


def latent_space(run: RunData) -> LatentSpace:
    """The run's codecs: fitted once, then read from its workspace."""
    if not run.workspace.has("codecs"):
        space = fit_latent_space(run.train, run.config.autoencoder, run.seed)
        run.workspace.save("codecs", codec_tensors(space), {})
    tensors, _ = run.workspace.load("codecs")
    return codecs_from_tensors(tensors, run.train.modalities, run.config.autoencoder.kind)
