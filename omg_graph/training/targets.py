"""The task head's target, from a training split's labels and the schema."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import Labels, Split
from omg_graph.model.config import Target
from omg_graph.planner.schema import Schema
from omg_graph.predictor.task import TaskHeadConfig, label_width
from omg_graph.training.config import TaskSettings


def task_config(
    split: Split, schema: Schema, space: LatentSpace, shared_width: int, settings: TaskSettings
) -> TaskHeadConfig | None:
    """The head's configuration, with room for label estimates if it reads them; None without labels."""
    task = task_head(split, schema, space, shared_width)
    if task is None:
        return None
    width = label_width(task) if settings.refit and settings.reading != "none" else 0
    return task.model_copy(update={"reading": width, "predictor": settings.predictor})


def task_head(split: Split, schema: Schema, space: LatentSpace, shared_width: int) -> TaskHeadConfig | None:
    """The head's configuration; None where there are no labels to learn from."""
    labels = usable_labels(split)
    if labels is None:
        return None
    widths, scales = space.widths, space.scales
    if labels.kind == "classes":
        return TaskHeadConfig(
            kind="classes", names=labels.class_names, widths=widths, scales=scales, shared_width=shared_width
        )
    values = labels.values[np.isfinite(labels.values)]
    mean, deviation = float(values.mean()), float(max(values.std(), 1e-6))
    if schema.degrees is not None:
        ordered = sorted(schema.degrees.items(), key=lambda item: item[1])
        return TaskHeadConfig(
            kind="degrees",
            names=tuple(word for word, _ in ordered),
            degrees=tuple(degree for _, degree in ordered),
            target_mean=mean,
            target_deviation=deviation,
            widths=widths,
            scales=scales,
            shared_width=shared_width,
        )
    return TaskHeadConfig(
        kind="number",
        target_mean=mean,
        target_deviation=deviation,
        widths=widths,
        scales=scales,
        shared_width=shared_width,
    )


def usable_labels(split: Split) -> Labels | None:
    """The labels, unless no row has one."""
    if split.labels is None or not np.isfinite(split.labels.values).any():
        return None
    return split.labels


def label_tensor(split: Split) -> Tensor | None:
    """(rows,), NaN where a row has no label."""
    labels = usable_labels(split)
    return None if labels is None else torch.from_numpy(labels.values.astype(np.float32))


def describe_target(split: Split) -> Target | None:
    """The target as a model's configuration keeps it."""
    labels = usable_labels(split)
    return (
        None if labels is None else Target(name=labels.name, kind=labels.kind, class_names=labels.class_names)
    )
