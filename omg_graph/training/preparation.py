"""Stage: everything that the executor trains on, with what training rows feed back cross-fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.executor.executor import Executor
from omg_graph.executor.gaussian import GaussianConditional
from omg_graph.executor.kernel import KernelConditional
from omg_graph.executor.latents import LatentSpace
from omg_graph.model.conditions import PLAN_CONDITIONS, PlanCondition, query_plan
from omg_graph.model.config import EvidenceSourceName
from omg_graph.model.entries import make_entries
from omg_graph.model.folder import build_projection
from omg_graph.model.model import components_fingerprint
from omg_graph.model.reader import LabelReader
from omg_graph.planner.schema import Plan
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.samples.dataset import Split
from omg_graph.training.closed_forms import run_gaussian, run_kernel, run_reader
from omg_graph.training.evidence import EvidenceSource, NoEvidence, ProjectionFit, fit_projection
from omg_graph.training.fold_pairs import gaussian_pairs, plan_table
from omg_graph.training.kernel_pairs import kernel_pairs, rows_drawn
from omg_graph.training.model_config import model_config
from omg_graph.training.pairs import IntArray, PairData, chosen_pairs
from omg_graph.training.patterns import PatternPool
from omg_graph.training.readers import Understanding
from omg_graph.training.reading import reading_pairs
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
    kernel: KernelConditional
    reader: LabelReader | None
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
    gaussian: dict[str, Tensor],
    kernel: dict[str, Tensor],
    reading: Tensor | None,
    words: Tensor | None,
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
        gaussian=gaussian,
        kernel=kernel,
        shortlist={},
        reading=reading,
        words=words,
        condition=condition,
    )


def prepare_pairs(run: RunData, space: LatentSpace, read: Understanding, kb: KnowledgeBase) -> Prepared:
    """Everything that the executor trains on: evidence, anchors and their scales."""
    distinct, index, table = plan_table(
        run.choice.schema, run.text_encoder, read.training_plans + read.validation_plans
    )
    count = len(read.training_plans)
    latents, known = space.encode(run.train), torch.from_numpy(run.train.mask())
    gaussian = run_gaussian(run, latents, known)
    # the Gaussian conditional of a training row comes from the other folds
    train_gaussian = gaussian_pairs(gaussian, latents, known, run.folds, run.train_pool)
    valid_known = torch.from_numpy(run.valid.mask())
    valid_gaussian = gaussian_pairs(gaussian, space.encode(run.valid), valid_known, None, run.valid_pool)
    run.progress("Gaussian conditional", 1, 1, None)
    kernel = run_kernel(run, latents, gaussian)
    train_kernel = kernel_pairs(kernel, latents, run.train, run.train_pool)
    valid_kernel = kernel_pairs(kernel, space.encode(run.valid), run.valid, run.valid_pool)
    run.progress("kernel conditional", 1, 1, None)
    reader = run_reader(run, space)
    train_reading = valid_reading = None
    if reader is not None:
        train_reading = reading_pairs(reader, latents, run.train, run.train_pool)
        valid_reading = reading_pairs(reader, space.encode(run.valid), run.valid, run.valid_pool)
        run.progress("label reader", 1, 1, None)
    condition = PLAN_CONDITIONS[run.config.planner.condition]
    training = _pair_data(
        run.train,
        space,
        run.train_pool,
        read.training,
        index[:count],
        train_gaussian,
        train_kernel,
        train_reading,
        None if reader is None else reader.describe(run.train.raw_text, len(run.train)),
        condition,
    )
    validation = _pair_data(
        run.valid,
        space,
        run.valid_pool,
        read.validation,
        index[count:],
        valid_gaussian,
        valid_kernel,
        valid_reading,
        None if reader is None else reader.describe(run.valid.raw_text, len(run.valid)),
        condition,
    )
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
    return Prepared(training, validation, checked, table, source, gaussian, kernel, reader, report, distinct)


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
