"""Stages: psi aligned with g, the student planner, and both once more for each fold (cross-fitting)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from omg_graph.data.dataset import BoolArray
from omg_graph.encoders.observation import (
    ObservationEncoder,
    ObservationEncoderConfig,
    contrastive_loss,
)
from omg_graph.encoders.per_modality import PerModality
from omg_graph.planner.schema import Plan, Schema
from omg_graph.planner.student import StudentPlanner
from omg_graph.seeding import generator, seeded
from omg_graph.training.config import EncoderSettings, PlannerSettings
from omg_graph.training.fitting import EpochCallback, Fit, FitSettings, fit
from omg_graph.training.patterns import PatternPool
from omg_graph.training.raw_states import PairStates

IntArray = npt.NDArray[np.int64]
CONTRAST_BATCH = 512


@dataclass(frozen=True)
class PlannedRows:
    """Rows of one split with their latents, their teacher's plans and the missing patterns to train on."""

    latents: Mapping[str, Tensor]
    pool: PatternPool
    plans: Sequence[Plan | None]
    plan_embeddings: Tensor
    """(rows, shared): g of each row's plan; zeros where it has none."""
    plan_ids: Tensor
    """(rows,): equal numbers for equal plans."""
    unimodal: Mapping[str, Tensor] = field(default_factory=dict)
    """Modality to (rows,): the label as annotators saw it with that modality alone, standardised, NaN where
    unknown."""
    states: PairStates | None = None
    """What a large language model makes of each pair's transcript and recordings, if psi reads that."""
    reading: Tensor | None = None
    """(pairs, values): the label as a closed form reads it without the pair's own group, for the student."""

    def embed(self, encoder: ObservationEncoder, pairs: IntArray) -> Tensor:
        """u_X of some pairs, (pairs, shared), with a gradient to psi."""
        latents, visible = self.inputs(pairs)
        raw = None if self.states is None else self.states.of(pairs)
        made: Tensor = encoder(latents, visible, raw)
        return made

    def inputs(self, pairs: IntArray) -> tuple[dict[str, Tensor], Tensor]:
        """Latents and visibility of some pairs."""
        rows = torch.from_numpy(self.pool.rows[pairs])
        visible = torch.from_numpy(self.pool.visible[pairs])
        return {name: value[rows] for name, value in self.latents.items()}, visible

    def planned(self, pairs: IntArray, allowed: BoolArray | None = None) -> IntArray:
        """The pairs whose rows have a plan and are allowed."""
        has = np.array([plan is not None for plan in self.plans], dtype=np.bool_)
        if allowed is not None:
            has &= allowed
        return pairs[has[self.pool.rows[pairs]]]


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
        settings: Steps.
        seed: Decides everything random.
        allowed: (rows,), the rows that may be used; all by default.
        validation: Rows to choose the best epoch on.
        epochs: Run exactly this many instead (for folds).
        on_epoch: Told of every epoch.
    """
    with seeded(seed, "psi"):
        encoder = ObservationEncoder(config)
    if rows.states is not None:
        encoder.standardise_raw(rows.states.among(None if allowed is None else allowed[rows.pool.rows]))
    told = rows.unimodal if settings.unimodal_weight else {}
    with seeded(seed, "unimodal heads"):
        heads = PerModality({name: nn.Linear(config.shared_width, 1) for name in told})

    def loss(batch: IntArray, _epoch: int) -> Tensor:
        index = rows.pool.rows[batch]
        aligned = contrastive_loss(
            rows.embed(encoder, batch), rows.plan_embeddings[index], rows.plan_ids[index]
        )
        if not told:
            return aligned
        latents, _ = rows.inputs(batch)
        error = unimodal_loss(encoder, heads, latents, {name: label[index] for name, label in told.items()})
        return aligned + settings.unimodal_weight * error

    checked = _fixed_pairs(validation, seed)

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
        nn.ModuleDict({"encoder": encoder, "heads": heads}) if told else encoder,
        loss,
        lambda epoch: rows.planned(rows.pool.draw(seed, epoch), allowed),
        FitSettings.of(settings, epochs),
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


def build_student(
    schema: Schema, rows: PlannedRows, width: int, settings: PlannerSettings, seed: int
) -> StudentPlanner:
    """A student with its first weights; its vocabulary holds the words of the plans."""
    words = {word for plan in rows.plans if plan is not None for value in plan for word in value.split()}
    student = StudentPlanner(
        schema,
        width,
        words=sorted(words),
        width=settings.width,
        layers=settings.layers,
        dropout=settings.dropout,
        reading=0 if rows.reading is None else rows.reading.shape[1],
        seed=seed,
    )
    if student.reading is not None and rows.reading is not None:
        student.reading.standardise(rows.reading)
    return student


def fit_student(
    schema: Schema,
    encoder: ObservationEncoder,
    rows: PlannedRows,
    settings: PlannerSettings,
    *,
    seed: int,
    allowed: BoolArray | None = None,
    validation: PlannedRows | None = None,
    epochs: int | None = None,
    on_epoch: EpochCallback | None = None,
) -> tuple[StudentPlanner, Fit]:
    """The student, taught to write the teacher's plans from psi of partial observations.

    Args:
        schema: Of its plans.
        encoder: psi.
        rows: Training rows, with the label reading where it is to read that too.
        settings: Sizes and steps.
        seed: Decides everything random.
        allowed: (rows,), the rows that may be used; all by default.
        validation: Rows to choose the best epoch on.
        epochs: Run exactly this many instead (for folds).
        on_epoch: Told of every epoch.
    """
    student = build_student(schema, rows, encoder.config.shared_width, settings, seed)
    taught = student.blurred_degrees(settings.degree_spread)
    observed = embed_pairs(encoder, rows, np.arange(len(rows.pool), dtype=np.int64))
    checked = _fixed_pairs(validation, seed)
    seen = None if validation is None else embed_pairs(encoder, validation, checked)

    def cost(source: PlannedRows, pairs: IntArray, vectors: Tensor, drops: torch.Generator | None) -> Tensor:
        plans = [plan for row in source.pool.rows[pairs] if (plan := source.plans[row]) is not None]
        reading = None if source.reading is None else source.reading[torch.from_numpy(pairs)]
        return student.loss(vectors, plans, drops, reading=reading, taught=None if drops is None else taught)

    def loss(batch: IntArray, epoch: int) -> Tensor:
        drops = generator(seed, "student dropout", epoch, int(batch[0]))
        return cost(rows, batch, observed[torch.from_numpy(batch)], drops)

    def validate() -> float:
        if validation is None or seen is None:
            raise ValueError("no validation rows")
        return float(cost(validation, checked, seen, None))

    report = fit(
        student,
        loss,
        lambda epoch: rows.planned(rows.pool.draw(seed + 1, epoch), allowed),
        FitSettings.of(settings, epochs),
        seed=seed,
        purpose="student",
        validate=validate if len(checked) else None,
        on_epoch=on_epoch,
    )
    return student, report


def _fixed_pairs(validation: PlannedRows | None, seed: int) -> IntArray:
    """A few patterns of every validation row, the same at every call."""
    if validation is None:
        return np.zeros(0, dtype=np.int64)
    drawn = np.concatenate([validation.pool.draw(seed, -1 - turn) for turn in range(3)])
    return validation.planned(drawn)
