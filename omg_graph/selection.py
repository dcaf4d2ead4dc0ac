"""Eq. 2 at inference: whole trajectories, of several plans and draws, ranked by their utility (Eq. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from omg_graph import pipeline
from omg_graph.batches import LoadedBatch
from omg_graph.data.dataset import FloatArray
from omg_graph.model.model import Model
from omg_graph.pipeline import Observation
from omg_graph.record.artifacts import ArtifactStore
from omg_graph.record.trajectory import Plan, RankedTrajectory, Selection, Trajectory
from omg_graph.review.edits import forgotten
from omg_graph.state import Settings
from omg_graph.trajectories import evidence_vectors, ground, plans_of

MOST_PLANS = 5
"""Plans of a sample whose trajectories are carried out, the best ones by Eq. 5."""


@dataclass(frozen=True)
class Work:
    """All that the executor reads of a batch."""

    batch: LoadedBatch
    observation: Observation
    plan_embeddings: FloatArray
    """c_S, (samples, constraints + 1, shared)."""
    evidence: dict[str, FloatArray]
    """E of each missing modality, (samples, latent)."""
    trajectories: list[Trajectory]


Execute = Callable[[Work, Settings], list[Trajectory]]


def select(
    model: Model, store: ArtifactStore, work: Work, settings: Settings, execute: Execute
) -> list[Trajectory]:
    """The trajectory of the greatest utility of each sample, with the ranking that it won.

    Every candidate plan that keeps the schema is carried out, the few best by Eq. 5 where there are many,
    each with as many draws as were asked for. L_rec needs the truth and takes no part, hidden or not. Of
    one draw the reconstruction is the point estimate under the winning plan; of several it is the winning
    draw itself. A plan that a person chose has no rivals, and neither has a sample that misses nothing.

    Args:
        model: Which carries them out.
        store: Where arrays go.
        work: The executor's, with the plans that Eq. 5 chose, and their evidence.
        settings: Draws and what retrieval needs.
        execute: The executor.
    """
    owners, rivals = [], []
    for row, trajectory in enumerate(work.trajectories):
        for plan in _rivals(trajectory):
            owners.append(row)
            rivals.append(forgotten(trajectory).model_copy(update={"plan": plan}))
    made = execute(_widened(model, store, work, owners, rivals, settings), settings)
    by_sample: list[list[Trajectory]] = [[] for _ in work.trajectories]
    for row, trajectory in zip([*range(len(by_sample)), *owners], made, strict=True):
        by_sample[row].append(trajectory)
    return [_best(store, rows) for rows in by_sample]


def _rivals(trajectory: Trajectory) -> list[Plan]:
    """The other candidate plans that may win."""
    plan = trajectory.plan
    if plan is None or plan.chosen_by != "rerank" or plan.reviewed or not trajectory.missing:
        return []
    scores = {index: c.score for index, c in enumerate(plan.candidates) if c.score is not None}
    kept = []
    for index in sorted(scores, key=lambda place: (-scores[place], place)):
        candidate = plan.candidates[index]
        if index != plan.chosen:
            kept.append(
                plan.model_copy(
                    update={
                        "chosen": index,
                        "chosen_by": "utility",
                        "text": candidate.text,
                        "constraints": candidate.constraints,
                    }
                )
            )
    return kept[: MOST_PLANS - 1]


def _widened(
    model: Model,
    store: ArtifactStore,
    work: Work,
    owners: Sequence[int],
    rivals: Sequence[Trajectory],
    settings: Settings,
) -> Work:
    """The work with a row for every rival plan after the rows that it had."""
    if not owners:
        return work
    observation = work.observation.take(owners)
    plans = pipeline.embed_plans(model, plans_of(list(rivals)), observation.ids)
    grounded = ground(model, store, observation, rivals, plans, settings)
    evidence = evidence_vectors(model, store, observation, grounded)
    rows = np.array([*range(len(work.trajectories)), *owners])
    nothing = {
        name: np.zeros((len(owners), vectors.shape[1]), np.float32) for name, vectors in work.evidence.items()
    }
    return Work(
        work.batch.take(rows),
        work.observation.take(rows),
        np.concatenate([work.plan_embeddings, plans]),
        {
            name: np.concatenate([vectors, (nothing | evidence)[name]])
            for name, vectors in work.evidence.items()
        },
        [*work.trajectories, *grounded],
    )


def _best(store: ArtifactStore, rows: Sequence[Trajectory]) -> Trajectory:
    """The winner of one sample's trajectories; of equal ones the first, whose plan Eq. 5 prefers."""
    ranked: list[tuple[RankedTrajectory, Trajectory]] = []
    for trajectory in rows:
        found = trajectory.utility
        if found is None or trajectory.plan is None or not trajectory.missing:
            continue
        fixed = found.total + (found.reconstruction or 0.0) + found.weights["path"] * (found.path or 0.0)
        costs = store.get(trajectory.arrays["path_costs"]).tolist()
        for draw, path in enumerate(costs):
            entry = RankedTrajectory(
                plan=trajectory.plan.chosen,
                draw=draw,
                utility=fixed - found.weights["path"] * path,
                semantic=found.semantic,
                evidence=found.evidence,
                path=path,
            )
            ranked.append((entry, trajectory))
    if not ranked:
        return rows[0]
    ranked.sort(key=lambda pair: -pair[0].utility)
    what = "the winning draw" if any(entry.draw for entry, _ in ranked) else "the estimate under its plan"
    return ranked[0][1].model_copy(
        update={
            "selection": Selection(
                ranked=tuple(entry for entry, _ in ranked),
                note=f"the reconstruction is {what}; L_rec left out: at inference nobody knows the truth",
            )
        }
    )
