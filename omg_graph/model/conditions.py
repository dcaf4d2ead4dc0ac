"""What stands for the plan: c_S in the executor's conditions, and the plan that the query of Eq. 7 reads.

Both are components by name, so that a model can be trained and used with something else in the plan's place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.errors import ConfigError
from omg_graph.planner.schema import Plan, Schema
from omg_graph.seeding import generator

PlanConditionName = Literal["plan", "noise", "none"]
QueryPlanName = Literal["plan", "random", "none"]


class PlanCondition(Protocol):
    """What the model takes for c_S (Eq. 4)."""

    def __call__(self, plan: Tensor, keys: Sequence[str]) -> Tensor:
        """Rows in place of the plans' embeddings, of the same shape.

        Args:
            plan: (samples, constraints + 1, shared), unit length.
            keys: a name for each sample that decides whatever is drawn for it; its id at inference.
        """
        ...


def planned(plan: Tensor, keys: Sequence[str]) -> Tensor:  # noqa: ARG001
    """The plan itself."""
    return plan


def gaussian_noise(plan: Tensor, keys: Sequence[str]) -> Tensor:
    """Gaussian noise of unit scale in place of c_S: the paper's *w/o Planner* (Appendix A)."""
    shape = plan.shape[1:]
    drawn = [torch.randn(shape, generator=generator("plan noise", key)) for key in keys]
    noise: Tensor = torch.stack(drawn) / float(shape[-1]) ** 0.5
    return noise.to(plan)


def no_plan(plan: Tensor, keys: Sequence[str]) -> Tensor:  # noqa: ARG001
    """Zeros: the same network, told nothing."""
    return torch.zeros_like(plan)


PLAN_CONDITIONS: Mapping[PlanConditionName, PlanCondition] = {
    "plan": planned,
    "noise": gaussian_noise,
    "none": no_plan,
}


class QueryPlan(Protocol):
    """Whose plan turns the query (Eq. 7)."""

    def __call__(self, plan: Tensor, ids: Sequence[str]) -> Tensor:
        """(samples, shared) in place of g of the samples' whole plans."""
        ...


def own_plan(plan: Tensor, ids: Sequence[str]) -> Tensor:  # noqa: ARG001
    """The sample's own plan."""
    return plan


def plan_left_out(plan: Tensor, ids: Sequence[str]) -> Tensor:  # noqa: ARG001
    """Zeros: the query is made of the observation alone."""
    return torch.zeros_like(plan)


class RandomPlan:
    """A plan drawn evenly from all that the schema allows, in place of the sample's own."""

    def __init__(self, schema: Schema, text_encoder: CachedTextEncoder) -> None:
        self.schema = schema
        self.text_encoder = text_encoder

    def __call__(self, plan: Tensor, ids: Sequence[str]) -> Tensor:
        """(samples, shared): g of each sample's random plan, the same at every call.

        Raises:
            ConfigError: if a field of the schema is free text, which nothing can be drawn from.
        """
        texts = [self.schema.text(random_plan(self.schema, sample)) for sample in ids]
        return torch.from_numpy(self.text_encoder.embed(texts)).to(plan)


def random_plan(schema: Schema, sample: str) -> Plan:
    """A plan that says nothing about its sample: of the sample's id alone, each field drawn evenly.

    Raises:
        ConfigError: if a field of the schema is free text.
    """
    drawn, values = generator("random plan", sample), list[str]()
    for level, field in enumerate(schema.fields):
        allowed = schema.allowed(level, values)
        if allowed is None:
            raise ConfigError(
                f"retriever.query_plan random: expected a schema whose every field lists its values, "
                f"{field.name} of {schema.name!r} is free text: leave that variant out"
            )
        values.append(allowed[int(torch.randint(len(allowed), (), generator=drawn))])
    return tuple(values)


def query_plan(name: QueryPlanName, schema: Schema, text_encoder: CachedTextEncoder) -> QueryPlan:
    """The component of that name."""
    makers: Mapping[QueryPlanName, QueryPlan] = {
        "plan": own_plan,
        "random": RandomPlan(schema, text_encoder),
        "none": plan_left_out,
    }
    return makers[name]
