"""Stage: standard units and an autoencoder for each modality, fitted on what is really there."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from omg_graph.codecs.autoencoder import Autoencoder, PrincipalComponents, VariationalAutoencoder
from omg_graph.codecs.frame_fitting import couple, fit_frame_filler
from omg_graph.codecs.frames import FrameFiller
from omg_graph.codecs.latents import LatentSpace, ModalityCodec
from omg_graph.codecs.standardise import Standardiser
from omg_graph.codecs.tensors import codec_tensors, codecs_from_tensors
from omg_graph.data.dataset import FloatArray, ModalitySpec, Split
from omg_graph.errors import DataError
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
        lengths, gaps = split.lengths.get(spec.name), split.gaps(spec.name)
        standardiser = Standardiser.fit(spec, split.arrays[spec.name], observed, lengths, gaps)
        standard = standardiser.apply(split.arrays[spec.name], lengths, gaps)
        filler = _frame_filler(split, spec, standard, seed)
        if filler is not None and gaps is not None:
            standard = filler.fill(standard, gaps, lengths)
        features = torch.from_numpy(standard[observed])
        autoencoder: Autoencoder
        if settings.kind == "pca":
            autoencoder = PrincipalComponents.fit(features, settings.variance, settings.max_width)
        else:
            autoencoder = _fit_variational(features, settings, seed, spec.name)
        with torch.inference_mode():
            latents = autoencoder.encode(features)
        scale = float(latents.square().mean().sqrt())
        codecs[spec.name] = ModalityCodec(standardiser, autoencoder.eval(), max(scale, 1e-6), filler)
    return _coupled(LatentSpace(codecs), split, seed)


def _frame_filler(split: Split, spec: ModalitySpec, standard: FloatArray, seed: int) -> FrameFiller | None:
    """What fills the lost frames of a sequence, whether any is lost in training or not."""
    if spec.kind != "sequence" or spec.shape[0] == 1:
        return None
    rows = np.flatnonzero(split.observed[spec.name])
    gaps, lengths = split.gaps(spec.name), split.lengths.get(spec.name)
    return fit_frame_filler(
        spec,
        standard[rows],
        None if gaps is None else gaps[rows],
        None if lengths is None else lengths[rows],
        [split.groups[row] for row in rows],
        seed,
    )


def _coupled(space: LatentSpace, split: Split, seed: int) -> LatentSpace:
    """The same space, its frame fillers told what other modalities say of a sequence."""
    if all(codec.filler is None for codec in space.codecs.values()):
        return space
    latents = {name: value.numpy() for name, value in space.encode(split).items()}
    codecs = {}
    for name, codec in space.codecs.items():
        codecs[name] = codec
        if codec.filler is None:
            continue
        rows = np.flatnonzero(split.observed[name])
        gaps, lengths = split.gaps(name), split.lengths.get(name)
        others = [other for other in space.names if other != name]
        filler = couple(
            codec.filler,
            codec.standardiser.apply(split.arrays[name], lengths, gaps)[rows],
            None if gaps is None else gaps[rows],
            None if lengths is None else lengths[rows],
            {other: latents[other][rows] for other in others},
            split.mask()[rows][:, np.array([other != name for other in split.names], bool)],
            [split.groups[row] for row in rows],
            seed,
        )
        codecs[name] = replace(codec, filler=filler)
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


def frame_filling(space: LatentSpace) -> dict[str, dict[str, float]]:
    """How well lost frames of each sequence are filled, for the manifest: held-out errors, 1 for the mean."""
    return {
        name: {
            "factors": filler.components.shape[1],
            "error": round(filler.error, 4),
            "interpolation": round(filler.interpolation_error, 4),
        }
        for name, codec in space.codecs.items()
        if (filler := codec.filler) is not None and not math.isnan(filler.error)
    }


def latent_space(run: RunData) -> LatentSpace:
    """The run's codecs: fitted once, then read from its workspace."""
    if not run.workspace.has("codecs"):
        space = fit_latent_space(run.train, run.config.autoencoder, run.seed)
        run.workspace.save("codecs", codec_tensors(space), {})
    tensors, _ = run.workspace.load("codecs")
    return codecs_from_tensors(tensors, run.train.modalities, run.config.autoencoder.kind)
