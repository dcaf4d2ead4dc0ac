"""Evidence for a batch: looked up where there is none yet; what was found already is kept, or thinned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omg_graph import pipeline, records
from omg_graph.data.dataset import FloatArray
from omg_graph.errors import KnowledgeBaseError
from omg_graph.model.model import Model
from omg_graph.pipeline import Observation
from omg_graph.record.artifacts import ArtifactStore
from omg_graph.record.trajectory import EvidenceEntry, Trajectory
from omg_graph.retriever.evidence import Hit, weigh
from omg_graph.review.edits import Edit
from omg_graph.state import Settings


def ground(
    model: Model,
    store: ArtifactStore,
    observation: Observation,
    trajectories: Sequence[Trajectory],
    plan_embeddings: FloatArray,
    settings: Settings,
    edits: Sequence[Edit] = (),
) -> tuple[list[Trajectory], dict[str, FloatArray]]:
    """The evidence of every sample, and E for each missing modality, (samples, latent width).

    A sample whose trajectory has evidence is in a fork behind the retriever: nothing is looked up again.

    Args:
        model: Whose knowledge base is searched.
        store: Where arrays go.
        observation: Of the samples.
        trajectories: With their plans.
        plan_embeddings: c_S, (samples, constraints + 1, shared).
        settings: top_k, allow_own_group, and whether pictures are kept.
        edits: Which entries are to be left out.

    Raises:
        KnowledgeBaseError: if an entry to be left out isn't among the evidence.
    """
    result = list(trajectories)
    rows = [row for row, trajectory in enumerate(trajectories) if not trajectory.evidence]
    if rows:
        waiting = [trajectories[row] for row in rows]
        evidence = pipeline.retrieve(
            model,
            observation.take(rows),
            records.plans_of(waiting),
            plan_embeddings[rows],
            top_k=settings.top_k,
            allow_own_group=settings.allow_own_group,
        )
        grounded = records.grounded(
            model, waiting, evidence, plan_embeddings[rows], store, keep_nearest=settings.keeps_pictures
        )
        for row, trajectory in zip(rows, grounded, strict=True):
            result[row] = trajectory
    vectors = {
        name: np.zeros((len(observation), model.latent_space.widths[name]), dtype=np.float32)
        for column, name in enumerate(model.names)
        if not bool(observation.observed[:, column].all())
    }
    for row, found in enumerate(result):
        dropped = [entry for edit in edits if edit.concerns(found.id) for entry in edit.drop_evidence]
        if dropped:
            result[row] = thinned(model, store, found, plan_embeddings[row], dropped)
        for name in result[row].evidence:
            vectors[name][row] = store.get(result[row].arrays[f"evidence/{name}"])
    return result, vectors


def thinned(
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
            f"sample {trajectory.id!r}: the id of an entry of its evidence was expected "
            f"({', '.join(sorted(there)[:5])}{' ...' if len(there) > 5 else ''}), {unknown[0]!r} came"
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
            aggregation=model.config.retrieval.aggregation,
        )
    keep_nearest = any(key.startswith("nearest/") for key in trajectory.arrays)
    arrays = {key: ref for key, ref in trajectory.arrays.items() if not key.startswith("nearest/")}
    remark = f"evidence left out on request: {', '.join(dropped)}"
    (result,) = records.grounded(
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
