"""The four steps of the workflow on a batch: plain code that the graph's nodes call, one step each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.data.dataset import FloatArray, Split
from omg_graph.encoders.hidden_states import raw_states
from omg_graph.executor.denoiser import Conditions
from omg_graph.executor.executor import ExecutorInput
from omg_graph.executor.sampling import DenoisingPath, chosen_paths, path_costs
from omg_graph.model.conditions import PLAN_CONDITIONS, query_plan
from omg_graph.model.model import PSI_VIEW, Model
from omg_graph.planner.interface import HotterPlanner, PlannerInput, RescoringPlanner, drawing_without_effect
from omg_graph.planner.rerank import Reranking, semantic_cost
from omg_graph.planner.rerank import rerank as rerank_all
from omg_graph.planner.schema import Plan
from omg_graph.planner.student import StudentPlanner
from omg_graph.record.trajectory import CandidatePlan
from omg_graph.retriever.evidence import Evidence
from omg_graph.retriever.keys import build_keys
from omg_graph.telemetry import step

StepCallback = Callable[[int, int, int, dict[str, DenoisingPath]], None]
"""(draw from 0, step from 1, steps, the draw's paths so far)."""


@dataclass(frozen=True)
class Observation:
    """X as the models see it."""

    latents: dict[str, Tensor]
    observed: Tensor
    embedding: FloatArray
    """u_X, (samples, shared)."""


def observe(model: Model, split: Split) -> Observation:
    """u_X = psi(X), and the latents of what is observed."""
    latents, observed = encode(model, split)
    raw = None if model.hidden_states is None else raw_states(model.hidden_states, split).to(model.device)
    with torch.inference_mode():
        embedding = model.encoder(latents, observed, raw).cpu().numpy()
    return Observation(latents, observed, embedding)


def encode(model: Model, split: Split) -> tuple[dict[str, Tensor], Tensor]:
    """Latents of what is observed, zeros elsewhere, and which that is: (samples, modalities)."""
    latents = {name: value.to(model.device) for name, value in model.latent_space.encode(split).items()}
    return latents, torch.from_numpy(split.mask()).to(model.device)


def planner_input(model: Model, split: Split, embedding: FloatArray) -> PlannerInput:
    """What a planner is shown: u_X, transcripts, recordings, what is observed, label estimates."""
    texts = split.raw_text or (None,) * len(split)
    observed = tuple(
        tuple(name for name, there in zip(split.names, row, strict=True) if there) for row in split.mask()
    )
    return PlannerInput(
        split.ids,
        embedding,
        tuple(texts),
        split.names,
        observed,
        split.recordings,
        label_estimates(model, split),
    )


def label_estimates(model: Model, split: Split) -> FloatArray | None:
    """The label regression's estimates, (samples, values); None where the model has none."""
    if model.label_regression is None:
        return None
    latents, observed = encode(model, split)
    return (
        model.label_regression.read(latents, observed, split.raw_text, split.ids, split.groups).cpu().numpy()
    )


def propose(
    model: Model, split: Split, embedding: FloatArray, candidates: int, seed: int, *, heat: float = 0.0
) -> list[list[CandidatePlan]]:
    """Omega(X): candidate plans for every sample.

    Args:
        model: Whose planner is asked.
        split: The samples.
        embedding: u_X, (samples, shared).
        candidates: How many for each of them.
        seed: With the id it decides what is drawn.
        heat: By how much the planner's temperature is higher, if it has one, where a person wants other
            plans than the likely ones; the greedy plan is then left out. Log-probabilities are the same.
    """
    inputs = planner_input(model, split, embedding)
    with step("planner.call", level=logging.DEBUG, samples=len(split), candidates=candidates):
        if isinstance(model.planner, StudentPlanner):
            settings = model.config.planning
            return model.planner.propose(
                inputs,
                candidates,
                seed,
                include_greedy=settings.include_greedy and not heat,
                temperature=settings.temperature + heat,
                top_p=settings.top_p,
            )
        planner = model.planner
        if heat and isinstance(planner, HotterPlanner):
            planner = planner.hotter(heat)
        return planner.propose(inputs, candidates, seed)


def drawing_note(model: Model, settings: Mapping[str, bool | float | None]) -> str | None:
    """What to tell someone whose wishes of how to draw plans the planner can't heed; None where it does.

    Args:
        model: Whose planner is asked.
        settings: ``greedy``, ``temperature`` and ``top_p``; None where nothing was asked for.
    """
    asked = {name: value for name, value in settings.items() if value is not None}
    return None if isinstance(model.planner, StudentPlanner) else drawing_without_effect(model.planner, asked)


def rerank(
    model: Model, candidates: Sequence[Sequence[CandidatePlan]], embedding: FloatArray
) -> list[Reranking]:
    """S* for every sample (Eqs. 5 and 6)."""
    settings = model.config.planning
    return rerank_all(
        model.schema,
        model.text_encoder,
        candidates,
        embedding,
        semantic_weight=settings.semantic_weight,
        schema_weight=settings.schema_penalty,
    )


def embed_plans(model: Model, plans: Sequence[Plan], ids: Sequence[str]) -> FloatArray:
    """c_S: (samples, constraints + 1, shared), the whole plan first, then each constraint (Eq. 4).

    Args:
        model: The model, which may take something else for c_S.
        plans: The chosen plans.
        ids: Their samples' ids.
    """
    texts = [text for plan in plans for text in plan_texts(model, plan)]
    rows = model.text_encoder.embed(texts).reshape(len(plans), -1, model.config.shared_width)
    condition: FloatArray = PLAN_CONDITIONS[model.config.planning.condition](
        torch.from_numpy(rows), ids
    ).numpy()
    return condition


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
    turned = query_plan(model.config.retrieval.query_plan, model.schema, model.text_encoder)
    asked = turned(torch.from_numpy(plan_embeddings[:, 0]), split.ids).numpy()
    query, has_view = build_query(model, observation, asked)
    with step("retriever.query", level=logging.DEBUG, queries=len(split), top_k=top_k):
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
    outputs: Tensor | None = None
    """What the task head says, (samples, outputs); None without one."""
    path_costs: Tensor | None = None
    """C_path of every draw, (draws, samples), averaged over missing modalities; where draws are ranked."""
    outputs_without: Tensor | None = None
    """The same with zeros, the training mean of latents, in place of what was estimated."""
    outputs_anchor: Tensor | None = None
    """The same with the anchor in place of the estimate."""


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
    batch = executor_input(model, split, observation, plan_embeddings, evidence)
    made = denoise(model, batch, seed=seed, draws=draws, steps=steps, on_step=on_step)
    return predict(model, split, batch, made)


def denoise(
    model: Model,
    batch: ExecutorInput,
    *,
    seed: int,
    draws: int = 1,
    steps: int | None = None,
    rank: bool = False,
    on_step: StepCallback | None = None,
) -> Execution:
    """The point estimate, and draws with the path of the first (Eqs. 10-13, 16); the label comes after.

    With ``rank`` and several draws, the path kept is that of each sample's draw with the least C_path, and
    that draw is the point estimate (Eq. 2): within one plan the other terms of the utility are the same.
    """
    executor, device = model.executor, model.device
    conditions, estimates = _estimates(model, batch)
    paths: dict[str, DenoisingPath] = {}
    costs: list[Tensor] = []
    samples: dict[str, list[Tensor]] = {name: [] for name in executor.names}
    if not bool(batch.observed.all()):
        alike = executor.alike_rows(batch)
        for draw in range(draws):

            def told(number: int, of: int, made: dict[str, DenoisingPath], draw: int = draw) -> None:
                if on_step is not None:
                    on_step(draw, number, of, made)

            with step("executor.draw", level=logging.DEBUG, samples=len(batch.ids)) as drawing:
                made = executor.draw(
                    batch, conditions, seed=seed, draw=draw, steps=steps, alike=alike, on_step=told
                )
                drawing.count(draw=draw, steps=max(len(path.timesteps) for path in made.values()))
            if rank:
                costs.append(path_costs(made, batch.observed))
            if costs[1:]:
                paths = chosen_paths(paths, made, costs[-1] < torch.stack(costs[:-1]).amin(dim=0))
            paths = paths or made
            for name in executor.names:
                final = made[name].states[-1].to(device)
                samples[name].append(executor.latent_estimate(name, final, conditions.anchor[name]))
    stacked = {name: torch.stack(rows) for name, rows in samples.items() if rows}
    if executor.config.point_estimate == "sample" and stacked:
        estimates = {name: rows[0] for name, rows in stacked.items()}
    ranked = torch.stack(costs) if costs else None
    if ranked is not None and draws > 1:
        best, rows = ranked.argmin(dim=0).to(device), torch.arange(len(batch.ids), device=device)
        estimates = {name: drawn[best, rows] for name, drawn in stacked.items()}
    return Execution(estimates, stacked, paths, conditions.anchor, path_costs=ranked)


def predict(model: Model, split: Split, batch: ExecutorInput, execution: Execution) -> Execution:
    """The label, with what was estimated and without (Eq. 17)."""
    batch = _with_label_estimates(model, split, batch)
    nothing = {name: torch.zeros_like(latents) for name, latents in batch.latents.items()}
    return replace(
        execution,
        outputs=_outputs(model, batch, execution.estimates),
        outputs_without=_outputs(model, batch, nothing),
        outputs_anchor=_outputs(model, batch, execution.anchors),
    )


def point_estimates(
    model: Model,
    split: Split,
    observation: Observation,
    plan_embeddings: FloatArray,
    evidence: Mapping[str, FloatArray],
) -> Execution:
    """Like ``execute`` with no sample drawn: the mean estimate and the label alone."""
    batch = executor_input(model, split, observation, plan_embeddings, evidence)
    batch = _with_label_estimates(model, split, batch)
    conditions, estimates = _estimates(model, batch)
    return Execution(
        estimates,
        {},
        {},
        conditions.anchor,
        _outputs(model, batch, estimates),
        outputs_anchor=_outputs(model, batch, conditions.anchor),
    )


def executor_input(
    model: Model,
    split: Split,
    observation: Observation,
    plan_embeddings: FloatArray,
    evidence: Mapping[str, FloatArray],
) -> ExecutorInput:
    """A batch as the executor sees it."""
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
        groups=split.groups,
    )


def _with_label_estimates(model: Model, split: Split, batch: ExecutorInput) -> ExecutorInput:
    """The batch with the label regression's estimates, where there is one."""
    if model.label_regression is None:
        return batch
    estimates = model.label_regression.read(
        batch.latents, batch.observed, split.raw_text, batch.ids, batch.groups
    )
    words = model.label_regression.describe(split.raw_text, len(split))
    return replace(batch, label_estimates=estimates, words=None if words is None else words.to(model.device))


def _estimates(model: Model, batch: ExecutorInput) -> tuple[Conditions, dict[str, Tensor]]:
    executor = model.executor
    with torch.inference_mode():
        conditions = executor.conditions(batch, executor.anchors(batch))
        return conditions, executor.estimate(batch, conditions)


def _outputs(model: Model, batch: ExecutorInput, estimates: Mapping[str, Tensor]) -> Tensor | None:
    if model.executor.task is None:
        return None
    with torch.inference_mode():
        slots = model.executor.fill(batch, estimates)
        outputs: Tensor = model.executor.task(
            batch.observation, slots, batch.label_estimates, batch.observed, batch.words
        )
    return outputs


def score_written(
    model: Model,
    split: Split,
    embedding: FloatArray,
    plan: Plan,
    *,
    semantic_weight: float,
    rescore: bool = True,
) -> CandidatePlan:
    """A plan of one sample that a person wrote, with Eq. 5's terms.

    Args:
        model: Whose planner and text encoder score it.
        split: The one sample.
        embedding: u_X, (1, shared).
        plan: Which obeys the model's schema.
        semantic_weight: lambda_s.
        rescore: Whether the planner is to be asked for log-probabilities; without them there is no score.

    Raises:
        PlanError: if the plan breaks the schema.
    """
    planner = model.planner
    rescored: CandidatePlan | None = None
    if rescore and isinstance(planner, RescoringPlanner):
        (rescored,) = planner.rescore(planner_input(model, split, embedding), [plan])
    candidate = rescored or model.schema.candidate(plan)
    cost = float(semantic_cost(model.text_encoder.embed([model.schema.text(plan)]), embedding)[0])
    total = candidate.log_probability
    score = None if total is None else total - semantic_weight * cost
    return candidate.model_copy(
        update={"semantic_cost": cost, "score": score, "edited": True, "origin": None}
    )
