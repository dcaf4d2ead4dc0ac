"""Stage: psi and the student, and what they make of training and validation pairs, cross-fitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import Split
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.planner.schema import Plan
from omg_graph.planner.student import StudentPlanner
from omg_graph.predictor.label_regression import LabelRegression
from omg_graph.seeding import seeded
from omg_graph.training.closed_forms import run_reader
from omg_graph.training.fitting import Fit
from omg_graph.training.fold_pairs import plan_pairs, plan_table
from omg_graph.training.model_config import encoder_config
from omg_graph.training.pairs import IntArray
from omg_graph.training.patterns import PatternPool
from omg_graph.training.raw_states import pair_states, states_notes
from omg_graph.training.reading import reading_pairs
from omg_graph.training.run import RunData
from omg_graph.training.understanding import (
    PlannedRows,
    build_student,
    embed_pairs,
    fit_observation_encoder,
    fit_student,
)


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
    notes: list[str] = field(default_factory=list)
    validation_reading: Tensor | None = None
    """What the label reader says of the validation pairs."""


@dataclass
class Taught:
    """psi and the student, with the rows that they learned from and were checked on."""

    encoder: ObservationEncoder
    student: StudentPlanner
    rows: PlannedRows
    checked: PlannedRows
    facts: dict[str, Any]


def teach(run: RunData, space: LatentSpace) -> Taught:
    """Psi and the student on all training rows."""
    reader = run_reader(run, space) if run.config.planner.reading else None
    rows = planned_rows(run, run.train, run.choice.plans, run.train_pool, space, reader)
    checked = planned_rows(run, run.valid, run.valid_plans, run.valid_pool, space, reader)
    encoder, facts = _encoder(run, "psi", rows, checked)
    student, told = _student(run, "student", encoder, rows, checked)
    return Taught(encoder, student, rows, checked, facts | told)


def understand(run: RunData, space: LatentSpace) -> Understanding:
    """Psi and the student on all training rows, and once more for each fold."""
    taught = teach(run, space)
    encoder, student, rows, checked = taught.encoder, taught.student, taught.rows, taught.checked
    facts = taught.facts
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
        states_notes(run.hidden_states, run.train, rows.states, checked.states),
        checked.reading,
    )


def planned_rows(
    run: RunData,
    split: Split,
    plans: tuple[Plan | None, ...],
    pool: PatternPool,
    space: LatentSpace,
    reader: LabelRegression | None = None,
) -> PlannedRows:
    """Rows of a split with their latents, their teacher's plans, and what the reader says of each pair."""
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
    states = None
    if run.hidden_states is not None:
        what = f"hidden states, {split.name}"
        states = pair_states(
            run.hidden_states, split, pool, lambda done, of: run.progress(what, done, of, None)
        )
    latents = space.encode(split)
    reading = None if reader is None else reading_pairs(reader, latents, split, pool)
    return PlannedRows(latents, pool, plans, rows, ids, _unimodal(run, split), states, reading)


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


def _encoder(
    run: RunData,
    stage: str,
    rows: PlannedRows,
    checked: PlannedRows | None,
    fold: int | None = None,
    epochs: int | None = None,
) -> tuple[ObservationEncoder, dict[str, Any]]:
    """Psi, fitted once, then read from the workspace."""
    if run.workspace.has(stage):
        tensors, facts = run.workspace.load(stage)
        with seeded(run.seed, "psi"):
            encoder = ObservationEncoder(encoder_config(run, rows.latents))
        encoder.load_state_dict(tensors)
        return encoder.eval(), facts
    encoder, report = _fitted_encoder(run, rows, checked, fold, epochs)
    facts = {"encoder_epochs": report.epochs, "encoder_loss": report.validation_loss}
    run.workspace.save(stage, encoder.state_dict(), facts)
    return encoder, facts


def _fitted_encoder(
    run: RunData, rows: PlannedRows, checked: PlannedRows | None, fold: int | None, epochs: int | None
) -> tuple[ObservationEncoder, Fit]:
    """Psi of all rows, or of all but one fold."""
    return fit_observation_encoder(
        encoder_config(run, rows.latents),
        rows,
        run.config.encoder,
        seed=_seed(run, fold),
        allowed=None if fold is None else run.folds != fold,
        validation=checked,
        epochs=epochs,
        on_epoch=run.told("observation encoder" + _which(fold)),
    )


def _student(
    run: RunData,
    stage: str,
    encoder: ObservationEncoder,
    rows: PlannedRows,
    checked: PlannedRows | None,
    fold: int | None = None,
    epochs: int | None = None,
) -> tuple[StudentPlanner, dict[str, Any]]:
    """A student of all rows, or of all but one fold, fitted once, then read from the workspace."""
    schema, settings, seed = run.choice.schema, run.config.planner, _seed(run, fold)
    if run.workspace.has(stage):
        tensors, facts = run.workspace.load(stage)
        student = build_student(schema, rows, encoder.config.shared_width, settings, seed)
        student.load_state_dict(tensors)
        return student.eval(), facts
    student, report = fit_student(
        schema,
        encoder,
        rows,
        settings,
        seed=seed,
        allowed=None if fold is None else run.folds != fold,
        validation=checked,
        epochs=epochs,
        on_epoch=run.told("planner" + _which(fold)),
    )
    facts = {"student_epochs": report.epochs, "student_loss": report.validation_loss}
    run.workspace.save(stage, student.state_dict(), facts)
    return student, facts


def _seed(run: RunData, fold: int | None) -> int:
    return run.seed if fold is None else run.seed + 1000 + fold


def _which(fold: int | None) -> str:
    return "" if fold is None else f", fold {fold + 1}"


def _save_pairs(
    run: RunData,
    rows: PlannedRows,
    checked: PlannedRows,
    encoder: ObservationEncoder,
    student: StudentPlanner,
    facts: dict[str, Any],
) -> None:
    longest = [int(facts[f"{part}_epochs"]) for part in ("encoder", "student")]
    observed = torch.zeros(len(run.train_pool), run.text_encoder.width)
    plans: list[Plan] = [()] * len(run.train_pool)
    for fold in np.unique(run.folds).tolist():
        psi, _ = _encoder(run, f"psi-fold-{fold}", rows, None, fold, longest[0])
        other, _ = _student(run, f"student-fold-{fold}", psi, rows, None, fold, longest[1])
        pairs = np.flatnonzero(run.folds[run.train_pool.rows] == fold)
        embedded = embed_pairs(psi, rows, pairs)
        observed[torch.from_numpy(pairs)] = embedded
        written = _plans(run, other, run.train, rows, pairs, embedded)
        for pair, plan in zip(pairs.tolist(), written, strict=True):
            plans[pair] = plan
        run.progress("plans of the training samples", fold + 1, int(run.folds.max()) + 1, None)
    everything = np.arange(len(run.valid_pool), dtype=np.int64)
    validation = embed_pairs(encoder, checked, everything)
    valid_plans = _plans(run, student, run.valid, checked, everything, validation)
    distinct, index, _ = plan_table(run.choice.schema, run.text_encoder, plans + valid_plans)
    texts = list(run.text_encoder.table)
    run.workspace.save(
        "pairs",
        {
            "training": observed,
            "validation": validation,
            "training_plans": torch.from_numpy(index[: len(plans)]),
            "validation_plans": torch.from_numpy(index[len(plans) :]),
            "text_embeddings": torch.from_numpy(run.text_encoder.embed(texts)),
        },
        {"plans": distinct, "texts": texts},
    )


def _plans(
    run: RunData,
    student: StudentPlanner,
    split: Split,
    rows: PlannedRows,
    pairs: IntArray,
    observed: Tensor,
) -> list[Plan]:
    reading = None if rows.reading is None else rows.reading[torch.from_numpy(pairs)]
    return plan_pairs(
        student, run.text_encoder, split, rows.pool, pairs, observed, reading, run.config.planner, run.seed
    )
