"""The parts of the method that an ablation may replace: functions and classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.executor.denoiser import Denoiser
from omg_graph.executor.objective import Objective, objective
from omg_graph.planner.schema import Schema
from omg_graph.retriever.evidence import Attention, attention_weights

PlanCondition = Callable[[Tensor, Sequence[str]], Tensor]
"""(plans' embeddings (samples, constraints + 1, shared), a key for each sample) to rows of the same shape.

The key decides what is drawn for a sample; at inference it is the sample's id."""
QueryPlan = Callable[[Tensor, Sequence[str], Schema, CachedTextEncoder], Tensor]
"""(g of the whole plans (samples, shared), ids, schema, g) to rows of the same shape."""
KeepQuery = Callable[[float, float], bool]
"""(error of the evidence on validation rows without the learned correction, with it) to whether it stays."""


def own_plan(plan: Tensor, *_: Any) -> Tensor:
    """The sample's own plan."""
    return plan


def validated(before: float, after: float) -> bool:
    """The correction stays if it helps validation rows."""
    return after < before


@dataclass(frozen=True)
class Components:
    """What a model is trained and used with; a model folder names the parts that aren't the method's own."""

    condition: PlanCondition = own_plan
    """What stands for c_S (Eq. 4)."""
    query_plan: QueryPlan = own_plan
    """Whose plan turns the query (Eq. 7)."""
    keep_query: KeepQuery = validated
    """Whether the learned correction of the query stays."""
    attention: Attention = attention_weights
    """How entries are weighed (Eq. 8)."""
    denoiser: type[Denoiser] = Denoiser
    """How plan and evidence enter (Eqs. 10, 12 and 13)."""
    objective: Objective = objective
    """The terms of Eqs. 14-18."""

    @property
    def names(self) -> dict[str, str]:
        """Field to name of each part that isn't the method's own."""
        own = Components()
        parts = ((part.name, getattr(self, part.name), getattr(own, part.name)) for part in fields(self))
        return {name: part.__name__ for name, part, default in parts if part is not default}


DEFAULT_COMPONENTS = Components()
"""The method itself."""
