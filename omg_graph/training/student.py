"""The student planner, and the plans that cross-fitted students choose for training pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from omg_graph.data.dataset import BoolArray, Split
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.encoders.text import TextEncoder
from omg_graph.planner.interface import PlannerInput, Sampling
from omg_graph.planner.rerank import rerank
from omg_graph.planner.schema import Plan, Schema
from omg_graph.planner.student import StudentPlanner
from omg_graph.seeding import generator
from omg_graph.training.cache import Content
from omg_graph.training.config import PlanChoiceSettings, StudentSettings
from omg_graph.training.fitting import EpochCallback, Fit, FitSettings, fit
from omg_graph.training.observation_encoder import embed_pairs
from omg_graph.training.rows import IntArray, PlannedRows

STEPS = FitSettings(epochs=60, batch_size=64, learning_rate=1e-3, weight_decay=1e-2, patience=8)
LAYERS, DROPOUT = 1, 0.5
"""Of the language model: little, so that a thousand plans are enough to learn from."""


def build_student(
    schema: Schema, rows: PlannedRows, width: int, settings: StudentSettings, seed: int
) -> StudentPlanner:
    """A student with its first weights; its vocabulary holds the words of the plans."""
    words = {word for plan in rows.plans if plan is not None for value in plan for word in value.split()}
    student = StudentPlanner(
        schema,
        width,
        words=sorted(words),
        width=settings.width,
        layers=LAYERS,
        dropout=DROPOUT,
        label_width=0 if rows.label_estimates is None else rows.label_estimates.shape[1],
        seed=seed,
    )
    if student.label_bias is not None and rows.label_estimates is not None:
        student.label_bias.standardise(rows.label_estimates)
    return student


def fit_student(
    schema: Schema,
    encoder: ObservationEncoder,
    rows: PlannedRows,
    settings: StudentSettings,
    *,
    seed: int,
    allowed: BoolArray | None = None,
    validation: PlannedRows | None = None,
    epochs: int | None = None,
    on_epoch: EpochCallback | None = None,
) -> tuple[StudentPlanner, Fit]:
    """The student, trained to write the teacher's plans from psi of partial observations.

    Args:
        schema: Of its plans.
        encoder: psi.
        rows: Training rows, with label estimates where it is to read them too.
        settings: Width, epochs, and how far a degree spreads.
        seed: Decides everything random.
        allowed: (rows,), the rows that may be used; all by default.
        validation: Rows to choose the best epoch on.
        epochs: Run exactly this many instead (for folds).
        on_epoch: Called after every epoch.
    """
    student = build_student(schema, rows, encoder.config.shared_width, settings, seed)
    soft = student.soft_degrees(settings.degree_spread)
    observed = embed_pairs(encoder, rows, rows.pool.everything)
    checked = validation.checked(seed) if validation is not None else np.zeros(0, dtype=np.int64)
    seen = None if validation is None else embed_pairs(encoder, validation, checked)

    def cost(source: PlannedRows, pairs: IntArray, vectors: Tensor, drops: torch.Generator | None) -> Tensor:
        plans = [plan for row in source.pool.rows[pairs] if (plan := source.plans[row]) is not None]
        return student.loss(
            vectors,
            plans,
            drops,
            label_estimates=source.estimates_of(pairs),
            soft_targets=None if drops is None else soft,
        )

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
        lambda epoch: rows.with_plan(rows.pool.draw(seed + 1, epoch), allowed),
        replace(STEPS, epochs=epochs or settings.epochs),
        seed=seed,
        purpose="student",
        validate=validate if len(checked) else None,
        on_epoch=on_epoch,
    )
    return student, report


@dataclass(frozen=True)
class PairPlans:
    """u_X and the re-ranked plan of every pair; of training pairs by models that never saw their group."""

    training: Tensor
    """(pairs, shared)."""
    validation: Tensor
    training_plans: list[Plan]
    validation_plans: list[Plan]


def choose_plans(
    encoders: Sequence[ObservationEncoder],
    students: Sequence[StudentPlanner],
    rows: PlannedRows,
    checked: PlannedRows,
    train: Split,
    valid: Split,
    folds: IntArray,
    settings: PlanChoiceSettings,
    seed: int,
    *,
    text_encoder: TextEncoder,
) -> Content:
    """The stage: what psi and the student make of every pair.

    Args:
        encoders: psi of all training rows, then of each fold, which never saw that fold.
        students: Likewise.
        rows: The training rows.
        checked: The validation rows.
        train: The training rows.
        valid: The validation rows.
        folds: Each training row's.
        settings: How plans are drawn and chosen.
        seed: Of the draws.
        text_encoder: g.
    """
    observed = torch.zeros(len(rows.pool), text_encoder.width)
    plans: list[Plan] = [()] * len(rows.pool)
    for fold in np.unique(folds).tolist():
        pairs = np.flatnonzero(folds[rows.pool.rows] == fold)
        vectors = embed_pairs(encoders[1 + fold], rows, pairs)
        observed[torch.from_numpy(pairs)] = vectors
        of_fold = plan_pairs(students[1 + fold], text_encoder, train, rows, pairs, vectors, settings, seed)
        for pair, plan in zip(pairs.tolist(), of_fold, strict=True):
            plans[pair] = plan
    every = checked.pool.everything
    validation = embed_pairs(encoders[0], checked, every)
    valid_plans = plan_pairs(students[0], text_encoder, valid, checked, every, validation, settings, seed)
    schema = students[0].schema
    distinct, index = distinct_plans(plans + valid_plans)
    texts = plan_texts(schema, distinct)
    return {
        "training": observed,
        "validation": validation,
        "training_plans": torch.from_numpy(index[: len(plans)]),
        "validation_plans": torch.from_numpy(index[len(plans) :]),
        # A text's embedding differs in its last bits with the texts beside it: a run that goes on from here
        # takes these.
        "text_embeddings": torch.from_numpy(text_encoder.embed(texts)),
    }, {"plans": distinct, "texts": texts}


def plan_pairs(
    student: StudentPlanner,
    text_encoder: TextEncoder,
    split: Split,
    planned: PlannedRows,
    pairs: IntArray,
    embeddings: Tensor,
    settings: PlanChoiceSettings,
    seed: int,
) -> list[Plan]:
    """The re-ranked plan of each pair, drawn as at inference (Eq. 5).

    Args:
        student: Plans.
        text_encoder: g.
        split: The rows.
        planned: Their pairs, with label estimates where the student takes them.
        pairs: (pairs,), those to plan.
        embeddings: (pairs, shared), their u_X.
        settings: How plans are drawn and chosen.
        seed: Of the draws.
    """
    observed, estimates = embeddings.numpy(), planned.estimates_of(pairs)
    proposals = student.propose(
        PlannerInput(
            tuple(split.ids[row] for row in planned.pool.rows[pairs]),
            observed,
            planned.pool.texts(split, pairs),
            label_estimates=None if estimates is None else estimates.numpy(),
        ),
        Sampling(settings.candidates, settings.include_greedy, settings.temperature, settings.top_p),
        seed,
    )
    ranked = rerank(
        student.schema,
        text_encoder,
        proposals,
        observed,
        semantic_weight=settings.semantic_weight,
    )
    return [ranking.best.values for ranking in ranked]


def plan_table(
    schema: Schema, text_encoder: TextEncoder, plans: Sequence[Plan]
) -> tuple[list[Plan], IntArray, Tensor]:
    """Distinct plans, the place of each plan among them, and c_S of the distinct ones.

    Returns:
        The plans, (plans,) indices, and (distinct, constraints + 1, shared) embeddings.
    """
    distinct, index = distinct_plans(plans)
    rows = text_encoder.embed(plan_texts(schema, distinct)).reshape(len(distinct), -1, text_encoder.width)
    return distinct, index, torch.from_numpy(rows)


def distinct_plans(plans: Sequence[Plan]) -> tuple[list[Plan], IntArray]:
    """Distinct plans in the order in which they come, and the place of each plan among them."""
    places: dict[Plan, int] = {}
    index = np.array([places.setdefault(plan, len(places)) for plan in plans], dtype=np.int64)
    return list(places), index


def plan_texts(schema: Schema, plans: Sequence[Plan]) -> list[str]:
    """Each plan in words, then its constraints."""
    return [text for plan in plans for text in (schema.text(plan), *schema.constraint_texts(plan))]
