"""Stage: the model's metrics on validation rows for every missing pattern, beside simple baselines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omg_graph import pipeline
from omg_graph.codecs.codec import Rows
from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import BoolArray, FloatArray, Split
from omg_graph.metrics.features import normalised_squared_error
from omg_graph.metrics.labels import score
from omg_graph.model.model import Model
from omg_graph.training.request import Progress

MANY = 7
"""Patterns are taken one view and all but one view at a time where there are more than this."""
BATCH = 128


def patterns_of(modalities: int) -> list[BoolArray]:
    """Visible subsets to measure: all of them for up to three modalities, else single, all but one, all."""
    if 2**modalities - 1 <= MANY:
        codes = np.arange(1, 2**modalities)[:, None] >> np.arange(modalities)
        return list((codes & 1).astype(np.bool_))
    single = np.eye(modalities, dtype=np.bool_)
    return [*single, *~single, np.ones(modalities, dtype=np.bool_)]


def validate(model: Model, train: Split, valid: Split, progress: Progress) -> dict[str, Any]:
    """Normalised squared error and task metrics for each pattern, with the constant predictor beside."""
    rows = []
    patterns = patterns_of(len(valid.names))
    for number, visible in enumerate(patterns):
        hidden = valid.hide(np.broadcast_to(~visible, valid.mask().shape))
        there = hidden.mask().any(axis=1)
        if there.any():
            index = np.flatnonzero(there)
            rows.append(_measure(model, hidden.take(index), valid.take(index), visible))
        progress("validation", number + 1, len(patterns), None)
    return {"split": valid.name, "rows": rows, "floor": _constant_floor(model, train, valid)}


def _measure(model: Model, observed: Split, truth: Split, visible: BoolArray) -> dict[str, Any]:
    names = np.array(observed.names)
    parts = [
        observed.take(np.arange(s, min(s + BATCH, len(observed)))) for s in range(0, len(observed), BATCH)
    ]
    missing = names[~visible].tolist()
    guesses: dict[str, list[Any]] = {name: [] for name in missing}
    outputs = []
    for part in parts:
        point = pipeline.run(model, part, draws=0).execution
        for name in missing:
            lengths = part.lengths.get(name)
            guesses[name].append(model.latent_space.standard(name, point.estimates[name], lengths))
        if point.outputs is not None:
            outputs.append(point.outputs)
    errors = {
        name: feature_error(
            model.latent_space,
            name,
            np.concatenate(guesses[name]),
            truth,
            truth.observed[name] & ~observed.observed[name],
        )
        for name in missing
    }
    report: dict[str, Any] = {
        "observed": names[visible].tolist(),
        "missing": missing,
        "n": len(observed),
        "missing_by_nature": round(float(1 - truth.mask().mean()), 4),
        "hidden": round(float((truth.mask() & ~observed.mask()).mean()), 4),
        "nmse": {name: value for name, value in errors.items() if value is not None},
    }
    if outputs:
        report |= task_metrics(model, torch.cat(outputs), truth)
    return report


def feature_error(
    space: LatentSpace, name: str, guess: FloatArray, truth: Split, wanted: BoolArray
) -> float | None:
    """Normalised squared error of some rows' decoded standard rows; None where there are none."""
    if not wanted.any():
        return None
    codec, rows = space.codecs[name], Rows(truth.arrays[name], truth.lengths.get(name))
    scored = codec.scored(replace(rows, lost=truth.lost.get(name))) & wanted[:, None]
    error = normalised_squared_error(guess, codec.standard(rows), scored).value
    return None if error is None else round(error, 4)


def task_metrics(model: Model, outputs: Tensor, truth: Split) -> dict[str, Any]:
    """The metrics of the model's family on rows with a label."""
    head, labels = model.executor.task, truth.labels
    if head is None or labels is None:
        return {}
    if head.config.kind == "classes":
        probabilities = head.probabilities(outputs).double().numpy()
        return dict(score("classes", labels.values, probabilities=probabilities))
    values = head.value(outputs).double().numpy()
    if head.config.kind == "number":
        return dict(score("number", labels.values, value=values))
    probabilities = head.probabilities(outputs).double().numpy()
    return dict(
        score(
            model.config.metrics,
            labels.values,
            value=values,
            probabilities=probabilities,
            degrees=head.config.degrees,
        )
    )


def _constant_floor(model: Model, train: Split, valid: Split) -> dict[str, Any]:
    """The best constant: the training mean, or the most frequent class."""
    if train.labels is None or valid.labels is None or model.executor.task is None:
        return {}
    values = train.labels.values[np.isfinite(train.labels.values)]
    rows = len(valid)
    if train.labels.kind == "classes":
        frequent = np.bincount(values.astype(np.int64)).argmax()
        return dict(score("classes", valid.labels.values, label=np.full(rows, frequent)))
    return dict(score(model.config.metrics, valid.labels.values, value=np.full(rows, values.mean())))
