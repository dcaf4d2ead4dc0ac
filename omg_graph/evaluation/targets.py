"""The label of an evaluation: its family of metrics, and truths in the model's own numbering."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from omg_graph.data.dataset import IntArray, Labels
from omg_graph.errors import ConfigError, DataError
from omg_graph.metrics.families import MetricFamily, choose_family, score
from omg_graph.metrics.labelled import Numbers, Scores
from omg_graph.model.model import Model
from omg_graph.predictor.task import TaskHeadConfig
from omg_graph.retriever.entries import KnowledgeBase


@dataclass(frozen=True)
class LabelTarget:
    """What predictions are scored against."""

    family: MetricFamily
    names: tuple[str, ...] = ()
    """Classes, the model's first, in its order; those that only the data know come after."""
    degrees: tuple[float, ...] | None = None
    """The number behind each probability, where the model has such degrees."""
    degree_names: tuple[str, ...] = ()
    """The degrees in words."""

    @property
    def is_classes(self) -> bool:
        """Whether labels are classes, and not numbers."""
        return self.family == "classes"

    def numbers(self, labels: Labels) -> Numbers:
        """(samples,): the labels as numbers, or as indexes into ``names``.

        NaN where there is none, or a class that isn't among the names.
        """
        if not self.is_classes:
            return labels.values.astype(np.float64)
        place = {name: float(index) for index, name in enumerate(self.names)}
        renumbered = np.array([place.get(name, np.nan) for name in labels.class_names], np.float64)
        out = np.full(len(labels.values), np.nan)
        known = np.isfinite(labels.values)
        out[known] = renumbered[labels.values[known].astype(np.int64)]
        return out

    def of_entries(self, kb: KnowledgeBase) -> Numbers:
        """(entries,): the labels of a knowledge base, as ``numbers`` has them."""
        if kb.labels is None or self.family == "none":
            return np.full(len(kb), np.nan)
        place = {name: float(index) for index, name in enumerate(self.names)}
        return np.array([self._entry(label, place) for label in kb.labels], np.float64)

    def _entry(self, label: str | None, place: dict[str, float]) -> float:
        if label is None:
            return np.nan
        if self.is_classes:
            return place.get(label, np.nan)
        try:
            return float(label)
        except ValueError:
            return np.nan

    def scores(
        self,
        truth: Numbers,
        value: Numbers | None,
        label: IntArray | None,
        probabilities: Numbers | None,
    ) -> Scores:
        """The family's metrics of some predictions."""
        if probabilities is not None and self.is_classes:
            # A class that the model has never met gets no probability: a miss, and no error.
            unknown = len(self.names) - probabilities.shape[1]
            probabilities = np.pad(probabilities, ((0, 0), (0, unknown)))
        degrees = None if self.is_classes or probabilities is None else self.degrees
        return score(
            self.family, truth, value=value, label=label, probabilities=probabilities, degrees=degrees
        )


def choose_target(model: Model, labels: Labels | None, requested: str) -> LabelTarget:
    """The family that is asked for, else the one in the model's manifest, else the one the labels suggest.

    Args:
        model: who predicts.
        labels: of the samples.
        requested: ``auto`` or a family.

    Raises:
        ConfigError: if the family doesn't suit the labels.
        DataError: if the model predicts numbers and the labels are classes, or the other way round.
    """
    head = model.executor.task
    if head is None or labels is None or not np.isfinite(labels.values).any():
        if requested not in ("auto", "none"):
            lacking = "the model was trained without labels" if head is None else "the data hold no labels"
            raise ConfigError(f"--metrics {requested}: {lacking}: leave --metrics out")
        return LabelTarget("none")
    predicts = "classes" if head.config.kind == "classes" else "regression"
    if labels.kind != predicts:
        raise DataError(
            f"{labels.name}: labels of the kind that the model predicts ({predicts}) were expected, "
            f"{labels.kind} came: name the right field with --label"
        )
    suits = model.config.metrics if model.config.metrics != "none" else "auto"
    family = choose_family(labels, suits if requested == "auto" else requested)
    words = head.config.names if head.config.kind == "degrees" else ()
    return LabelTarget(family, _names(head.config, labels), head.config.degrees or None, words)


def _names(head: TaskHeadConfig, labels: Labels) -> tuple[str, ...]:
    if head.kind != "classes":
        return ()
    return tuple(dict.fromkeys((*head.names, *labels.class_names)))
