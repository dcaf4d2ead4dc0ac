"""What several models made of parts of the pairs, put together as if one method had made all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from omg_graph.data.dataset import BoolArray, IntArray
from omg_graph.errors import ModelError
from omg_graph.evaluation.outcomes import Outcomes, Pairs
from omg_graph.evaluation.protocols import Condition
from omg_graph.metrics.features import PooledRatio


@dataclass(frozen=True)
class Part:
    """The pairs of some rows."""

    pairs: Pairs
    places: IntArray
    """(pairs,): where each lies among all pairs."""
    conditions: list[Condition]
    """The conditions with nobody but these rows in them."""
    fold: int

    @classmethod
    def of(cls, pairs: Pairs, conditions: Sequence[Condition], rows: BoolArray, fold: int) -> Part:
        """The part of all pairs that belongs to the marked rows, (samples,), which a fold held out."""
        places = np.flatnonzero(rows[pairs.rows])
        narrowed = [
            replace(
                condition, visible=condition.visible & rows[:, None], hidden=condition.hidden & rows[:, None]
            )
            for condition in conditions
        ]
        return cls(
            Pairs(pairs.rows[places], pairs.visible[places]),
            places,
            [condition for condition in narrowed if len(condition.rows)],
            fold,
        )


def pooled_outcomes(parts: Sequence[tuple[Part, Outcomes]], pairs: int) -> Outcomes:
    """One method's outcomes on all pairs, from its outcomes on parts that together make them up.

    Raises:
        ModelError: if the parts don't make up all pairs, or differ in what they hold.
    """
    places = np.concatenate([part.places for part, _ in parts])
    made = [outcomes for _, outcomes in parts]
    if len(places) != pairs or len(np.unique(places)) != pairs:
        raise ModelError(
            f"{made[0].method}: each row was expected to be held out by one model, "
            f"{pairs - len(np.unique(places))} of {pairs} pairs are by none: evaluate all folds together"
        )
    order = np.argsort(places)

    def joined(name: str) -> npt.NDArray[Any] | None:
        found = [getattr(outcomes, name) for outcomes in made]
        if all(values is None for values in found):
            return None
        if any(values is None or values.shape[1:] != found[0].shape[1:] for values in found):
            raise ModelError(
                f"{made[0].method}: models that predict the same were expected in all folds, "
                f"{name} differ: evaluate them one by one"
            )
        whole: npt.NDArray[Any] = np.concatenate(found)[order]
        return whole

    def ratios(name: str) -> dict[str, PooledRatio]:
        held = [getattr(outcomes, name) for outcomes in made]
        return {
            modality: PooledRatio(
                np.concatenate([of[modality].numerator for of in held])[order],
                np.concatenate([of[modality].denominator for of in held])[order],
            )
            for modality in held[0]
        }

    return replace(
        made[0],
        value=joined("value"),
        label=joined("label"),
        probabilities=joined("probabilities"),
        errors=ratios("errors"),
        energy={
            modality: np.concatenate([outcomes.energy[modality] for outcomes in made])[order]
            for modality in made[0].energy
        },
        coverage=ratios("coverage"),
        semantic_cost=joined("semantic_cost"),
        reranked=joined("reranked"),
        evidence_cost=joined("evidence_cost"),
        same_polarity=joined("same_polarity"),
    )
