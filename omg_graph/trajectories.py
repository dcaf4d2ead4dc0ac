"""Trajectories as planner, re-rank and retriever write them: words, numbers and references to arrays."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from omg_graph import pipeline
from omg_graph.data.dataset import FloatArray, Split
from omg_graph.errors import PlanError
from omg_graph.model.model import Model
from omg_graph.pipeline import Observation
from omg_graph.planner.rerank import Reranking
from omg_graph.planner.schema import Plan as PlanValues
from omg_graph.record.artifacts import ArtifactStore
from omg_graph.record.trajectory import (
    CandidatePlan,
    Plan,
    PlanOrigin,
    Trajectory,
)
from omg_graph.retriever.evidence import Evidence
from omg_graph.state import Batch, Settings

Trajectories = list[Trajectory]


def opened(
    model: Model,
    batch: Batch,
    split: Split,
    candidates: Sequence[Sequence[CandidatePlan]],
    seed: int,
    notes: tuple[str, ...],
) -> Trajectories:
    """New trajectories, with the plans that were drawn."""
    if model.config.synthetic:
        notes = (*notes, "the model was trained on synthetic data")
    mask, names = split.mask(), split.names
    origins = [plans[0].origin if plans else None for plans in candidates]
    return [
        Trajectory(
            id=split.ids[row],
            group=split.groups[row],
            observed=tuple(name for name, there in zip(names, mask[row], strict=True) if there),
            missing=tuple(name for name, there in zip(names, mask[row], strict=True) if not there),
            hidden=tuple(name for name, rows in batch.hidden.items() if rows[row]),
            raw_text=None if split.raw_text is None else split.raw_text[row],
            candidates=counted(plans),
            plan_origin=origins[row],
            seed=seed,
            model=model.manifest.fingerprint,
            notes=notes if (origin := origins[row]) is None or origin.note is None else (*notes, origin.note),
        )
        for row, plans in enumerate(candidates)
    ]


def counted(plans: Sequence[CandidatePlan]) -> tuple[CandidatePlan, ...]:
    """The different plans among those that the planner drew, with how often each came."""
    equal: dict[PlanValues, list[CandidatePlan]] = {}
    for plan in plans:
        equal.setdefault(plan.values, []).append(plan)
    # a service may give one plan several log-probabilities: the highest is what would have won
    return tuple(
        max(same, key=lambda plan: sum(plan.log_probabilities)).model_copy(
            update={"greedy": any(plan.greedy for plan in same), "times": len(same), "origin": None}
        )
        for same in equal.values()
    )


def planned(model: Model, trajectories: Trajectories, ranked: Sequence[Reranking]) -> Trajectories:
    """The chosen plan, and every term of every candidate's score."""
    out = []
    for trajectory, ranking in zip(trajectories, ranked, strict=True):
        winner = ranking.best
        origin = trajectory.plan_origin or PlanOrigin(planner=model.planner.name)
        plan = Plan(
            schema_name=model.schema.name,
            planner=origin.planner,
            text=winner.text,
            constraints=winner.constraints,
            chosen=ranking.chosen,
            semantic_weight=model.config.planning.semantic_weight,
            candidates=ranking.candidates,
            prompt_version=origin.prompt_version,
            prompt_sha256=origin.prompt_sha256,
            confidence=origin.confidence,
            recordings=origin.recordings,
            decoding=origin.decoding,
        )
        out.append(trajectory.model_copy(update={"plan": plan, "candidates": (), "plan_origin": None}))
    return out


def plans_of(trajectories: Trajectories) -> list[PlanValues]:
    """The values of the chosen plans.

    Raises:
        PlanError: if a trajectory has no plan yet.
    """
    plans = []
    for trajectory in trajectories:
        if trajectory.plan is None:
            raise PlanError(f"sample {trajectory.id!r} has no plan: run the re-rank node first")
        plans.append(tuple(constraint.value for constraint in trajectory.plan.constraints))
    return plans


def ground(
    model: Model,
    store: ArtifactStore,
    observation: Observation,
    trajectories: Sequence[Trajectory],
    plan_embeddings: FloatArray,
    settings: Settings,
) -> Trajectories:
    """The evidence of every sample, looked up where there is none yet.

    A sample whose trajectory has evidence is in a fork behind the retriever: nothing is looked up again.

    Args:
        model: Whose knowledge base is searched.
        store: Where arrays go.
        observation: Of the samples.
        trajectories: With their plans.
        plan_embeddings: c_S, (samples, constraints + 1, shared).
        settings: top_k, allow_own_group, and whether pictures are kept.
    """
    result = list(trajectories)
    rows = [row for row, trajectory in enumerate(trajectories) if not trajectory.evidence]
    if rows:
        waiting = [trajectories[row] for row in rows]
        evidence = pipeline.retrieve(
            model,
            observation.take(rows),
            plans_of(waiting),
            plan_embeddings[rows],
            top_k=settings.top_k,
            allow_own_group=settings.allow_own_group,
        )
        looked_up = grounded(
            model, waiting, evidence, plan_embeddings[rows], store, keep_nearest=settings.keeps_pictures
        )
        for row, trajectory in zip(rows, looked_up, strict=True):
            result[row] = trajectory
    return result


def evidence_vectors(
    model: Model, store: ArtifactStore, observation: Observation, trajectories: Sequence[Trajectory]
) -> dict[str, FloatArray]:
    """E of every missing modality, (samples, latent width); zeros where nothing was found."""
    vectors = {
        name: np.zeros((len(observation), model.latent_space.widths[name]), dtype=np.float32)
        for column, name in enumerate(model.names)
        if not bool(observation.observed[:, column].all())
    }
    for row, trajectory in enumerate(trajectories):
        for name in trajectory.evidence:
            vectors[name][row] = store.get(trajectory.arrays[f"evidence/{name}"])
    return vectors


def grounded(
    model: Model,
    trajectories: Trajectories,
    evidence: Mapping[str, Evidence],
    plan_embeddings: FloatArray,
    store: ArtifactStore,
    *,
    keep_nearest: bool,
) -> Trajectories:
    """The evidence of every missing modality, traceable to its sources.

    Args:
        model: Which decodes the nearest entry.
        trajectories: So far.
        evidence: What was found, by modality.
        plan_embeddings: c_S, (samples, constraints + 1, shared).
        store: Where arrays go.
        keep_nearest: Whether to keep the nearest entry's value, in the input's units.
    """
    out = []
    for row, trajectory in enumerate(trajectories):
        notes = trajectory.notes
        entries, costs, left_out = {}, {}, {}
        arrays = trajectory.arrays | {"plan_embedding": store.put(plan_embeddings[row])}
        for name in trajectory.missing:
            if name not in evidence:
                continue
            found = evidence[name]
            if found.note is not None and found.note not in notes:
                notes = (*notes, found.note)
            entries[name] = found.entries[row]
            left_out[name] = int(found.excluded[row])
            arrays[f"evidence/{name}"] = store.put(found.aggregated[row])
            if entries[name]:
                costs[name] = float(found.alignment_cost[row])
                if keep_nearest and found.nearest is not None:
                    value = torch.from_numpy(found.nearest[row : row + 1])
                    arrays[f"nearest/{name}"] = store.put(model.latent_space.decode(name, value)[0])
            else:
                notes = (*notes, f"no evidence was found for {name}")
        out.append(
            trajectory.model_copy(
                update={
                    "evidence": entries,
                    "evidence_cost": costs,
                    "left_out": left_out,
                    "arrays": arrays,
                    "notes": notes,
                }
            )
        )
    return out


def timed(trajectories: Trajectories, node: str, started: float) -> Trajectories:
    """Note how long a node took for the batch, in seconds; the steps of one node are added up.

    A fork runs a node again: what it had to say before isn't said twice.
    """
    seconds = time.perf_counter() - started
    return [
        trajectory.model_copy(
            update={
                "timings": trajectory.timings | {node: round(trajectory.timings.get(node, 0.0) + seconds, 6)},
                "notes": tuple(dict.fromkeys(trajectory.notes)),
            }
        )
        for trajectory in trajectories
    ]
