"""Stage: how sure the task head may be, by one temperature fitted on validation rows."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from omg_graph.executor.task import TaskHead
from omg_graph.training.execution import CHECK_BLOCK, ExecutorTrainer

COLDEST, HOTTEST = 0.25, 4.0
TOLERANCE = 0.005
"""Nats of mean log-likelihood that a temperature has to bring; for less the head stays as it is."""


def calibrate(trainer: ExecutorTrainer) -> float | None:
    """Divide the head's logits by the temperature under which validation labels are most likely.

    It is folded into the head's last weights, so that a calibrated model is like any other. No class or
    degree changes its rank; the value of a sentiment stays the expectation over its degrees, and moves with
    them. Every missing pattern of the validation rows counts alike.

    Returns:
        The temperature, 1 where the head is calibrated already; None where it gives no probabilities or no
        validation row has a label.
    """
    head, data = trainer.executor.task, trainer.validation
    if head is None or data.label is None or head.config.kind == "number":
        return None
    pairs = np.flatnonzero(~data.label.isnan().numpy()[data.pool.rows])
    if not len(pairs):
        return None
    parts = []
    with torch.no_grad():
        for start in range(0, len(pairs), CHECK_BLOCK):
            batch, conditions = trainer.inputs(data, pairs[start : start + CHECK_BLOCK])
            estimates = trainer.executor.estimate(batch, conditions)
            slots = trainer.executor.fill(batch, estimates)
            parts.append(head(batch.observation, slots, batch.reading))
    outputs = torch.cat(parts)
    classes = head.class_index(data.label[data.rows(pairs)].to(outputs.device))
    temperature = fit_temperature(outputs, classes)
    cool(head, temperature)
    return temperature


def fit_temperature(outputs: Tensor, classes: Tensor) -> float:
    """The temperature with the least mean cross-entropy; 1 if that gains less than ``TOLERANCE``.

    The loss is convex in the inverse of the temperature, so a golden-section search finds its minimum.

    Args:
        outputs: (rows, classes), logits.
        classes: (rows,), the true ones.
    """
    logits, truth = outputs.double(), classes.long()

    def loss(inverse: float) -> float:
        return float(F.cross_entropy(logits * inverse, truth))

    low, high = 1 / HOTTEST, 1 / COLDEST
    golden = (math.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        one, other = high - golden * (high - low), low + golden * (high - low)
        if loss(one) < loss(other):
            high = other
        else:
            low = one
    inverse = (low + high) / 2
    return 1 / inverse if loss(1.0) - loss(inverse) > TOLERANCE else 1.0


def cool(head: TaskHead, temperature: float) -> None:
    """Divide a head's logits by a temperature, in its weights."""
    last = [head.linear, head.perceptron[-1], *([] if head.reading is None else [head.reading])]
    with torch.no_grad():
        for layer in last:
            for parameter in layer.parameters():
                parameter.div_(temperature)
