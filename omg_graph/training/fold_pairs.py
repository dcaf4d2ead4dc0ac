"""Cross-fitting: u_X, plans and Gaussian conditionals of training rows from models that never saw them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.data.dataset import TEXT_MODALITY, Split
from omg_graph.encoders.text import TextEncoder
from omg_graph.planner.interface import PlannerInput, Sampling
from omg_graph.planner.rerank import rerank
from omg_graph.planner.schema import Plan, Schema
from omg_graph.planner.student import StudentPlanner
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.training.config import PlannerSettings
from omg_graph.training.patterns import PatternPool

IntArray = npt.NDArray[np.int64]
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Candidates for the Gaussian conditional's ridge, in units of squared latents."""


def plan_pairs(
    student: StudentPlanner,
    text_encoder: TextEncoder,
    split: Split,
    pool: PatternPool,
    pairs: IntArray,
    embeddings: Tensor,
    reading: Tensor | None,
    settings: PlannerSettings,
    seed: int,
) -> list[Plan]:
    """The re-ranked plan of each pair, drawn as at inference (Eq. 5)."""
    rows = pool.rows[pairs]
    texts = visible_text(split, pool, pairs)
    observed = embeddings.numpy()
    proposals = student.propose(
        PlannerInput(
            tuple(split.ids[row] for row in rows),
            observed,
            texts,
            label_estimates=None if reading is None else reading.numpy(),
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
        schema_weight=settings.schema_penalty,
    )
    return [ranking.best.values for ranking in ranked]


def plan_table(
    schema: Schema, text_encoder: TextEncoder, plans: Sequence[Plan]
) -> tuple[list[Plan], IntArray, Tensor]:
    """Distinct plans, the place of each plan among them, and c_S of the distinct ones.

    Returns:
        The plans, (plans,) indices, and (distinct, constraints + 1, shared) embeddings.
    """
    places: dict[Plan, int] = {}
    index = np.array([places.setdefault(plan, len(places)) for plan in plans], dtype=np.int64)
    distinct = list(places)
    texts = [text for plan in distinct for text in (schema.text(plan), *schema.constraint_texts(plan))]
    rows = text_encoder.embed(texts).reshape(len(distinct), -1, text_encoder.width)
    return distinct, index, torch.from_numpy(rows)


def visible_text(split: Split, pool: PatternPool, pairs: IntArray) -> tuple[str | None, ...]:
    """The transcript of each pair, None where there is none or it is hidden with the text."""
    if split.raw_text is None:
        return (None,) * len(pairs)
    if TEXT_MODALITY not in split.names:
        return tuple(split.raw_text[row] for row in pool.rows[pairs])
    shown = pool.visible[pairs][:, split.names.index(TEXT_MODALITY)]
    return tuple(
        split.raw_text[row] if visible else None for row, visible in zip(pool.rows[pairs], shown, strict=True)
    )


def fit_gaussian(
    latents: dict[str, Tensor], known: Tensor, folds: IntArray, pool: PatternPool, checked: int = 600
) -> GaussianConditional:
    """The Gaussian of all rows; each target's ridge is the one that predicts a held-out fold best."""
    held = torch.from_numpy(folds == 0)
    inner = GaussianConditional.fit({name: value[~held] for name, value in latents.items()}, known[~held])
    pairs = pool.spaced(np.flatnonzero(folds[pool.rows] == 0), checked)
    inputs, visible, rows = _pair_inputs(latents, pool, pairs)
    ridges = []
    for column, name in enumerate(latents):
        wanted = known[rows, column] & ~visible[:, column]
        if not bool(wanted.any()):
            ridges.append(1.0)
            continue
        part = {other: value[wanted] for other, value in inputs.items()}
        truth = latents[name][rows][wanted]
        errors = [
            float((inner.predict(name, part, visible[wanted], ridge) - truth).square().sum())
            for ridge in RIDGES
        ]
        ridges.append(RIDGES[int(np.argmin(errors))])
    model = GaussianConditional.fit(latents, known)
    model.ridges.copy_(torch.tensor(ridges))
    return model


def gaussian_pairs(
    model: GaussianConditional,
    latents: dict[str, Tensor],
    known: Tensor,
    folds: IntArray | None,
    pool: PatternPool,
) -> dict[str, Tensor]:
    """E[z | visible] of every pair and modality; out of fold where folds are given."""
    out = {name: torch.zeros(len(pool), value.shape[1]) for name, value in latents.items()}
    parts: list[tuple[GaussianConditional, IntArray]] = []
    if folds is None:
        parts.append((model, np.arange(len(pool), dtype=np.int64)))
    else:
        for fold in np.unique(folds):
            kept = torch.from_numpy(folds != fold)
            fitted = GaussianConditional.fit(
                {name: value[kept] for name, value in latents.items()}, known[kept]
            )
            fitted.ridges.copy_(model.ridges)
            parts.append((fitted, np.flatnonzero(folds[pool.rows] == fold)))
    for fitted, pairs in parts:
        inputs, visible, _ = _pair_inputs(latents, pool, pairs)
        index = torch.from_numpy(pairs)
        for column, name in enumerate(latents):
            hidden = ~visible[:, column]
            if bool(hidden.any()):
                part = {other: value[hidden] for other, value in inputs.items()}
                out[name][index[hidden]] = fitted.predict(name, part, visible[hidden])
    return out


def _pair_inputs(
    latents: dict[str, Tensor], pool: PatternPool, pairs: IntArray
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    rows = torch.from_numpy(pool.rows[pairs])
    visible = torch.from_numpy(pool.visible[pairs])
    inputs = {
        name: value[rows] * visible[:, column : column + 1]
        for column, (name, value) in enumerate(latents.items())
    }
    return inputs, visible, rows
