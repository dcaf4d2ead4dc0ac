"""Stage: psi and the student, and what they make of training and validation pairs, cross-fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.executor.latents import LatentSpace
from omg_graph.planner.schema import Plan
from omg_graph.planner.student import StudentPlanner
from omg_graph.samples.dataset import Split
from omg_graph.seeding import seeded
from omg_graph.training.fold_pairs import plan_pairs, plan_table
from omg_graph.training.model_config import encoder_config
from omg_graph.training.pairs import IntArray
from omg_graph.training.patterns import PatternPool
from omg_graph.training.run import RunData
from omg_graph.training.understanding import (
    PlannedRows,
    build_student,
    embed_pairs,
    fit_observation_encoder,
    fit_student,
)
from omg_graph.training.workspace import weights_of


@dataclass
class Understanding:
    """psi and the student, and what they make of training and validation pairs."""

    encoder: ObservationEncoder
    student: StudentPlanner
    training: Tensor
    """u_X of the training pairs, cross-fitted."""
    validation: Tensor
    training_plans: list[Plan]
    """The re-ranked plan of each training pair, cross-fitted."""
    validation_plans: list[Plan]
    facts: dict[str, Any]


def understand(run: RunData, space: LatentSpace) -> Understanding:
    """Psi and the student on all training rows, and once more for each fold."""
    rows = _planned(run, run.train, run.choice.plans, run.train_pool, space)
    checked = _planned(run, run.valid, run.valid_plans, run.valid_pool, space)
    encoder, student, facts = _reader(run, "reader", rows, checked, None, None)
    if not run.workspace.has("pairs"):
        _save_pairs(run, rows, checked, encoder, student, facts)
    tensors, kept = run.workspace.load("pairs")
    # A text's embedding differs in its last bits with the texts beside it: a run that goes on from here
    # must take those that the run before it made.
    run.text_encoder.remember(kept["texts"], tensors["text_embeddings"].numpy())
    distinct = [tuple(plan) for plan in kept["plans"]]
    return Understanding(
        encoder,
        student,
        tensors["training"],
        tensors["validation"],
        [distinct[index] for index in tensors["training_plans"].tolist()],
        [distinct[index] for index in tensors["validation_plans"].tolist()],
        facts,
    )


def _planned(
    run: RunData, split: Split, plans: tuple[Plan | None, ...], pool: PatternPool, space: LatentSpace
) -> PlannedRows:
    schema, width = run.choice.schema, run.text_encoder.width
    texts = [None if plan is None else schema.text(plan) for plan in plans]
    known = sorted({text for text in texts if text is not None})
    places = {text: number for number, text in enumerate(known)}
    embedded = torch.from_numpy(run.text_encoder.embed(known))
    rows = torch.zeros(len(split), width)
    ids = torch.full((len(split),), -1)
    for row, text in enumerate(texts):
        if text is not None:
            rows[row], ids[row] = embedded[places[text]], places[text]
    return PlannedRows(space.encode(split), pool, plans, rows, ids, _unimodal(run, split))


def _unimodal(run: RunData, split: Split) -> dict[str, torch.Tensor]:
    """Labels of one modality each, in standard units of the training rows, NaN where a row misses it."""
    told = {}
    for name, values in split.unimodal.items():
        known = run.train.unimodal.get(name, np.zeros(0))
        known = known[np.isfinite(known)]
        if len(known) and known.std() > 0:
            standard = (values - known.mean()) / known.std()
            told[name] = torch.from_numpy(np.where(split.observed[name], standard, np.nan)).float()
    return told


def _reader(
    run: RunData,
    stage: str,
    rows: PlannedRows,
    checked: PlannedRows | None,
    fold: int | None,
    epochs: tuple[int, int] | None,
) -> tuple[ObservationEncoder, StudentPlanner, dict[str, Any]]:
    """Psi and a student: of all rows, or of all but one fold, then for as many epochs as the first."""
    settings, seed = run.config.encoder, run.seed if fold is None else run.seed + 1000 + fold
    config = encoder_config(run, rows.latents)
    schema, plans = run.choice.schema, run.choice.plans
    if run.workspace.has(stage):
        tensors, facts = run.workspace.load(stage)
        with seeded(seed, "psi"):
            encoder = ObservationEncoder(config)
        student = build_student(schema, config.shared_width, plans, run.config.planner, seed)
        encoder.load_state_dict(weights_of(tensors, "encoder."))
        student.load_state_dict(weights_of(tensors, "student."))
        return encoder.eval(), student.eval(), facts
    allowed = None if fold is None else run.folds != fold
    label = "" if fold is None else f", fold {fold + 1}"
    encoder, encoder_fit = fit_observation_encoder(
        config,
        rows,
        settings,
        seed=seed,
        allowed=allowed,
        validation=checked,
        epochs=None if epochs is None else epochs[0],
        on_epoch=run.told(f"observation encoder{label}"),
    )
    student, student_fit = fit_student(
        schema,
        encoder,
        rows,
        run.config.planner,
        seed=seed,
        allowed=allowed,
        validation=checked,
        epochs=None if epochs is None else epochs[1],
        on_epoch=run.told(f"planner{label}"),
    )
    facts = {
        "encoder_epochs": encoder_fit.epochs,
        "encoder_loss": encoder_fit.validation_loss,
        "student_epochs": student_fit.epochs,
        "student_loss": student_fit.validation_loss,
    }
    tensors = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    tensors |= {f"student.{key}": value for key, value in student.state_dict().items()}
    run.workspace.save(stage, tensors, facts)
    return encoder, student, facts


def _save_pairs(
    run: RunData,
    rows: PlannedRows,
    checked: PlannedRows,
    encoder: ObservationEncoder,
    student: StudentPlanner,
    facts: dict[str, Any],
) -> None:
    epochs = (int(facts["encoder_epochs"]), int(facts["student_epochs"]))
    training = torch.zeros(len(run.train_pool), run.text_encoder.width)
    plans: list[Plan] = [()] * len(run.train_pool)
    for fold in np.unique(run.folds).tolist():
        fold_encoder, fold_student, _ = _reader(run, f"reader-fold-{fold}", rows, None, fold, epochs)
        pairs = np.flatnonzero(run.folds[run.train_pool.rows] == fold)
        made, written = _read(run, fold_encoder, fold_student, run.train, rows, pairs)
        training[torch.from_numpy(pairs)] = made
        for pair, plan in zip(pairs.tolist(), written, strict=True):
            plans[pair] = plan
        run.progress("plans of the training samples", fold + 1, int(run.folds.max()) + 1, None)
    everything = np.arange(len(run.valid_pool), dtype=np.int64)
    validation, valid_plans = _read(run, encoder, student, run.valid, checked, everything)
    distinct, index, _ = plan_table(run.choice.schema, run.text_encoder, plans + valid_plans)
    texts = list(run.text_encoder.table)
    run.workspace.save(
        "pairs",
        {
            "training": training,
            "validation": validation,
            "training_plans": torch.from_numpy(index[: len(plans)]),
            "validation_plans": torch.from_numpy(index[len(plans) :]),
            "text_embeddings": torch.from_numpy(run.text_encoder.embed(texts)),
        },
        {"plans": distinct, "texts": texts},
    )


def _read(
    run: RunData,
    encoder: ObservationEncoder,
    student: StudentPlanner,
    split: Split,
    rows: PlannedRows,
    pairs: IntArray,
) -> tuple[Tensor, list[Plan]]:
    embedded = embed_pairs(encoder, rows, pairs)
    plans = plan_pairs(
        student, run.text_encoder, split, rows.pool, pairs, embedded, run.config.planner, run.seed
    )
    return embedded, plans
