"""The variants by name: what each shows, what it changes, and where the paper reports it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from omg_graph.bench.ablation.components import (
    DenoiserWithoutObservation,
    JointDenoiser,
    always,
    classify_noisy_state,
    gaussian_noise,
    mean_weights,
    no_plan,
    no_weights,
    random_plan,
)
from omg_graph.bench.paper.tables import TableName
from omg_graph.errors import ConfigError
from omg_graph.model.components import DEFAULT_COMPONENTS, Components
from omg_graph.training.config import TrainingConfig

Changes = Callable[[TrainingConfig], dict[str, Any]]
"""From the method's settings to what is changed in them, nested as in a configuration file."""
Part = Literal["architecture", "regularisation", "task", "retrieval", "injection", "entries", "task weight"]
"""A table or figure of the results."""

DEFAULT = "default"
AT_INFERENCE = "@inference"
"""The end of a swap's name."""
ENTRIES = (1, 5, 10, 20, 50)
TASK_WEIGHTS = (0.0, 0.01, 0.1, 1.0)


@dataclass(frozen=True)
class Printed:
    """Where the paper reports a variant."""

    table: TableName | None
    """The table, or None for the drops in the text about Figure 4."""
    method: str
    """As it is printed there."""


@dataclass(frozen=True)
class Variant:
    """The method with one component replaced, trained from scratch."""

    name: str
    shows: str
    changes: Changes
    parts: tuple[Part, ...] = ()
    printed: Printed | None = None
    components: Components = DEFAULT_COMPONENTS
    probed: bool = False
    """Whether the gradients of its losses are compared while it trains."""


@dataclass(frozen=True)
class Swap:
    """The trained method with a part replaced at inference, without retraining."""

    name: str
    shows: str
    planning: Mapping[str, Any] = field(default_factory=dict)
    """Changed settings of ``ModelConfig.planning``."""
    retrieval: Mapping[str, Any] = field(default_factory=dict)
    """Changed settings of ``ModelConfig.retrieval``."""
    components: Components = DEFAULT_COMPONENTS


def _always(**changes: Any) -> Changes:
    return lambda _config: changes


NO_QUERY = {"epochs": 0}
"""Without evidence there is nothing for the query to learn."""
NEITHER: dict[str, Any] = {"retriever": NO_QUERY, "objective": {"plan": 0.0, "evidence": 0.0}}
"""No loss that asks for plan or evidence."""
ZEROS = Components(condition=no_plan, attention=no_weights)
"""For c_S and E."""

NO_NETWORKS = {"members": 0}
"""No direct head."""


def _reversed(config: TrainingConfig) -> dict[str, Any]:
    executor = config.executor
    return {
        "executor": {
            "shallow_layers": list(executor.deep_layers),
            "deep_layers": list(executor.shallow_layers),
        }
    }


def _figure_4(method: str) -> Printed:
    return Printed(None, method)


VARIANTS: tuple[Variant, ...] = (
    Variant(
        DEFAULT,
        "the method itself",
        _always(),
        ("architecture", "regularisation", "task", "injection"),
        Printed("ablation", "Ours"),
        probed=True,
    ),
    Variant(
        "no-planner",
        "c_S is Gaussian noise of its scale: what the plan brings",
        _always(),
        ("architecture",),
        _figure_4("w/o Planner"),
        Components(condition=gaussian_noise),
    ),
    Variant(
        "no-rerank",
        "one plan drawn from the planner stands unranked: what Eq. 5 brings",
        _always(planner={"candidates": 1, "include_greedy": False}),
        ("architecture",),
        _figure_4("w/o Re-ranking"),
    ),
    Variant(
        "no-retriever",
        "no evidence, in the anchor neither: what the knowledge base brings",
        _always(retriever=NO_QUERY, objective={"evidence": 0.0}),
        ("architecture",),
        _figure_4("w/o Retriever"),
        Components(attention=no_weights),
    ),
    Variant(
        "no-planner-no-retriever",
        "no plan and no evidence, everything else unchanged: what both bring together",
        _always(**NEITHER),
        ("architecture",),
        components=ZEROS,
    ),
    Variant(
        "plain-diffusion",
        "plain conditional diffusion: the same network and budget, no plan, evidence or closed-form fits",
        _always(**NEITHER, executor={"priors": ()}, task={"reading": "none", "direct": NO_NETWORKS}),
        ("architecture",),
        components=ZEROS,
    ),
    Variant(
        "no-anchor",
        "diffusion of the latent itself: what subtracting the anchor brings",
        _always(executor={"priors": ()}),
        ("architecture",),
    ),
    Variant(
        "no-plan-in-anchor",
        "the anchor's Gaussian conditional doesn't use the plan: what the plan brings there",
        _always(executor={"priors": ("evidence", "gaussian", "kernel")}),
        ("architecture",),
    ),
    Variant(
        "no-label-reader",
        "no closed-form label estimate, and no words: what the label estimate brings",
        _always(task={"reading": "none"}),
        ("task",),
    ),
    Variant(
        "no-direct-head",
        "no networks that predict the label directly from the observation: what they bring",
        _always(task={"direct": NO_NETWORKS}),
        ("task",),
    ),
    Variant(
        "head-alone",
        "the head gets only u_X and the slots: no label estimate, no direct head",
        _always(task={"reading": "none", "direct": NO_NETWORKS}),
        ("task",),
    ),
    Variant(
        "features-reader",
        "the label estimate uses features alone: what the words of a transcript bring",
        _always(task={"reading": "features"}),
        ("task",),
    ),
    Variant(
        "mean-pooling",
        "every retrieved entry has weight 1/K: what the attention of Eq. 8 brings",
        _always(),
        ("architecture",),
        _figure_4("w/o Sparse Attn"),
        Components(attention=mean_weights),
    ),
    Variant(
        "no-plan-loss",
        "without L_plan (Eq. 14)",
        _always(objective={"plan": 0.0}),
        ("regularisation",),
        Printed("ablation", "w/o L_plan"),
    ),
    Variant(
        "no-evidence-loss",
        "without L_evi (Eq. 14)",
        _always(objective={"evidence": 0.0}),
        ("regularisation",),
        Printed("ablation", "w/o L_evi"),
    ),
    Variant(
        "no-plan-no-evidence-loss",
        "without L_plan and L_evi",
        _always(objective={"plan": 0.0, "evidence": 0.0}),
        ("regularisation",),
        Printed("ablation", "w/o Both"),
    ),
    Variant(
        "no-task-loss",
        "reconstruction alone (Eq. 15); the head is fitted on the final estimates",
        _always(objective={"task": 0.0}, task={"refit": True}),
        ("task",),
        Printed("ablation", "w/o L_task"),
    ),
    Variant(
        "joint-head",
        "the jointly trained head (Eq. 18) is kept: compare noisy-state-classification and entangled with it",
        _always(task={"refit": False}),
        ("task", "injection"),
    ),
    Variant(
        "noisy-state-classification",
        "L_task on the noisy state z_t instead of its one-step estimate (Eq. 16)",
        _always(task={"refit": False}),
        ("task",),
        Printed("ablation", "Direct Classification"),
        Components(objective=classify_noisy_state),
    ),
    Variant(
        "content-only",
        "the query's correction uses u_X alone, and is kept even if it makes validation worse",
        _always(),
        ("retrieval",),
        Printed("retrieval", "Content-Only Retrieval"),
        Components(query_plan=no_plan, keep_query=always),
    ),
    Variant(
        "random-plan",
        "the query's correction uses a random plan",
        _always(),
        ("retrieval",),
        Printed("retrieval", "Random-Plan Retrieval"),
        Components(query_plan=random_plan, keep_query=always),
    ),
    Variant(
        "plan-driven",
        "the query's correction uses the plan, and is kept even if it makes validation worse",
        _always(),
        ("retrieval",),
        Printed("retrieval", "Plan-Driven Retrieval"),
        Components(keep_query=always),
    ),
    Variant(
        "concat-injection",
        "plan and evidence are concatenated and enter every layer through the same weights",
        _always(executor={"shallow_layers": [], "deep_layers": []}),
        ("injection",),
        Printed("injection", "Concat-Injection"),
        Components(denoiser=JointDenoiser),
        probed=True,
    ),
    Variant(
        "reversed-injection",
        "the plan enters the shallow layers, evidence the deep ones",
        _reversed,
        ("injection",),
        Printed("injection", "Reversed-Injection"),
    ),
    Variant(
        "single-stream",
        "evidence enters the shallow layers, the plan none",
        _always(executor={"deep_layers": []}),
        ("injection",),
        Printed("injection", "Single-Stream"),
    ),
    Variant(
        "entangled",
        "one network on X alone with all losses, end to end: no plan, evidence, anchor or u_X",
        _always(
            retriever=NO_QUERY,
            executor={
                "shallow_layers": [],
                "deep_layers": [],
                "priors": (),
                "observed_slots": True,
            },
            objective={"evidence": 0.0},
            task={"refit": False},
        ),
        ("injection",),
        components=Components(attention=no_weights, denoiser=DenoiserWithoutObservation),
        probed=True,
    ),
    *(
        Variant(f"top-k-{k}", f"K = {k} entries of evidence", _always(retriever={"top_k": k}), ("entries",))
        for k in ENTRIES
    ),
    *(
        Variant(
            f"task-weight-{weight:g}",
            f"lambda_task = {weight:g}",
            _always(objective={"task": weight}),
            ("task weight",),
        )
        for weight in TASK_WEIGHTS
    ),
)
"""All of them, the method first."""

SWAPS: tuple[Swap, ...] = (
    Swap(
        f"no-planner{AT_INFERENCE}",
        "noise in place of c_S",
        components=Components(condition=gaussian_noise),
    ),
    Swap(
        f"no-rerank{AT_INFERENCE}",
        "one drawn plan, without re-ranking",
        planning={"candidates": 1, "include_greedy": False},
    ),
    Swap(
        f"no-retriever{AT_INFERENCE}",
        "no evidence; its share of the anchor is zero",
        components=Components(attention=no_weights),
    ),
    Swap(
        f"mean-pooling{AT_INFERENCE}",
        "entries weigh the same",
        components=Components(attention=mean_weights),
    ),
    *(Swap(f"top-k-{k}{AT_INFERENCE}", f"K = {k}", retrieval={"top_k": k}) for k in ENTRIES),
)
"""What can be swapped in the trained method, to tell what it relies on from what it could do without."""


def choose(names: Sequence[str]) -> tuple[list[Variant], list[Swap]]:
    """The variants and swaps of these names, all where none is given; the default always, and first.

    Raises:
        ConfigError: if there is none of such a name.
    """
    known = [*(variant.name for variant in VARIANTS), *(swap.name for swap in SWAPS)]
    for name in names:
        if name not in known:
            raise ConfigError(f"--only: expected one of {', '.join(known)}, got {name!r}")
    wanted = set(names or known) | {DEFAULT}
    return (
        [variant for variant in VARIANTS if variant.name in wanted],
        [swap for swap in SWAPS if swap.name in wanted],
    )
