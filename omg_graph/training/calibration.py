"""Stage: how sure the task head may be, by two numbers fitted on validation rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from omg_graph.training.execution import CHECK_BLOCK, ExecutorTrainer
from omg_graph.training.pairs import labelled_pairs

COLDEST, HOTTEST = 0.25, 4.0
NARROWEST, WIDEST = 0.8, 1.5
SPREAD_TOLERANCE = 0.001
"""Of the mean absolute error, for a spread to be taken."""
TOLERANCE = 0.005
"""Nats of mean log-likelihood that a temperature has to bring; for less the head stays as it is."""


@dataclass(frozen=True)
class Calibration:
    """What validation rows say of a head's confidence."""

    temperature: float
    """Divides the logits; 1 where the head is calibrated already."""
    spread: float
    """Stretches a sentiment's value about the labels' mean; 1 where that brings too little."""


def calibrate(trainer: ExecutorTrainer) -> Calibration | None:
    """Set the head's temperature and spread to what suits the validation rows' labels best.

    No class or degree changes its rank by the temperature. A sentiment's value is the expectation over its
    degrees, which shrinks where the head is unsure; the spread is the one with the least absolute error.
    Every missing pattern of the validation rows counts alike.

    Returns:
        Both; None where the head gives no probabilities or no validation row has a label.
    """
    head, data = trainer.executor.task, trainer.validation
    if head is None or data.label is None or head.config.kind == "number":
        return None
    pairs = labelled_pairs(data)
    if not len(pairs):
        return None
    parts = []
    with torch.no_grad():
        for start in range(0, len(pairs), CHECK_BLOCK):
            batch, conditions = trainer.inputs(data, pairs[start : start + CHECK_BLOCK])
            estimates = trainer.executor.estimate(batch, conditions)
            slots = trainer.executor.fill(batch, estimates)
            parts.append(head(batch.observation, slots, batch.label_estimates, batch.observed, batch.words))
    outputs = torch.cat(parts)
    label = data.label[data.rows(pairs)].to(outputs.device)
    temperature = fit_temperature(outputs, head.class_index(label))
    head.temperature.fill_(temperature)
    spread = 1.0
    if head.config.kind == "degrees":
        centre = head.config.target_mean
        spread = fit_spread(head.value(outputs / temperature) - centre, label - centre)
        head.spread.fill_(spread)
    return Calibration(temperature, spread)


def fit_spread(values: Tensor, labels: Tensor) -> float:
    """The factor with the least mean absolute error; 1 if that gains less than ``SPREAD_TOLERANCE`` of it.

    Args:
        values: (rows,), predictions less the labels' mean.
        labels: (rows,), likewise.
    """
    made, truth = values.double(), labels.double()

    def loss(factor: float) -> float:
        return float((factor * made - truth).abs().mean())

    factor = _least(loss, NARROWEST, WIDEST)
    return factor if loss(factor) < (1 - SPREAD_TOLERANCE) * loss(1.0) else 1.0


def fit_temperature(outputs: Tensor, classes: Tensor) -> float:
    """The temperature with the least mean cross-entropy; 1 if that gains less than ``TOLERANCE``.

    The loss is convex in the inverse of the temperature.

    Args:
        outputs: (rows, classes), logits.
        classes: (rows,), the true ones.
    """
    logits, truth = outputs.double(), classes.long()

    def loss(inverse: float) -> float:
        return float(F.cross_entropy(logits * inverse, truth))

    inverse = _least(loss, 1 / HOTTEST, 1 / COLDEST)
    return 1 / inverse if loss(1.0) - loss(inverse) > TOLERANCE else 1.0


def _least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Where a convex function has its minimum, by golden-section search."""
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        one, other = high - golden * (high - low), low + golden * (high - low)
        if loss(one) < loss(other):
            high = other
        else:
            low = one
    return (low + high) / 2
