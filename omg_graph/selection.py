"""Eq. 2 at inference: whole trajectories, of several plans and draws, ranked by their utility (Eq. 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from omg_graph import pipeline, records
from omg_graph.batches import load_split
from omg_graph.executor_node import ExecutorRequest
from omg_graph.grounding import ground
from omg_graph.model.model import Model
from omg_graph.record.artifacts import ArrayRef, ArtifactStore
from omg_graph.record.trajectory import Plan, RankedTrajectory, Selection, Trajectory
from omg_graph.review.edits import forgotten
from omg_graph.state import Batch, Settings

MOST_PLANS = 5
"""Plans of a sample whose trajectories are carried out, the best ones by Eq. 5."""

Execute = Callable[[ExecutorRequest], list[Trajectory]]


def select(
    model: Model, store: ArtifactStore, request: ExecutorRequest, settings: Settings, execute: Execute
) -> list[Trajectory]:
    """The trajectory of the greatest utility of each sample, with the ranking that it won.

    Every candidate plan that keeps the schema is carried out, the few best by Eq. 5 where there are many,
    each with as many draws as were asked for. L_rec needs the truth and takes no part, hidden or not. Of
    one draw the reconstruction is the point estimate under the winning plan; of several it is the winning
    draw itself. A plan that a person chose has no rivals, and neither has a sample that misses nothing.

    Args:
        model: Which carries them out.
        store: Where arrays go.
        request: The executor's, with the plans that Eq. 5 chose, and their evidence.
        settings: Draws and what retrieval needs.
        execute: Runs the executor's graph.
    """
    owners, rivals = [], []
    for row, trajectory in enumerate(request.trajectories):
        for plan in _rivals(trajectory):
            owners.append(row)
            rivals.append(forgotten(trajectory).model_copy(update={"plan": plan}))
    made = execute(_widened(model, store, request, owners, rivals, settings))
    by_sample: list[list[Trajectory]] = [[] for _ in request.trajectories]
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
    request: ExecutorRequest,
    owners: Sequence[int],
    rivals: Sequence[Trajectory],
    settings: Settings,
) -> ExecutorRequest:
    """The request with a row for every rival plan after the rows that it had."""
    if not owners:
        return request
    split = load_split(request.batch, store).take(list(owners))
    plans = pipeline.embed_plans(model, records.plans_of(list(rivals)), split.ids)
    seen = store.get(request.embeddings["observation"])
    grounded, evidence = ground(model, store, split, rivals, seen[list(owners)], plans, settings)
    rows = np.array([*range(len(request.trajectories)), *owners])

    def joined(ref: ArrayRef, more: np.ndarray) -> ArrayRef:
        return store.put(np.concatenate([store.get(ref), more]))

    width = {name: store.get(ref).shape[1] for name, ref in request.evidence_vectors.items()}
    return ExecutorRequest(
        batch=_rows_of(request.batch, rows, store),
        embeddings={
            "observation": store.put(seen[rows]),
            "plan": joined(request.embeddings["plan"], plans),
        },
        evidence_vectors={
            name: joined(ref, evidence.get(name, np.zeros((len(owners), width[name]), np.float32)))
            for name, ref in request.evidence_vectors.items()
        },
        trajectories=[*request.trajectories, *grounded],
    )


def _rows_of(batch: Batch, rows: np.ndarray, store: ArtifactStore) -> Batch:
    """The given rows of a batch, in the given order; rows may come more than once."""

    def taken(refs: dict[str, ArrayRef]) -> dict[str, ArrayRef]:
        return {name: store.put(store.get(ref)[rows]) for name, ref in refs.items()}

    def listed(columns: dict[str, tuple[bool, ...]]) -> dict[str, tuple[bool, ...]]:
        return {name: tuple(column[row] for row in rows) for name, column in columns.items()}

    return batch.model_copy(
        update={
            "ids": tuple(batch.ids[row] for row in rows),
            "groups": tuple(batch.groups[row] for row in rows),
            "arrays": taken(batch.arrays),
            "observed": listed(batch.observed),
            "lengths": {name: tuple(column[row] for row in rows) for name, column in batch.lengths.items()},
            "lost": taken(batch.lost),
            "raw_text": None if batch.raw_text is None else tuple(batch.raw_text[row] for row in rows),
            "recordings": {
                name: tuple(found[row] for row in rows) for name, found in batch.recordings.items()
            },
            "truth": taken(batch.truth),
            "hidden": listed(batch.hidden),
        }
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
