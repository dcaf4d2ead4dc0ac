"""Stage: everything that the executor trains on, with what training rows feed back cross-fitted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.executor.executor import Executor
from omg_graph.executor.gaussian import GaussianConditional
from omg_graph.executor.latents import LatentSpace
from omg_graph.model.entries import make_entries
from omg_graph.model.folder import build_projection
from omg_graph.model.model import components_fingerprint
from omg_graph.planner.schema import Plan
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.samples.dataset import Split
from omg_graph.seeding import derived_seed
from omg_graph.training.evidence import EvidenceSource, ProjectionFit, fit_projection
from omg_graph.training.fold_pairs import fit_gaussian, gaussian_pairs, plan_table
from omg_graph.training.model_config import model_config
from omg_graph.training.pairs import IntArray, PairData, chosen_pairs
from omg_graph.training.patterns import PatternPool
from omg_graph.training.readers import Understanding
from omg_graph.training.run import RunData
from omg_graph.training.targets import label_tensor

ANCHOR_SAMPLE = 20_000
CHECKED_TURNS = 3


@dataclass
class Prepared:
    """What the executor trains on."""

    training: PairData
    validation: PairData
    checked: IntArray
    plan_table: Tensor
    source: EvidenceSource
    gaussian: GaussianConditional
    projection: ProjectionFit
    plans: list[Plan]


def training_entries(run: RunData, space: LatentSpace, encoder: ObservationEncoder) -> KnowledgeBase:
    """The knowledge base: the training split, or as much of it as is asked for, and nothing else."""
    rows = np.arange(len(run.train))
    if run.config.retriever.entries is not None:
        drawn = [derived_seed(run.seed, "entries", sample_id) for sample_id in run.train.ids]
        rows = np.sort(np.argsort(np.array(drawn), kind="stable")[: run.config.retriever.entries])
    return make_entries(
        run.train.take(rows),
        [run.choice.plans[row] for row in rows.tolist()],
        latent_space=space,
        encoder=encoder,
        text_encoder=run.text_encoder,
        schema=run.choice.schema,
        query=run.config.retriever.query,
        components=components_fingerprint(space, encoder, run.config.encoder.text_encoder),
        name=run.source,
        source=f"{run.source} · train",
    )


def _pair_data(
    split: Split,
    space: LatentSpace,
    pool: PatternPool,
    observation: Tensor,
    plan_index: IntArray,
    gaussian: dict[str, Tensor],
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
        shortlist={},
    )


def prepare_pairs(run: RunData, space: LatentSpace, read: Understanding, kb: KnowledgeBase) -> Prepared:
    """Everything that the executor trains on: evidence, anchors and their scales."""
    distinct, index, table = plan_table(
        run.choice.schema, run.text_encoder, read.training_plans + read.validation_plans
    )
    count = len(read.training_plans)
    latents, known = space.encode(run.train), torch.from_numpy(run.train.mask())
    gaussian = _gaussian(run, latents, known)
    # the Gaussian conditional of a training row comes from the other folds
    train_gaussian = gaussian_pairs(gaussian, latents, known, run.folds, run.train_pool)
    valid_known = torch.from_numpy(run.valid.mask())
    valid_gaussian = gaussian_pairs(gaussian, space.encode(run.valid), valid_known, None, run.valid_pool)
    run.progress("Gaussian conditional", 1, 1, None)
    training = _pair_data(run.train, space, run.train_pool, read.training, index[:count], train_gaussian)
    validation = _pair_data(run.valid, space, run.valid_pool, read.validation, index[count:], valid_gaussian)
    source = EvidenceSource(kb, build_projection(model_config(run, space, None)), run.config.retriever)
    checked = chosen_pairs(validation, run.seed, CHECKED_TURNS)
    for data in (training, validation):
        data.shortlist.update(source.shortlist(data, table, fitted=False))
    run.progress("evidence", 1, 1, None)
    report = _projection(run, source, training, validation, table, checked)
    return Prepared(training, validation, checked, table, source, gaussian, report, distinct)


def _gaussian(run: RunData, latents: dict[str, Tensor], known: Tensor) -> GaussianConditional:
    if not run.workspace.has("gaussian"):
        fitted = fit_gaussian(latents, known, run.folds, run.train_pool)
        run.workspace.save("gaussian", fitted.state_dict(), {})
    model = GaussianConditional({name: value.shape[1] for name, value in latents.items()})
    model.load_state_dict(run.workspace.load("gaussian")[0])
    return model


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
    index = torch.from_numpy(pairs)
    scales = []
    for column, (name, truth) in enumerate(data.latents.items()):
        wanted = data.known[rows, column] & ~visible[:, column]
        if not bool(wanted.any()):
            scales.append(1.0)
            continue
        evidence = torch.cat([block[name] for block in found])[wanted]
        gaussian, target = data.gaussian[name][index][wanted], truth[rows][wanted]
        executor.anchor.fit(name, target, evidence, gaussian, visible[wanted])
        left = target - executor.anchor(name, evidence, gaussian, visible[wanted])
        scales.append(max(float(left.square().mean().sqrt()), 1e-6))
    executor.residual_scale.copy_(torch.tensor(scales))
