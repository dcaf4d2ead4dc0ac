"""Labels as floors regress on them and count them."""

from __future__ import annotations

import numpy as np

from omg_graph.evaluation.floor_data import Guess
from omg_graph.evaluation.targets import LabelTarget
from omg_graph.metrics.calibration import nearest_degrees
from omg_graph.metrics.labelled import Numbers


def encoded_labels(labels: Numbers, target: LabelTarget) -> Numbers | None:
    """(samples, outputs): the number, or a column for each class; NaN rows have no label.

    None where there is nothing to learn from.
    """
    if target.family == "none" or np.isnan(labels).all():
        return None
    if not target.is_classes:
        return labels[:, None]
    columns = np.where(
        np.isnan(labels)[:, None], np.nan, labels[:, None] == np.arange(len(target.names))[None]
    )
    return columns.astype(np.float64)


def set_outputs(guess: Guess, outputs: Numbers, target: LabelTarget) -> None:
    """Turn regressed outputs, (samples, outputs), into the prediction."""
    if target.is_classes:
        guess.label = outputs.argmax(axis=1)
    else:
        guess.value = outputs[:, 0]


def class_codes(labels: Numbers, target: LabelTarget) -> tuple[Numbers, int] | None:
    """(samples,) class or degree indexes, NaN without a label, and how many there are; None of neither."""
    if target.is_classes:
        return labels, len(target.names)
    if target.degrees is None:
        return None
    return nearest_degrees(labels, target.degrees), len(target.degrees)


def label_frequencies(labels: Numbers, target: LabelTarget) -> Numbers | None:
    """(classes,): how often each class or degree occurs among labels that are all there."""
    codes = class_codes(labels, target)
    if codes is None:
        return None
    counts = np.bincount(codes[0].astype(np.int64), minlength=codes[1])
    return np.asarray(counts / counts.sum(), np.float64)
