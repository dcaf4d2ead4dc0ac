"""The rows and tables of an evaluation as they come in, those of folds pooled at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from omg_graph.data.dataset import Split
from omg_graph.errors import ModelError
from omg_graph.evaluation.outcomes import Outcomes, Pairs
from omg_graph.evaluation.pooling import Part, pooled_outcomes
from omg_graph.evaluation.protocols import Condition
from omg_graph.evaluation.tables import SampleTable, result_row, sample_table
from omg_graph.evaluation.targets import LabelTarget


@dataclass(frozen=True)
class _Method:
    """What a method's parts are put together by."""

    floor: bool
    name: str
    floor_seed: int | None
    model_seed: int


@dataclass
class Results:
    """Of the model and of its floors, condition by condition."""

    truth: Split
    pairs: Pairs
    conditions: Sequence[Condition]
    rows: list[dict[str, Any]] = field(default_factory=list)
    floor_rows: list[dict[str, Any]] = field(default_factory=list)
    fold_rows: list[dict[str, Any]] = field(default_factory=list)
    """Each fold by itself; ``rows`` and ``floor_rows`` are over all of them."""
    tables: list[SampleTable] = field(default_factory=list)
    floor_tables: list[SampleTable] = field(default_factory=list)
    parts: dict[_Method, list[tuple[Part, Outcomes, LabelTarget]]] = field(default_factory=dict)

    def keep(
        self, outcomes: Outcomes, target: LabelTarget, seed: int, *, floor: bool, part: Part | None = None
    ) -> None:
        """Take in what a method made of all pairs, or of the part that a fold held out."""
        if part is None:
            self._keep_whole(outcomes, target, seed, floor=floor)
            return
        for condition in part.conditions:
            row = result_row(outcomes, part.pairs, condition, self.truth, target, seed)
            self.fold_rows.append(row | {"fold": part.fold})
        method = _Method(floor, outcomes.method, outcomes.floor_seed, seed)
        self.parts.setdefault(method, []).append((part, outcomes, target))

    def finish(self) -> None:
        """Put folds together.

        Raises:
            ModelError: if the parts of a method don't make up a whole.
        """
        for method, found in self.parts.items():
            target = found[0][2]
            if any(other != target for _, _, other in found):
                raise ModelError(
                    f"{method.name}: labels measured alike in all folds were expected, they differ: name a "
                    "family with --metrics"
                )
            pooled = pooled_outcomes([(part, outcomes) for part, outcomes, _ in found], len(self.pairs))
            self._keep_whole(pooled, target, method.model_seed, floor=method.floor)
        self.parts.clear()

    def _keep_whole(self, outcomes: Outcomes, target: LabelTarget, seed: int, *, floor: bool) -> None:
        rows, tables = (self.floor_rows, self.floor_tables) if floor else (self.rows, self.tables)
        for condition in self.conditions:
            arguments = (outcomes, self.pairs, condition, self.truth, target, seed)
            rows.append(result_row(*arguments) | {"fold": None})
            tables.append(sample_table(*arguments))
