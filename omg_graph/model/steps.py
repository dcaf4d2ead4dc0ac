"""The four steps of the workflow on a batch: plain code that the graph's nodes call, one step each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.executor.denoiser import Conditions
from omg_graph.executor.executor import ExecutorInput
from omg_graph.executor.sampling import DenoisingPath
from omg_graph.model.model import PSI_VIEW, Model
from omg_graph.planner.interface import CandidatePlan, PlannerInput
from omg_graph.planner.rerank import Reranking, score_candidates
from omg_graph.planner.schema import Plan
from omg_graph.planner.student import StudentPlanner
from omg_graph.retriever.evidence import Evidence
from omg_graph.retriever.keys import build_keys
from omg_graph.samples.dataset import FloatArray, Split

StepCallback = Callable[[int, int, int], None]
"""(draw from 0, step from 1, steps)."""


@dataclass(frozen=True)
class Observation:
    """X as the models see it."""

    latents: dict[str, Tensor]
    observed: Tensor
    embedding: FloatArray
    """u_X, (samples, shared)."""


def observe(model: Model, split: Split) -> Observation:
    """u_X = psi(X), and the latents of what is observed."""
    latents = {name: value.to(model.device) for name, value in model.latent_space.encode(split).items()}
    observed = torch.from_numpy(split.mask()).to(model.device)
    with torch.inference_mode():
        embedding = model.encoder(latents, observed).cpu().numpy()
    return Observation(latents, observed, embedding)


def propose(
    model: Model, split: Split, embedding: FloatArray, candidates: int, seed: int
) -> list[list[CandidatePlan]]:
    """Omega(X): candidate plans for every sample."""
    texts = split.raw_text or (None,) * len(split)
    observed = tuple(
        tuple(name for name, there in zip(split.names, row, strict=True) if there) for row in split.mask()
    )
    inputs = PlannerInput(split.ids, embedding, tuple(texts), split.names, observed)
    if isinstance(model.planner, StudentPlanner):
        greedy = model.config.planning.include_greedy
        return model.planner.propose(inputs, candidates, seed, include_greedy=greedy)
    return model.planner.propose(inputs, candidates, seed)


def rerank(
    model: Model, candidates: Sequence[Sequence[CandidatePlan]], embedding: FloatArray
) -> list[Reranking]:
    """S* for every sample (Eqs. 5 and 6)."""
    settings = model.config.planning
    flat = [plan for plans in candidates for plan in plans]
    valid = [not model.schema.violations(plan.constraints) for plan in flat]
    texts = [model.schema.text(plan.constraints) if ok else "" for plan, ok in zip(flat, valid, strict=True)]
    embedded = model.text_encoder.embed([text for text in texts if text])
    rows = np.zeros((len(flat), model.config.shared_width), dtype=np.float32)
    rows[np.array(valid, dtype=np.bool_)] = embedded
    chosen, start = [], 0
    for plans, observation in zip(candidates, embedding, strict=True):
        chosen.append(
            score_candidates(
                model.schema,
                plans,
                rows[start : start + len(plans)],
                observation,
                semantic_weight=settings.semantic_weight,
                schema_weight=settings.schema_penalty,
            )
        )
        start += len(plans)
    return chosen


def embed_plans(model: Model, plans: Sequence[Plan]) -> FloatArray:
    """c_S: (samples, constraints + 1, shared), the whole plan first, then each constraint (Eq. 4)."""
    texts = [text for plan in plans for text in plan_texts(model, plan)]
    rows = model.text_encoder.embed(texts)
    return rows.reshape(len(plans), -1, model.config.shared_width)


def plan_texts(model: Model, plan: Plan) -> tuple[str, ...]:
    """The texts of a plan that g embeds."""
    return (model.schema.text(plan), *model.schema.constraint_texts(plan))


def retrieve(
    model: Model,
    split: Split,
    observation: Observation,
    plans: Sequence[Plan],
    plan_embeddings: FloatArray,
    *,
    top_k: int,
    allow_own_group: bool = False,
) -> dict[str, Evidence]:
    """(E, N_K) for every missing modality (Eqs. 7-9)."""
    targets = {name: ~split.observed[name] for name in model.names}
    targets = {name: rows for name, rows in targets.items() if rows.any()}
    if not targets:
        return {}
    query, has_view = build_query(model, observation, plan_embeddings[:, 0])
    return model.retriever.retrieve(
        query,
        has_view,
        plan_embeddings[:, 0],
        ids=split.ids,
        groups=split.groups,
        targets=targets,
        k=top_k,
        allow_own_group=allow_own_group,
        plan_texts=[model.schema.text(plan) for plan in plans],
    )


def build_query(
    model: Model, observation: Observation, plan_embedding: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Eq. 7's query and the views that it has."""
    if model.config.retrieval.query == "literal":
        raw, has_view = build_keys(
            {PSI_VIEW: observation.embedding},
            {PSI_VIEW: np.ones(len(observation.embedding), dtype=np.bool_)},
        )
    else:
        raw, has_view = build_keys(
            {name: value.cpu().numpy() for name, value in observation.latents.items()},
            {
                name: observation.observed[:, column].cpu().numpy()
                for column, name in enumerate(observation.latents)
            },
        )
        if not model.config.retrieval.query_kept:
            return raw, has_view
    with torch.inference_mode():
        query = model.projection(
            torch.from_numpy(raw).to(model.device),
            torch.from_numpy(observation.embedding).to(model.device),
            torch.from_numpy(plan_embedding).to(model.device),
        )
    return query.cpu().numpy(), has_view


@dataclass(frozen=True)
class Execution:
    """What the executor made of a batch, in latent units; rows where a modality is observed mean nothing."""

    estimates: dict[str, Tensor]
    """The point estimate."""
    draws: dict[str, Tensor]
    """Modality to (draws, samples, latent)."""
    paths: dict[str, DenoisingPath]
    """The path of draw 0, in residual units."""
    anchors: dict[str, Tensor]
    outputs: Tensor | None
    """What the task head says, (samples, outputs); None without one."""


def execute(
    model: Model,
    split: Split,
    observation: Observation,
    plan_embeddings: FloatArray,
    evidence: Mapping[str, FloatArray],
    *,
    seed: int,
    draws: int = 1,
    steps: int | None = None,
    on_step: StepCallback | None = None,
) -> Execution:
    """Y^ and the label (Eqs. 10-13, 16, 17).

    Args:
        model: The model.
        split: The samples.
        observation: What ``observe`` made of them.
        plan_embeddings: What ``embed_plans`` made of the chosen plans.
        evidence: E of each missing modality, (samples, latent).
        seed: With id, modality and draw it decides everything random.
        draws: Samples of what may have been.
        steps: Denoising steps; the model's own if None.
        on_step: Told of every step.
    """
    executor, device = model.executor, model.device
    batch = _executor_input(model, split, observation, plan_embeddings, evidence)
    conditions, estimates = _estimates(model, batch)
    paths: dict[str, DenoisingPath] = {}
    samples: dict[str, list[Tensor]] = {name: [] for name in executor.names}
    if not bool(observation.observed.all()):
        for draw in range(draws):

            def told(step: int, of: int, draw: int = draw) -> None:
                if on_step is not None:
                    on_step(draw, step, of)

            made = executor.draw(batch, conditions, seed=seed, draw=draw, steps=steps, on_step=told)
            paths = paths or made
            for name in executor.names:
                final = made[name].states[-1].to(device)
                samples[name].append(executor.latent_estimate(name, final, conditions.anchor[name]))
    stacked = {name: torch.stack(rows) for name, rows in samples.items() if rows}
    if executor.config.point_estimate == "sample" and stacked:
        estimates = {name: rows[0] for name, rows in stacked.items()}
    return Execution(estimates, stacked, paths, conditions.anchor, _outputs(model, batch, estimates))


def point_estimates(
    model: Model,
    split: Split,
    observation: Observation,
    plan_embeddings: FloatArray,
    evidence: Mapping[str, FloatArray],
) -> Execution:
    """Like ``execute`` with no sample drawn: the mean estimate and the label alone."""
    batch = _executor_input(model, split, observation, plan_embeddings, evidence)
    conditions, estimates = _estimates(model, batch)
    return Execution(estimates, {}, {}, conditions.anchor, _outputs(model, batch, estimates))


def _executor_input(
    model: Model,
    split: Split,
    observation: Observation,
    plan_embeddings: FloatArray,
    evidence: Mapping[str, FloatArray],
) -> ExecutorInput:
    device = model.device
    return ExecutorInput(
        ids=split.ids,
        latents=observation.latents,
        observed=observation.observed,
        observation=torch.tensor(observation.embedding, device=device),
        plan=torch.tensor(plan_embeddings, device=device),
        evidence={
            name: torch.tensor(evidence[name], device=device)
            if name in evidence
            else torch.zeros(len(split), width, device=device)
            for name, width in model.executor.widths.items()
        },
    )


def _estimates(model: Model, batch: ExecutorInput) -> tuple[Conditions, dict[str, Tensor]]:
    executor = model.executor
    with torch.inference_mode():
        conditions = executor.conditions(batch, executor.anchors(batch))
        return conditions, executor.estimate(batch, conditions)


def _outputs(model: Model, batch: ExecutorInput, estimates: Mapping[str, Tensor]) -> Tensor | None:
    if model.executor.task is None:
        return None
    with torch.inference_mode():
        outputs: Tensor = model.executor.task(batch.observation, model.executor.fill(batch, estimates))
    return outputs
