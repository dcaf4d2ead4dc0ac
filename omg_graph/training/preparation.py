"""Stage: everything that the executor trains on, with what training rows feed back cross-fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.dataset import Split
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.executor.executor import Executor
from omg_graph.knowledge.entries import make_entries
from omg_graph.model.conditions import PLAN_CONDITIONS, PlanCondition, query_plan
from omg_graph.model.config import EvidenceSourceName
from omg_graph.model.folder import build_projection
from omg_graph.model.model import components_fingerprint
from omg_graph.planner.schema import Plan
from omg_graph.predictor.label_regression import LabelRegression
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.kernel import KernelConditional
from omg_graph.priors.planned import PlannedConditional
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.training.estimates import Estimates, PairEstimates
from omg_graph.training.evidence import EvidenceSource, NoEvidence, ProjectionFit, fit_projection
from omg_graph.training.fold_pairs import plan_table
from omg_graph.training.kernel_pairs import rows_drawn
from omg_graph.training.model_config import model_config
from omg_graph.training.pairs import IntArray, PairData, chosen_pairs
from omg_graph.training.patterns import PatternPool
from omg_graph.training.planned_pairs import planned_pairs, run_planned
from omg_graph.training.readers import Understanding
from omg_graph.training.run import RunData
from omg_graph.training.targets import label_tensor

ANCHOR_SAMPLE = 20_000
CHECKED_TURNS = 3
MOST_PATTERNS = 256
"""Observed sets with anchor weights of their own, the commonest."""
SOURCES: dict[EvidenceSourceName, type[EvidenceSource]] = {"entries": EvidenceSource, "none": NoEvidence}


@dataclass
class Prepared:
    """What the executor trains on."""

    training: PairData
    validation: PairData
    checked: IntArray
    plan_table: Tensor
    source: EvidenceSource
    gaussian: GaussianConditional
    planned: PlannedConditional
    kernel: KernelConditional
    reader: LabelRegression | None
    projection: ProjectionFit
    plans: list[Plan]


def training_entries(run: RunData, space: LatentSpace, encoder: ObservationEncoder) -> KnowledgeBase:
    """The knowledge base: the training split, or as much of it as is asked for, and nothing else."""
    count = run.config.retriever.entries or len(run.train)
    rows = rows_drawn(run.train.ids, count, run.seed, "entries").numpy()
    return make_entries(
        run.train.take(rows),
        [run.choice.plans[row] for row in rows.tolist()],
        latent_space=space,
        encoder=encoder,
        text_encoder=run.text_encoder,
        schema=run.choice.schema,
        query=run.config.retriever.query,
        components=components_fingerprint(space, encoder, run.text_encoder.name),
        name=run.source,
        source=f"{run.source} · train",
        hidden_states=run.hidden_states,
    )


def _pair_data(
    split: Split,
    space: LatentSpace,
    pool: PatternPool,
    observation: Tensor,
    plan_index: IntArray,
    estimates: PairEstimates,
    condition: PlanCondition,
) -> PairData:
    """Pairs of one split, their shortlist still empty."""
    latents = space.encode(split)
    parts, owners = [], []
    for column, (name, value) in enumerate(latents.items()):
        norms = value.norm(dim=1, keepdim=True)
        there = torch.from_numpy(split.observed[name])[:, None]
        parts.append(torch.where(there, value / norms.clamp(min=1e-12), 0.0))
        owners += [column] * value.shape[1]
    return PairData(
        ids=split.ids,
        groups=split.groups,
        latents=latents,
        known=torch.from_numpy(split.mask()),
        label=label_tensor(split),
        keys=torch.cat(parts, dim=1),
        view_of_column=torch.tensor(owners),
        pool=pool,
        observation=observation,
        plan_index=torch.from_numpy(plan_index),
        gaussian=estimates.gaussian,
        kernel=estimates.kernel,
        shortlist={},
        reading=estimates.reading,
        words=estimates.words,
        condition=condition,
    )


def prepare_pairs(
    run: RunData, space: LatentSpace, read: Understanding, kb: KnowledgeBase, estimates: Estimates
) -> Prepared:
    """Everything that the executor trains on: evidence, anchors and their scales."""
    distinct, index, table = plan_table(
        run.choice.schema, run.text_encoder, read.training_plans + read.validation_plans
    )
    count = len(read.training_plans)
    condition = PLAN_CONDITIONS[run.config.planner.condition]
    training = _pair_data(
        run.train,
        space,
        run.train_pool,
        read.training,
        index[:count],
        estimates.training,
        condition,
    )
    validation = _pair_data(
        run.valid,
        space,
        run.valid_pool,
        read.validation,
        index[count:],
        estimates.validation,
        condition,
    )
    gaussian = estimates.gaussian
    planned = run_planned(run, gaussian, training, table)
    training = planned_pairs(planned, gaussian, training, table, run.folds)
    validation = planned_pairs(planned, gaussian, validation, table, None)
    settings = run.config.retriever
    source = SOURCES[settings.source](
        kb,
        build_projection(model_config(run, space, None)),
        settings,
        query_plan(settings.query_plan, run.choice.schema, run.text_encoder),
    )
    checked = chosen_pairs(validation, run.seed, CHECKED_TURNS)
    for data in (training, validation):
        data.shortlist.update(source.shortlist(data, table, fitted=False))
    run.progress("evidence", 1, 1, None)
    report = _projection(run, source, training, validation, table, checked)
    return Prepared(
        training,
        validation,
        checked,
        table,
        source,
        gaussian,
        planned,
        estimates.kernel,
        estimates.reader,
        report,
        distinct,
    )


def _projection(
    run: RunData,
    source: EvidenceSource,
    training: PairData,
    validation: PairData,
    table: Tensor,
    checked: IntArray,
) -> ProjectionFit:
    if not run.workspace.has("query"):
        report = fit_projection(
            source,
            training,
            validation,
            table,
            checked,
            seed=run.seed,
            on_epoch=run.told("query projection"),
        )
        run.workspace.save("query", source.projection.state_dict(), vars(report))
    tensors, facts = run.workspace.load("query")
    source.projection.load_state_dict(tensors)
    if facts["kept"]:
        # the query has moved: what it finds first has too
        for data in (training, validation):
            data.shortlist.update(source.shortlist(data, table, fitted=True))
    return ProjectionFit(**facts)


def fit_anchor(executor: Executor, prepared: Prepared) -> None:
    """Anchor weights and residual scales, on training pairs whose parts are all cross-fitted."""
    data, source = prepared.training, prepared.source
    pairs = data.pool.spaced(np.arange(len(data.pool), dtype=np.int64), ANCHOR_SAMPLE)
    blocks = [pairs[start : start + 512] for start in range(0, len(pairs), 512)]
    with torch.no_grad():
        found = [source.evidence(data, block, prepared.plan_table)[0] for block in blocks]
    rows, visible = data.rows(pairs), data.visible(pairs)
    shown, counts = np.unique(data.pool.visible, axis=0, return_counts=True)
    patterns = torch.from_numpy(shown[np.argsort(-counts, kind="stable")[:MOST_PATTERNS]])
    scales = []
    for column, (name, truth) in enumerate(data.latents.items()):
        wanted = data.known[rows, column] & ~visible[:, column]
        if not bool(wanted.any()):
            scales.append(1.0)
            continue
        evidence = torch.cat([block[name] for block in found])[wanted]
        parts, target = data.anchor_parts(name, pairs[wanted.numpy()], evidence), truth[rows][wanted]
        executor.anchor.fit(name, target, parts, visible[wanted], patterns)
        left = target - executor.anchor(name, parts, visible[wanted])
        scales.append(max(float(left.square().mean().sqrt()), 1e-6))
    executor.residual_scale.copy_(torch.tensor(scales))
