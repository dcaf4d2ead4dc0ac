"""The pipeline on a batch: observe, propose, rerank, embed_plans, retrieve, execute.

The graph's nodes call it step by step; validation, evaluation and studies call ``run``. So the code that is
measured is the code that users run.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from omg_graph.codecs.codec import Estimate
from omg_graph.data.dataset import BoolArray, FloatArray, IntArray, Split
from omg_graph.encoders.hidden_states import raw_states
from omg_graph.errors import ConfigError
from omg_graph.executor.diffusion import DenoisingPath, Guidance, chosen_paths, path_costs
from omg_graph.executor.executor import ExecutorInput
from omg_graph.model.model import PSI_VIEW, Model
from omg_graph.planner.interface import PlannerInput, RescoringPlanner, required
from omg_graph.planner.rerank import Reranking, semantic_cost
from omg_graph.planner.rerank import rerank as rerank_all
from omg_graph.planner.schema import Plan
from omg_graph.priors.prior import Shown
from omg_graph.record.trajectory import CandidatePlan
from omg_graph.retriever.evidence import Evidence
from omg_graph.retriever.keys import PLAN_VIEW, build_keys
from omg_graph.telemetry import step

StepCallback = Callable[[int, int, int, dict[str, DenoisingPath]], None]
"""(draw from 0, step from 1, steps, the draw's paths so far)."""


@dataclass(frozen=True)
class Observation:
    """X as the models see it: the input of every later step."""

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    raw_text: tuple[str | None, ...] | None
    """Transcripts of what is observed."""
    latents: dict[str, Tensor]
    """Modality to (samples, latent), zeros where it is missing."""
    observed: Tensor
    """(samples, modalities)."""
    embedding: FloatArray
    """u_X, (samples, shared)."""
    label_estimates: FloatArray | None = None
    """The label regression's estimates, (samples, columns); None where the model has none."""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: Sequence[int] | IntArray) -> Observation:
        """Some of the samples, in the given order; rows may come more than once."""
        index = np.asarray(rows, dtype=np.int64)
        at = torch.from_numpy(index).to(self.observed.device)
        return Observation(
            tuple(self.ids[row] for row in index),
            tuple(self.groups[row] for row in index),
            None if self.raw_text is None else tuple(self.raw_text[row] for row in index),
            {name: value[at] for name, value in self.latents.items()},
            self.observed[at],
            self.embedding[index],
            None if self.label_estimates is None else self.label_estimates[index],
        )


@dataclass(frozen=True)
class Execution:
    """The executor's results for a batch, in latent units; rows that observe a modality are meaningless."""

    estimates: dict[str, Tensor]
    """The point estimate."""
    draws: dict[str, Tensor]
    """Modality to (draws, samples, latent); empty where none was drawn."""
    paths: dict[str, DenoisingPath]
    """The path of draw 0, in residual units."""
    anchors: dict[str, Tensor]
    outputs: Tensor | None = None
    """The task head's outputs, (samples, outputs); None without a task head."""
    outputs_without: Tensor | None = None
    """The same with zeros (the training mean of latents) in place of the estimates."""
    outputs_anchor: Tensor | None = None
    """The same with the anchor in place of the estimate."""
    path_costs: Tensor | None = None
    """C_path of every draw, (draws, samples), averaged over missing modalities; None without draws."""


@dataclass(frozen=True)
class Run:
    """The results of all steps for a batch."""

    observation: Observation
    ranked: list[Reranking]
    plan_embeddings: FloatArray
    evidence: dict[str, Evidence]
    execution: Execution

    @property
    def plans(self) -> list[Plan]:
        """S* of every sample."""
        return chosen_plans(self.ranked)


def run(
    model: Model,
    split: Split,
    *,
    seed: int = 0,
    draws: int = 1,
    candidates: int | None = None,
    top_k: int | None = None,
    steps: int | None = None,
) -> Run:
    """Every step on a batch, as the compiled graph takes them.

    Args:
        model: The model.
        split: The samples; what isn't observed is missing.
        seed: Random seed; draws also depend on the sample id, the modality and the number of the draw.
        draws: Samples of what is missing; 0 for the point estimate and the label alone.
        candidates: Plans drawn for each sample; the model's own number if None.
        top_k: Entries of evidence; the model's own number if None.
        steps: Denoising steps; the model's own number if None.
    """
    observation = observe(model, split)
    ranked = rerank(model, propose(model, split, observation, candidates, seed), observation.embedding)
    plans = chosen_plans(ranked)
    plan_embeddings = embed_plans(model, plans, split.ids)
    evidence = retrieve(model, observation, plans, plan_embeddings, top_k=top_k)
    vectors = {name: found.aggregated for name, found in evidence.items()}
    execution = execute(model, observation, plan_embeddings, vectors, seed=seed, draws=draws, steps=steps)
    return Run(observation, ranked, plan_embeddings, evidence, execution)


def observe(model: Model, split: Split) -> Observation:
    """Latents of observed modalities, u_X = psi(X) and label estimates, each computed once."""
    latents = {name: value.to(model.device) for name, value in model.latent_space.encode(split).items()}
    observed = torch.from_numpy(split.mask()).to(model.device)
    raw = None if model.hidden_states is None else raw_states(model.hidden_states, split).to(model.device)
    with torch.inference_mode():
        embedding = model.encoder(latents, observed, raw).cpu().numpy()
    estimates = None
    if model.label_regression is not None:
        shown = Shown(ids=split.ids, groups=split.groups, latents=latents, observed=observed)
        estimates = model.label_regression.predict(shown, split.raw_text).cpu().numpy()
    return Observation(split.ids, split.groups, split.raw_text, latents, observed, embedding, estimates)


def planner_input(split: Split, observation: Observation) -> PlannerInput:
    """What a planner is shown: u_X, transcripts, recordings, what is observed, label estimates."""
    observed = tuple(
        tuple(name for name, there in zip(split.names, row, strict=True) if there) for row in split.mask()
    )
    return PlannerInput(
        split.ids,
        observation.embedding,
        split.raw_text or (None,) * len(split),
        split.names,
        observed,
        split.recordings,
        observation.label_estimates,
    )


def propose(
    model: Model,
    split: Split,
    observation: Observation,
    candidates: int | None = None,
    seed: int = 0,
    *,
    heat: float = 0.0,
) -> list[list[CandidatePlan]]:
    """Omega(X): candidate plans for every sample.

    Args:
        model: Whose planner is asked.
        split: The samples, with the recordings that a planner may be shown.
        observation: What ``observe`` made of them.
        candidates: How many for each of them; the model's own number if None.
        seed: Random seed; draws also depend on the sample id.
        heat: By how much the temperature is raised, where a person wants other plans than the likely ones;
            the greedy plan is then left out. Log-probabilities are the same.

    Raises:
        NoValidPlanError: if the planner has no valid plan for a sample.
    """
    settings = model.config.planning
    sampling = settings.sampling(settings.candidates if candidates is None else candidates, heat)
    inputs = planner_input(split, observation)
    with step("planner.call", level=logging.DEBUG, samples=len(split), candidates=sampling.candidates):
        return required(model.planner.propose(inputs, sampling, seed))


def rerank(
    model: Model, candidates: Sequence[Sequence[CandidatePlan]], embedding: FloatArray
) -> list[Reranking]:
    """S* for every sample (Eqs. 5 and 6).

    Args:
        model: Whose schema and text encoder score them.
        candidates: Omega(X) of each sample.
        embedding: u_X, (samples, shared).
    """
    settings = model.config.planning
    return rerank_all(
        model.schema,
        model.text_encoder,
        candidates,
        embedding,
        semantic_weight=settings.semantic_weight,
    )


def chosen_plans(ranked: Sequence[Reranking]) -> list[Plan]:
    """The values of every sample's S*."""
    return [ranking.best.values for ranking in ranked]


def embed_plans(model: Model, plans: Sequence[Plan], ids: Sequence[str]) -> FloatArray:
    """c_S: (samples, constraints + 1, shared), the whole plan first, then each constraint (Eq. 4).

    Args:
        model: Whose text encoder embeds them.
        plans: The chosen plans.
        ids: Their samples' ids.
    """
    schema = model.schema
    texts = [text for plan in plans for text in (schema.text(plan), *schema.constraint_texts(plan))]
    rows = model.text_encoder.embed(texts).reshape(len(plans), -1, model.config.shared_width)
    condition: FloatArray = model.components.condition(torch.from_numpy(rows), ids).numpy()
    return condition


def retrieve(
    model: Model,
    observation: Observation,
    plans: Sequence[Plan],
    plan_embeddings: FloatArray,
    *,
    top_k: int | None = None,
    allow_own_group: bool = False,
) -> dict[str, Evidence]:
    """(E, N_K) for every missing modality (Eqs. 7-9).

    Args:
        model: Whose knowledge base is searched.
        observation: What ``observe`` made of the samples.
        plans: The chosen plans.
        plan_embeddings: What ``embed_plans`` made of them.
        top_k: Entries for each sample and modality; the model's own number if None.
        allow_own_group: Whether entries of a sample's own group may serve; itself never does.
    """
    missing = (~observation.observed).cpu().numpy()
    targets = {name: missing[:, column] for column, name in enumerate(model.names)}
    targets = {name: rows for name, rows in targets.items() if rows.any()}
    if not targets:
        return {}
    settings = model.config.retrieval
    whole = torch.from_numpy(plan_embeddings[:, 0])
    turning = model.components.query_plan(whole, observation.ids, model.schema, model.text_encoder)
    query, has_view = build_query(model, observation, turning.numpy())
    count = settings.top_k if top_k is None else top_k
    with step("retriever.query", level=logging.DEBUG, queries=len(observation), top_k=count):
        return model.retriever.retrieve(
            query,
            has_view,
            plan_embeddings[:, 0],
            ids=observation.ids,
            groups=observation.groups,
            targets=targets,
            k=count,
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
        vectors = {name: value.cpu().numpy() for name, value in observation.latents.items()}
        there = dict(zip(vectors, observation.observed.T.cpu().numpy(), strict=True))
        if model.config.retrieval.plan_view:
            vectors[PLAN_VIEW], there[PLAN_VIEW] = plan_embedding, np.any(plan_embedding, axis=1)
        raw, has_view = build_keys(vectors, there)
        if not model.config.retrieval.query_kept:
            return raw, has_view
    with torch.inference_mode():
        query = model.projection(
            torch.from_numpy(raw).to(model.device),
            torch.from_numpy(observation.embedding).to(model.device),
            torch.from_numpy(plan_embedding).to(model.device),
        )
    return query.cpu().numpy(), has_view


def execute(
    model: Model,
    observation: Observation,
    plan_embeddings: FloatArray,
    evidence: Mapping[str, FloatArray],
    *,
    seed: int = 0,
    draws: int = 1,
    steps: int | None = None,
    trusted: BoolArray | None = None,
    guidance: Guidance | None = None,
    estimate: Estimate | None = None,
    rank: bool = False,
    on_step: StepCallback | None = None,
) -> Execution:
    """Y^ and the label (Eqs. 10-13, 16, 17).

    Args:
        model: The model.
        observation: What ``observe`` made of the samples.
        plan_embeddings: What ``embed_plans`` made of the chosen plans.
        evidence: E of each missing modality, (samples, latent).
        seed: Random seed; draws also depend on the sample id, the modality and the number of the draw.
        draws: Samples of what may have been; with 0 every estimate is the conditional mean.
        steps: Denoising steps; the model's own number if None.
        trusted: (samples,): whose plan is a person's or a teacher's; nobody's if None.
        guidance: How strongly plan and evidence steer draws; the model's own weights if None.
        estimate: The conditional mean, or draw 0; what suits each modality's kind if None.
        rank: Whether draws are ranked by the utility (Eq. 2). With several draws the path kept is then that
            of each sample's draw with the least C_path, and that draw is the point estimate: within one plan
            the other terms of the utility are the same.
        on_step: Progress callback, after every step.

    Raises:
        ConfigError: if a draw is to be the estimate and none is made, or guidance is asked of a model that
            wasn't trained for it.
    """
    executor, device = model.executor, model.device
    if not draws and estimate == "sample":
        raise ConfigError("expected one draw or more for an estimate that is a sample, got 0: leave out one")
    batch = _executor_input(model, observation, plan_embeddings, evidence, trusted)
    with torch.inference_mode():
        conditions = executor.conditions(batch, executor.anchors(batch))
        estimates = executor.estimate(batch, conditions)
    sampled = sampled_modalities(model, estimate) if draws else ()
    paths: dict[str, DenoisingPath] = {}
    costs: list[Tensor] = []
    samples: dict[str, list[Tensor]] = {name: [] for name in executor.names}
    if not bool(batch.observed.all()):
        similar = executor.similar_rows(batch)
        for draw in range(draws):

            def report(number: int, of: int, made: dict[str, DenoisingPath], draw: int = draw) -> None:
                if on_step is not None:
                    on_step(draw, number, of, made)

            with step("executor.draw", level=logging.DEBUG, samples=len(batch.ids)) as drawing:
                made = executor.draw(
                    batch,
                    conditions,
                    seed=seed,
                    draw=draw,
                    steps=steps,
                    guidance=guidance,
                    similar=similar,
                    on_step=report,
                )
                drawing.count(draw=draw, steps=max(len(path.timesteps) for path in made.values()))
            costs.append(path_costs(made, batch.observed))
            if rank and draw:
                paths = chosen_paths(paths, made, costs[-1] < torch.stack(costs[:-1]).amin(dim=0))
            paths = paths or made
            for name, latents in executor.drawn_latents(made, conditions).items():
                samples[name].append(latents)
    stacked = {name: torch.stack(rows) for name, rows in samples.items() if rows}
    estimates |= {name: stacked[name][0] for name in sampled if name in stacked}
    ranked = torch.stack(costs) if costs else None
    if rank and ranked is not None and draws > 1:
        best, rows = ranked.argmin(dim=0).to(device), torch.arange(len(batch.ids), device=device)
        estimates = {name: drawn[best, rows] for name, drawn in stacked.items()}
    execution = Execution(estimates, stacked, paths, conditions.anchor, path_costs=ranked)
    return _with_label(model, observation, batch, execution)


def sampled_modalities(model: Model, estimate: Estimate | None) -> tuple[str, ...]:
    """The modalities whose estimate is draw 0, where draws are made."""
    kind = estimate or model.executor.config.point_estimate
    return {"kind": model.latent_space.sampled, "mean": (), "sample": model.names}[kind]


def _executor_input(
    model: Model,
    observation: Observation,
    plan_embeddings: FloatArray,
    evidence: Mapping[str, FloatArray],
    trusted: BoolArray | None,
) -> ExecutorInput:
    """A batch as the executor sees it, without the inputs of the task head alone."""
    device = model.device
    return ExecutorInput(
        ids=observation.ids,
        latents=observation.latents,
        observed=observation.observed,
        observation=torch.tensor(observation.embedding, device=device),
        plan=torch.tensor(plan_embeddings, device=device),
        evidence={
            name: torch.tensor(evidence[name], device=device)
            if name in evidence
            else torch.zeros(len(observation), width, device=device)
            for name, width in model.executor.widths.items()
        },
        groups=observation.groups,
        trusted=torch.zeros(len(observation), dtype=torch.bool, device=device)
        if trusted is None
        else torch.tensor(trusted, device=device),
    )


def _with_label(
    model: Model, observation: Observation, batch: ExecutorInput, execution: Execution
) -> Execution:
    """The label, with the estimates, without them, and with the anchor in their place (Eq. 17)."""
    head = model.executor.task
    if head is None:
        return execution
    estimates, words = observation.label_estimates, None
    if model.label_regression is not None:
        words = model.label_regression.describe(observation.raw_text, len(observation))
    batch = replace(
        batch,
        label_estimates=None if estimates is None else torch.tensor(estimates, device=model.device),
        words=None if words is None else words.to(model.device),
    )

    def outputs(fill: Mapping[str, Tensor]) -> Tensor:
        slots = model.executor.fill(batch, fill)
        said: Tensor = head(batch.observation, slots, batch.label_estimates, batch.observed, batch.words)
        return said

    nothing = {name: torch.zeros_like(latents) for name, latents in batch.latents.items()}
    with torch.inference_mode():
        return replace(
            execution,
            outputs=outputs(execution.estimates),
            outputs_without=outputs(nothing),
            outputs_anchor=outputs(execution.anchors),
        )


def score_written(
    model: Model,
    split: Split,
    observation: Observation,
    plan: Plan,
    *,
    semantic_weight: float,
    rescore: bool = True,
) -> CandidatePlan:
    """A plan of one sample that a person wrote, with Eq. 5's terms.

    Args:
        model: Whose planner and text encoder score it.
        split: The one sample.
        observation: What ``observe`` made of it.
        plan: Which obeys the model's schema.
        semantic_weight: lambda_s.
        rescore: Whether the planner is to be asked for log-probabilities; without them there is no score.

    Raises:
        PlanError: if the plan breaks the schema.
    """
    planner = model.planner
    rescored: CandidatePlan | None = None
    if rescore and isinstance(planner, RescoringPlanner):
        (rescored,) = planner.rescore(planner_input(split, observation), [plan])
    candidate = rescored or model.schema.candidate(plan)
    embedded = model.text_encoder.embed([model.schema.text(plan)])
    cost = float(semantic_cost(embedded, observation.embedding)[0])
    total = candidate.log_probability
    score = None if total is None else total - semantic_weight * cost
    return candidate.model_copy(
        update={"semantic_cost": cost, "score": score, "edited": True, "origin": None}
    )
