"""psi, aligned with g by a contrastive loss on partial observations (section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from omg_graph.data.dataset import BoolArray
from omg_graph.encoders.observation import (
    ObservationEncoder,
    ObservationEncoderConfig,
    contrastive_loss,
)
from omg_graph.encoders.per_modality import PerModality
from omg_graph.seeding import seeded
from omg_graph.training.config import EncoderSettings
from omg_graph.training.fitting import EpochCallback, Fit, FitSettings, fit
from omg_graph.training.rows import IntArray, PlannedRows

STEPS = FitSettings(epochs=60, batch_size=64, learning_rate=1e-3, weight_decay=1e-2, patience=12)
CONTRAST_BATCH = 512


def encoder_config(
    latents: Mapping[str, Tensor], settings: EncoderSettings, shared_width: int, raw_width: int
) -> ObservationEncoderConfig:
    """Psi's sizes, for the training rows' latents."""
    return ObservationEncoderConfig(
        widths={name: value.shape[1] for name, value in latents.items()},
        scales={name: max(float(value.square().mean().sqrt()), 1e-6) for name, value in latents.items()},
        shared_width=shared_width,
        hidden=settings.hidden,
        dropout=settings.dropout,
        raw_width=raw_width,
    )


def embed_pairs(encoder: ObservationEncoder, rows: PlannedRows, pairs: IntArray) -> Tensor:
    """u_X of some pairs, without a gradient, (pairs, shared)."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(pairs), 1024):
            parts.append(rows.embed(encoder, pairs[start : start + 1024]))
    return torch.cat(parts) if parts else torch.zeros(0, encoder.config.shared_width)


def fit_observation_encoder(
    config: ObservationEncoderConfig,
    rows: PlannedRows,
    settings: EncoderSettings,
    *,
    seed: int,
    allowed: BoolArray | None = None,
    validation: PlannedRows | None = None,
    epochs: int | None = None,
    on_epoch: EpochCallback | None = None,
) -> tuple[ObservationEncoder, Fit]:
    """psi, aligned with g by a contrastive loss on partial observations.

    Args:
        config: Sizes.
        rows: Training rows.
        settings: Epochs, and what unimodal labels count.
        seed: Decides everything random.
        allowed: (rows,), the rows that may be used; all by default.
        validation: Rows to choose the best epoch on.
        epochs: Run exactly this many instead (for folds).
        on_epoch: Called after every epoch.
    """
    with seeded(seed, "psi"):
        encoder = ObservationEncoder(config)
    if rows.states is not None:
        encoder.standardise_raw(rows.states.among(None if allowed is None else allowed[rows.pool.rows]))
    unimodal = rows.unimodal if settings.unimodal_weight else {}
    with seeded(seed, "unimodal heads"):
        heads = PerModality({name: nn.Linear(config.shared_width, 1) for name in unimodal})

    def loss(batch: IntArray, _epoch: int) -> Tensor:
        index = rows.pool.rows[batch]
        aligned = contrastive_loss(
            rows.embed(encoder, batch), rows.plan_embeddings[index], rows.plan_ids[index]
        )
        if not unimodal:
            return aligned
        latents, _ = rows.inputs(batch)
        error = unimodal_loss(
            encoder, heads, latents, {name: label[index] for name, label in unimodal.items()}
        )
        return aligned + settings.unimodal_weight * error

    checked = validation.checked(seed) if validation is not None else np.zeros(0, dtype=np.int64)

    def validate() -> float:
        if validation is None:
            raise ValueError("no validation rows")
        losses = []
        for start in range(0, len(checked), CONTRAST_BATCH):
            pairs = checked[start : start + CONTRAST_BATCH]
            index = validation.pool.rows[pairs]
            observed = embed_pairs(encoder, validation, pairs)
            losses.append(
                float(
                    contrastive_loss(observed, validation.plan_embeddings[index], validation.plan_ids[index])
                )
            )
        return float(np.mean(losses))

    report = fit(
        nn.ModuleDict({"encoder": encoder, "heads": heads}) if unimodal else encoder,
        loss,
        lambda epoch: rows.with_plan(rows.pool.draw(seed, epoch), allowed),
        replace(STEPS, epochs=epochs or settings.epochs),
        seed=seed,
        purpose="psi",
        validate=validate if len(checked) else None,
        on_epoch=on_epoch,
    )
    return encoder, report


def unimodal_loss(
    encoder: ObservationEncoder,
    heads: PerModality,
    latents: Mapping[str, Tensor],
    labels: Mapping[str, Tensor],
) -> Tensor:
    """How far a linear head on psi of each modality alone is from that modality's own label.

    Args:
        encoder: psi.
        heads: One output for each modality that has such labels; they serve training alone.
        latents: (rows, latent).
        labels: (rows,), standardised, NaN where there is none.

    Returns:
        The mean squared error over all labels there are.
    """
    errors = []
    for name, label in labels.items():
        known = ~label.isnan()
        if known.any():
            guess = heads[name](encoder.embed_one(name, latents[name][known]))[:, 0]
            errors.append((guess - label[known]).square())
    return torch.cat(errors).mean() if errors else torch.zeros(())
