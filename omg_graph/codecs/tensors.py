"""A latent space as plain tensors, for a model's folder and for a training run's workspace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from omg_graph.codecs.autoencoder import AutoencoderKind, build_autoencoder
from omg_graph.codecs.frames import FrameFiller
from omg_graph.codecs.latents import LatentSpace, ModalityCodec
from omg_graph.codecs.standardise import Standardiser
from omg_graph.data.dataset import ModalitySpec


def codec_tensors(space: LatentSpace) -> dict[str, Tensor]:
    """Everything of a latent space but the modalities' names and shapes."""
    tensors: dict[str, Tensor] = {}
    for number, codec in enumerate(space.codecs.values()):
        tensors[f"{number}/mean"] = torch.from_numpy(codec.standardiser.mean)
        tensors[f"{number}/deviation"] = torch.from_numpy(codec.standardiser.deviation)
        tensors[f"{number}/varies"] = torch.from_numpy(codec.standardiser.varies)
        tensors[f"{number}/scale"] = torch.tensor(codec.scale, dtype=torch.float64)
        tensors[f"{number}/width"] = torch.tensor(codec.width)
        for key, value in codec.autoencoder.state_dict().items():
            tensors[f"{number}/autoencoder/{key}"] = value
        if codec.filler is not None:
            tensors |= {f"{number}/frames/{key}": value for key, value in codec.filler.tensors().items()}
    return tensors


def codecs_from_tensors(
    tensors: Mapping[str, Tensor], specs: Sequence[ModalitySpec], kind: AutoencoderKind
) -> LatentSpace:
    """The latent space that ``codec_tensors`` took apart."""
    codecs = {}
    for number, spec in enumerate(specs):
        prefix = f"{number}/autoencoder/"
        autoencoder = build_autoencoder(kind, spec.size, int(tensors[f"{number}/width"]))
        autoencoder.load_state_dict(
            {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        )
        standardiser = Standardiser(
            spec,
            tensors[f"{number}/mean"].numpy(),
            tensors[f"{number}/deviation"].numpy(),
            tensors[f"{number}/varies"].numpy(),
        )
        autoencoder.eval().requires_grad_(False)
        prefix = f"{number}/frames/"
        kept = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        others = [other.name for other in specs if other.name != spec.name]
        filler = FrameFiller.of_tensors(spec, kept, others) if kept else None
        scale = float(tensors[f"{number}/scale"])
        codecs[spec.name] = ModalityCodec(standardiser, autoencoder, scale, filler)
    return LatentSpace(codecs)
