"""What a person changes of a run: another candidate, other values in the plan, entries of evidence left out.

It is small JSON in the graph's state. A fork writes it there, whether over a checkpointer, over the server or
from a trajectory on disk, and the review and retriever nodes carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from omg_graph.data.dataset import FloatArray, Split
from omg_graph.errors import KnowledgeBaseError, PlanError
from omg_graph.model.model import Model
from omg_graph.pipeline import Observation, score_written
from omg_graph.planner.schema import edited_plan
from omg_graph.record.artifacts import ArtifactStore
from omg_graph.record.trajectory import CandidatePlan, EvidenceEntry, Trajectory
from omg_graph.retriever.evidence import Hit, weigh
from omg_graph.state import Edit
from omg_graph.trajectories import grounded

DOWNSTREAM = (
    "evidence",
    "evidence_cost",
    "left_out",
    "denoising",
    "reconstruction",
    "filled",
    "lengths",
    "length_source",
    "errors",
    "prediction",
    "prediction_without",
    "utility",
    "selection",
)
"""Fields of a trajectory that a plan decides: with another plan they no longer hold."""

OBSERVATION = "observation_embedding"
"""u_X among a trajectory's arrays, kept where recordings may be a part of it: a fork has none to read."""

INPUT_ARRAYS = ("observed", "truth", OBSERVATION)

BEFORE_EVIDENCE = ("planner", "rerank")
"""Nodes whose seconds still count."""


def check_edits(edits: Sequence[Edit], trajectories: Sequence[Trajectory]) -> None:
    """See that every edit is about a sample that is there.

    Raises:
        PlanError: if one isn't.
    """
    ids = [trajectory.id for trajectory in trajectories]
    for edit in edits:
        if edit.id is not None and edit.id not in ids:
            known = ", ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")
            raise PlanError(f"edits: expected the id of a sample ({known}), got {edit.id!r}")


def dropped_evidence(edits: Sequence[Edit], sample_id: str) -> list[str]:
    """Ids of the entries that a sample is to do without."""
    return [entry for edit in edits if edit.concerns(sample_id) for entry in edit.drop_evidence]


def replanned(
    model: Model,
    split: Split,
    observation: Observation,
    trajectory: Trajectory,
    *,
    pick: int | None = None,
    changes: Mapping[str, str] | None = None,
) -> Trajectory:
    """A trajectory with the plan that a person picked or wrote, and nothing that followed from the old one.

    Args:
        model: Whose planner and encoder score a plan that was written.
        split: The one sample.
        observation: What the pipeline made of it.
        trajectory: Past re-ranking.
        pick: Number of a candidate in the order of ``Plan.ranked``, from 1; the chosen one if None.
        changes: Field to value, put into that candidate.

    Raises:
        PlanError: if there is no such candidate or field, or the plan breaks the schema.
    """
    plan = trajectory.plan
    if plan is None:
        raise PlanError(f"sample {trajectory.id!r} has no plan yet: run the re-rank node first")
    index = plan.chosen if pick is None else plan.numbered(pick)
    base = plan.candidates[index]
    if base.violations and not changes:
        raise PlanError(
            f"candidate {pick or 1} breaks the schema: {base.violations[0]}; pick another, or edit it"
        )
    candidates = plan.candidates
    if changes:
        values = edited_plan(model.schema, base.values, changes)
        drawn = [candidate.values for candidate in candidates]
        if values in drawn:
            index = drawn.index(values)
        else:
            written = score_written(
                model,
                split,
                observation,
                values,
                semantic_weight=plan.semantic_weight,
                # another planner's log-probabilities would stand beside those of the one that drew the others
                rescore=plan.planner == model.planner.name,
            )
            candidates = (*candidates, written)
            index = len(candidates) - 1
    winner = candidates[index]
    chosen = plan.model_copy(
        update={
            "text": winner.text,
            "constraints": winner.constraints,
            "chosen": index,
            "chosen_by": "edited" if winner.edited else "person",
            "reviewed": True,
            "candidates": candidates,
        }
    )
    return forgotten(trajectory).model_copy(update={"plan": chosen, "notes": _notes(trajectory, winner)})


def forgotten(trajectory: Trajectory) -> Trajectory:
    """A trajectory as it was before its evidence was looked up."""
    defaults = {name: Trajectory.model_fields[name].get_default() for name in DOWNSTREAM}
    arrays = {key: ref for key, ref in trajectory.arrays.items() if key.split("/")[0] in INPUT_ARRAYS}
    timings = {node: seconds for node, seconds in trajectory.timings.items() if node in BEFORE_EVIDENCE}
    return trajectory.model_copy(update=defaults | {"arrays": arrays, "timings": timings})


def _notes(trajectory: Trajectory, winner: CandidatePlan) -> tuple[str, ...]:
    if not winner.edited or winner.log_probability is not None:
        return trajectory.notes
    remark = "the planner can't score a plan that it didn't draw: it has no log-probability and no score"
    return tuple(dict.fromkeys((*trajectory.notes, remark)))


def without_evidence(
    model: Model,
    store: ArtifactStore,
    trajectory: Trajectory,
    plan_embeddings: FloatArray,
    dropped: Sequence[str],
) -> Trajectory:
    """A trajectory without some entries of its evidence; the others share their weight by Eq. 8.

    Args:
        model: Whose knowledge base holds the entries' values.
        store: Where arrays go.
        trajectory: With evidence.
        plan_embeddings: c_S, (constraints + 1, shared).
        dropped: Ids of entries.

    Raises:
        KnowledgeBaseError: if one of them isn't among the evidence, or another retriever found it.
    """
    there = {entry.id for entries in trajectory.evidence.values() for entry in entries}
    unknown = [entry for entry in dropped if entry not in there]
    if unknown:
        raise KnowledgeBaseError(
            f"sample {trajectory.id!r}: expected the id of an entry of its evidence "
            f"({', '.join(sorted(there)[:5])}{' ...' if len(there) > 5 else ''}), got {unknown[0]!r}"
        )
    evidence = {}
    for name, entries in trajectory.evidence.items():
        kept = [_hit(model, name, entry) for entry in entries if entry.id not in dropped]
        evidence[name] = weigh(
            [kept],
            plan_embeddings=plan_embeddings[None, 0],
            ids=[trajectory.id],
            groups=[trajectory.group],
            requested=np.array([True]),
            value_width=model.latent_space.widths[name],
            k=max(1, len(kept)),
            temperature=model.config.retrieval.temperature,
            # who may serve was settled when they were looked up
            allow_own_group=True,
            left_out=np.array([trajectory.left_out[name]]),
            attention=model.components.attention,
        )
    keep_nearest = any(key.startswith("nearest/") for key in trajectory.arrays)
    arrays = {key: ref for key, ref in trajectory.arrays.items() if not key.startswith("nearest/")}
    remark = f"evidence left out on request: {', '.join(dropped)}"
    (result,) = grounded(
        model,
        [
            trajectory.model_copy(
                update={
                    "arrays": arrays,
                    "notes": (*trajectory.notes, remark),
                    "timings": {n: t for n, t in trajectory.timings.items() if n != "executor"},
                }
            )
        ],
        evidence,
        plan_embeddings[None],
        store,
        keep_nearest=keep_nearest,
    )
    return result


def _hit(model: Model, name: str, entry: EvidenceEntry) -> Hit:
    kb = model.knowledge_base
    row = kb.row_of.get(entry.id)
    if row is None or not kb.has_value[name][row]:
        raise KnowledgeBaseError(
            f"entry {entry.id!r} isn't in knowledge base {kb.name}, so that what is left can't be weighed: "
            "give the knowledge base that the run had (--kb)"
        )
    return Hit(
        id=entry.id,
        group=kb.groups[row],
        text=entry.text,
        source=entry.source,
        similarity=entry.similarity,
        value=kb.values[name][row],
        text_embedding=kb.text_embeddings[row],
    )
