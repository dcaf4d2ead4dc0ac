"""Which metrics suit a target, and all of them at once under the names that results use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from omg_graph.data.dataset import Labels
from omg_graph.errors import ConfigError, DataError
from omg_graph.metrics.calibration import calibration_scores, nearest_degrees
from omg_graph.metrics.classes import class_scores
from omg_graph.metrics.labelled import Scores
from omg_graph.metrics.numbers import number_scores
from omg_graph.metrics.sentiment import sentiment_scores
from omg_graph.metrics.sims import sims_scores

MetricFamily = Literal["mosi", "sims", "classes", "number", "none"]

_OF_NUMBERS = {"mosi": sentiment_scores, "sims": sims_scores, "number": number_scores}


def choose_family(labels: Labels | None, requested: str = "auto") -> MetricFamily:
    """The family that is asked for, else the one that the kind and range of the labels suggest.

    ``none`` where no sample has a label, whatever is asked for. Numbers on both sides of 0 are taken for
    sentiment: ``sims`` within [-1, 1], ``mosi`` within [-3, 3].

    Raises:
        ConfigError: if the family that is asked for is unknown, or isn't of the labels' kind.
    """
    known = None if labels is None else labels.values[~np.isnan(labels.values)]
    if labels is None or known is None or not len(known):
        return "none"
    if requested != "auto":
        return _requested(labels, requested)
    if labels.kind == "classes":
        return "classes"
    lowest, highest = float(known.min()), float(known.max())
    if not lowest < 0 < highest:
        return "number"
    reach = max(-lowest, highest)
    return "sims" if reach <= 1 else "mosi" if reach <= 3 else "number"


def score(
    family: MetricFamily,
    truth: npt.ArrayLike,
    *,
    value: npt.ArrayLike | None = None,
    label: npt.ArrayLike | None = None,
    probabilities: npt.ArrayLike | None = None,
    degrees: Sequence[float] | None = None,
) -> Scores:
    """All metrics of a family by the names used in results; samples without a label are left out.

    Args:
        family: ``mosi``: acc2, f1, acc2_has0, f1_has0, acc7, mae, corr; ``sims``: acc2, f1, acc3, acc5, mae,
            corr; ``number``: mae, corr; ``classes``: accuracy, macro_f1; and for each of them ece and nll,
            None without probabilities; ``none``: nothing.
        truth: (samples,) numbers, or class indexes for ``classes``; NaN where there is no label.
        value: (samples,) predicted numbers, for all families but ``classes``.
        label: (samples,) predicted class indexes; the most probable class by default.
        probabilities: (samples, classes).
        degrees: the number that each column of ``probabilities`` stands for, ascending, where the target is
            a number: the truth's class is then the nearest of them.

    Raises:
        ConfigError: if what the family needs isn't given.
        DataError: if shapes differ or predictions aren't finite.
    """
    if family == "none":
        return {}
    uncertain: Scores = {"ece": None, "nll": None}
    if family == "classes":
        if probabilities is not None:
            uncertain = calibration_scores(truth, probabilities)
            label = np.asarray(probabilities).argmax(axis=1) if label is None else label
        if label is None:
            raise ConfigError(
                "classes: predicted labels or probabilities were expected, neither came: give one"
            )
        return class_scores(truth, label) | uncertain
    if value is None:
        raise ConfigError(f"{family}: predicted numbers were expected, none came: give value")
    if probabilities is not None:
        if degrees is None:
            raise ConfigError(
                f"{family}: probabilities came without the numbers they stand for: give degrees"
            )
        if np.shape(probabilities)[1:] != (len(degrees),):
            raise DataError(
                f"a probability for each of {len(degrees)} degrees was expected, "
                f"shape {np.shape(probabilities)} came: give a column for each"
            )
        uncertain = calibration_scores(nearest_degrees(truth, degrees), probabilities)
    return _OF_NUMBERS[family](truth, value) | uncertain


def _requested(labels: Labels, requested: str) -> MetricFamily:
    fitting = ("classes",) if labels.kind == "classes" else ("mosi", "sims", "number")
    for family in get_args(MetricFamily):
        if family == requested and (family in fitting or family == "none"):
            chosen: MetricFamily = family
            return chosen
    raise ConfigError(
        f"--metrics: auto, {' or '.join(fitting)} was expected for {labels.name} ({labels.kind}), "
        f"{requested!r} came"
    )
