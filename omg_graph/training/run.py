"""One training run: its stages in order, each finished once and kept, so that it can go on after a crash."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omg_graph.encoders.observation import ObservationEncoder, ObservationEncoderConfig
from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.executor.executor import Executor
from omg_graph.executor.gaussian import GaussianConditional
from omg_graph.executor.latents import LatentSpace
from omg_graph.metrics.families import choose_family
from omg_graph.model.codecs import codec_tensors, codecs_from_tensors
from omg_graph.model.config import Manifest, ModelConfig, PlanningSettings, RetrievalSettings
from omg_graph.model.entries import make_entries
from omg_graph.model.folder import build_projection, machine, versions
from omg_graph.model.model import Model, components_fingerprint
from omg_graph.planner.choosing import SchemaChoice
from omg_graph.planner.schema import Plan
from omg_graph.planner.student import StudentPlanner
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.samples.dataset import Split
from omg_graph.seeding import derived_seed, seeded
from omg_graph.training.config import TrainingConfig
from omg_graph.training.encoding import fit_latent_space
from omg_graph.training.evidence import EvidenceSource, ProjectionFit, fit_projection
from omg_graph.training.execution import ExecutorTrainer, fit_trust
from omg_graph.training.fold_pairs import fit_gaussian, gaussian_pairs, plan_pairs, plan_table
from omg_graph.training.pairs import IntArray, PairData, chosen_pairs
from omg_graph.training.patterns import PatternPool, group_folds, pattern_pool
from omg_graph.training.prediction import fit_task
from omg_graph.training.targets import describe_target, label_tensor, task_head, usable_labels
from omg_graph.training.understanding import (
    PlannedRows,
    build_student,
    embed_pairs,
    fit_observation_encoder,
    fit_student,
)
from omg_graph.training.workspace import Workspace

Progress = Callable[[str, int, int, float | None], None]
"""(what, done, of, loss)."""

ANCHOR_SAMPLE = 20_000
CHECKED_TURNS = 3


def _silent(_what: str, _done: int, _of: int, _loss: float | None) -> None:
    return None


@dataclass
class Understanding:
    """psi and the student, and what they make of training and validation pairs."""

    encoder: ObservationEncoder
    student: StudentPlanner
    training: Tensor
    """u_X of the training pairs, cross-fitted."""
    validation: Tensor
    training_plans: list[Plan]
    """The re-ranked plan of each training pair, cross-fitted."""
    validation_plans: list[Plan]
    facts: dict[str, Any]


@dataclass
class TrainingRun:
    """The data and settings of a run, and its stages.

    Each stage is made once: a stage that the workspace holds is read from there. What depends on
    training rows and is fed back to the executor for those rows is cross-fitted by group.
    """

    train: Split
    valid: Split
    choice: SchemaChoice
    valid_plans: tuple[Plan | None, ...]
    config: TrainingConfig
    seed: int
    text_encoder: CachedTextEncoder
    workspace: Workspace
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = _silent
    source: str = "data"
    """What the entries' provenance calls the training data."""
    feature_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    feature_units: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folds = group_folds(self.train.groups, self.config.planner.folds, self.seed)
        limit = self.config.planner.patterns
        self.train_pool = pattern_pool(self.train.mask(), self.train.ids, limit, self.seed)
        self.valid_pool = pattern_pool(self.valid.mask(), self.valid.ids, limit, self.seed)
        self.seconds: dict[str, float] = {}

    def _told(self, what: str) -> Callable[[int, int, float], None]:
        return lambda done, of, loss: self.progress(what, done, of, loss)

    # stage 1

    def latent_space(self) -> LatentSpace:
        """Standard units and autoencoders."""
        if not self.workspace.has("codecs"):
            space = fit_latent_space(self.train, self.config.autoencoder, self.seed)
            self.workspace.save("codecs", codec_tensors(space), {})
        tensors, _ = self.workspace.load("codecs")
        return codecs_from_tensors(tensors, self.train.modalities, self.config.autoencoder.kind)

    # stage 2

    def understanding(self, space: LatentSpace) -> Understanding:
        """Psi and the student on all training rows, and once more for each fold."""
        rows = self._planned(self.train, self.choice.plans, self.train_pool, space)
        checked = self._planned(self.valid, self.valid_plans, self.valid_pool, space)
        encoder, student, facts = self._reader("reader", rows, checked, None, None)
        if not self.workspace.has("pairs"):
            self._save_pairs(rows, checked, encoder, student, facts)
        tensors, kept = self.workspace.load("pairs")
        # A text's embedding differs in its last bits with the texts beside it: a run that goes on from here
        # must take those that the run before it made.
        self.text_encoder.remember(kept["texts"], tensors["text_embeddings"].numpy())
        distinct = [tuple(plan) for plan in kept["plans"]]
        return Understanding(
            encoder,
            student,
            tensors["training"],
            tensors["validation"],
            [distinct[index] for index in tensors["training_plans"].tolist()],
            [distinct[index] for index in tensors["validation_plans"].tolist()],
            facts,
        )

    def _planned(
        self, split: Split, plans: tuple[Plan | None, ...], pool: PatternPool, space: LatentSpace
    ) -> PlannedRows:
        schema, width = self.choice.schema, self.text_encoder.width
        texts = [None if plan is None else schema.text(plan) for plan in plans]
        known = sorted({text for text in texts if text is not None})
        places = {text: number for number, text in enumerate(known)}
        embedded = torch.from_numpy(self.text_encoder.embed(known))
        rows = torch.zeros(len(split), width)
        ids = torch.full((len(split),), -1)
        for row, text in enumerate(texts):
            if text is not None:
                rows[row], ids[row] = embedded[places[text]], places[text]
        return PlannedRows(space.encode(split), pool, plans, rows, ids)

    def _reader(
        self,
        stage: str,
        rows: PlannedRows,
        checked: PlannedRows | None,
        fold: int | None,
        epochs: tuple[int, int] | None,
    ) -> tuple[ObservationEncoder, StudentPlanner, dict[str, Any]]:
        """Psi and a student: of all rows, or of all but one fold, then for as many epochs as the first."""
        settings, seed = self.config.encoder, self.seed if fold is None else self.seed + 1000 + fold
        widths = {name: value.shape[1] for name, value in rows.latents.items()}
        scales = {
            name: max(float(value.square().mean().sqrt()), 1e-6) for name, value in rows.latents.items()
        }
        config = ObservationEncoderConfig(
            widths=widths,
            scales=scales,
            shared_width=self.text_encoder.width,
            hidden=settings.hidden,
            dropout=settings.dropout,
        )
        schema, plans = self.choice.schema, self.choice.plans
        if self.workspace.has(stage):
            tensors, facts = self.workspace.load(stage)
            with seeded(seed, "psi"):
                encoder = ObservationEncoder(config)
            student = build_student(schema, config.shared_width, plans, self.config.planner, seed)
            encoder.load_state_dict(_part(tensors, "encoder."))
            student.load_state_dict(_part(tensors, "student."))
            return encoder.eval(), student.eval(), facts
        allowed = None if fold is None else self.folds != fold
        label = "" if fold is None else f", fold {fold + 1}"
        encoder, encoder_fit = fit_observation_encoder(
            config,
            rows,
            settings,
            seed=seed,
            allowed=allowed,
            validation=checked,
            epochs=None if epochs is None else epochs[0],
            on_epoch=self._told(f"observation encoder{label}"),
        )
        student, student_fit = fit_student(
            schema,
            encoder,
            rows,
            self.config.planner,
            seed=seed,
            allowed=allowed,
            validation=checked,
            epochs=None if epochs is None else epochs[1],
            on_epoch=self._told(f"planner{label}"),
        )
        facts = {
            "encoder_epochs": encoder_fit.epochs,
            "encoder_loss": encoder_fit.validation_loss,
            "student_epochs": student_fit.epochs,
            "student_loss": student_fit.validation_loss,
        }
        tensors = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
        tensors |= {f"student.{key}": value for key, value in student.state_dict().items()}
        self.workspace.save(stage, tensors, facts)
        return encoder, student, facts

    def _save_pairs(
        self,
        rows: PlannedRows,
        checked: PlannedRows,
        encoder: ObservationEncoder,
        student: StudentPlanner,
        facts: dict[str, Any],
    ) -> None:
        epochs = (int(facts["encoder_epochs"]), int(facts["student_epochs"]))
        training = torch.zeros(len(self.train_pool), self.text_encoder.width)
        plans: list[Plan] = [()] * len(self.train_pool)
        for fold in np.unique(self.folds).tolist():
            fold_encoder, fold_student, _ = self._reader(f"reader-fold-{fold}", rows, None, fold, epochs)
            pairs = np.flatnonzero(self.folds[self.train_pool.rows] == fold)
            made, written = self._read(fold_encoder, fold_student, self.train, rows, pairs)
            training[torch.from_numpy(pairs)] = made
            for pair, plan in zip(pairs.tolist(), written, strict=True):
                plans[pair] = plan
            self.progress("plans of the training samples", fold + 1, int(self.folds.max()) + 1, None)
        everything = np.arange(len(self.valid_pool), dtype=np.int64)
        validation, valid_plans = self._read(encoder, student, self.valid, checked, everything)
        distinct, index, _ = plan_table(self.choice.schema, self.text_encoder, plans + valid_plans)
        texts = list(self.text_encoder.table)
        self.workspace.save(
            "pairs",
            {
                "training": training,
                "validation": validation,
                "training_plans": torch.from_numpy(index[: len(plans)]),
                "validation_plans": torch.from_numpy(index[len(plans) :]),
                "text_embeddings": torch.from_numpy(self.text_encoder.embed(texts)),
            },
            {"plans": distinct, "texts": texts},
        )

    def _read(
        self,
        encoder: ObservationEncoder,
        student: StudentPlanner,
        split: Split,
        rows: PlannedRows,
        pairs: IntArray,
    ) -> tuple[Tensor, list[Plan]]:
        embedded = embed_pairs(encoder, rows, pairs)
        plans = plan_pairs(
            student, self.text_encoder, split, rows.pool, pairs, embedded, self.config.planner, self.seed
        )
        return embedded, plans

    # stage 3

    def entries(self, space: LatentSpace, encoder: ObservationEncoder) -> KnowledgeBase:
        """The knowledge base: the training split, or as much of it as is asked for, and nothing else."""
        rows = np.arange(len(self.train))
        if self.config.retriever.entries is not None:
            drawn = [derived_seed(self.seed, "entries", sample_id) for sample_id in self.train.ids]
            rows = np.sort(np.argsort(np.array(drawn), kind="stable")[: self.config.retriever.entries])
        return make_entries(
            self.train.take(rows),
            [self.choice.plans[row] for row in rows.tolist()],
            latent_space=space,
            encoder=encoder,
            text_encoder=self.text_encoder,
            schema=self.choice.schema,
            query=self.config.retriever.query,
            components=components_fingerprint(space, encoder, self.config.encoder.text_encoder),
            name=self.source,
            source=f"{self.source} · train",
        )

    def pair_data(
        self,
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

    def prepared(self, space: LatentSpace, read: Understanding, kb: KnowledgeBase) -> Prepared:
        """Everything that the executor trains on: evidence, anchors and their scales."""
        distinct, index, table = plan_table(
            self.choice.schema, self.text_encoder, read.training_plans + read.validation_plans
        )
        count = len(read.training_plans)
        latents, known = space.encode(self.train), torch.from_numpy(self.train.mask())
        gaussian = self._gaussian(latents, known)
        # the Gaussian conditional of a training row comes from the other folds
        train_gaussian = gaussian_pairs(gaussian, latents, known, self.folds, self.train_pool)
        valid_known = torch.from_numpy(self.valid.mask())
        valid_gaussian = gaussian_pairs(
            gaussian, space.encode(self.valid), valid_known, None, self.valid_pool
        )
        self.progress("Gaussian conditional", 1, 1, None)
        training = self.pair_data(
            self.train, space, self.train_pool, read.training, index[:count], train_gaussian
        )
        validation = self.pair_data(
            self.valid, space, self.valid_pool, read.validation, index[count:], valid_gaussian
        )
        source = EvidenceSource(kb, build_projection(self.model_config(space, None)), self.config.retriever)
        checked = chosen_pairs(validation, self.seed, CHECKED_TURNS)
        for data in (training, validation):
            data.shortlist.update(source.shortlist(data, table, fitted=False))
        self.progress("evidence", 1, 1, None)
        report = self._projection(source, training, validation, table, checked)
        return Prepared(training, validation, checked, table, source, gaussian, report, distinct)

    def _gaussian(self, latents: dict[str, Tensor], known: Tensor) -> GaussianConditional:
        if not self.workspace.has("gaussian"):
            fitted = fit_gaussian(latents, known, self.folds, self.train_pool)
            self.workspace.save("gaussian", fitted.state_dict(), {})
        model = GaussianConditional({name: value.shape[1] for name, value in latents.items()})
        model.load_state_dict(self.workspace.load("gaussian")[0])
        return model

    def _projection(
        self,
        source: EvidenceSource,
        training: PairData,
        validation: PairData,
        table: Tensor,
        checked: IntArray,
    ) -> ProjectionFit:
        if not self.workspace.has("query"):
            report = fit_projection(
                source,
                training,
                validation,
                table,
                checked,
                seed=self.seed,
                on_epoch=self._told("query projection"),
            )
            self.workspace.save("query", source.projection.state_dict(), vars(report))
        tensors, facts = self.workspace.load("query")
        source.projection.load_state_dict(tensors)
        if facts["kept"]:
            # the query has moved: what it finds first has too
            for data in (training, validation):
                data.shortlist.update(source.shortlist(data, table, fitted=True))
        return ProjectionFit(**facts)

    # stage 4

    def model_config(self, space: LatentSpace, report: ProjectionFit | None) -> ModelConfig:
        """The configuration of the model that this run makes."""
        settings, encoder = self.config, self.config.encoder
        return ModelConfig(
            name=settings.name,
            synthetic=self.source.startswith("synthetic"),
            feature_names=self.feature_names,
            feature_units=self.feature_units,
            modalities=self.train.modalities,
            latent_widths=space.widths,
            autoencoder=settings.autoencoder.kind,
            text_encoder=encoder.text_encoder,
            shared_width=self.text_encoder.width,
            encoder=ObservationEncoderConfig(
                widths=space.widths,
                scales=self._scales(space),
                shared_width=self.text_encoder.width,
                hidden=encoder.hidden,
                dropout=encoder.dropout,
            ),
            executor=settings.executor,
            task=task_head(self.train, self.choice.schema, space, self.text_encoder.width),
            target=describe_target(self.train),
            metrics=choose_family(usable_labels(self.train)),
            planning=PlanningSettings(
                candidates=settings.planner.candidates,
                include_greedy=settings.planner.include_greedy,
                semantic_weight=settings.planner.semantic_weight,
                schema_penalty=settings.planner.schema_penalty,
            ),
            retrieval=RetrievalSettings(
                top_k=settings.retriever.top_k,
                temperature=settings.retriever.temperature,
                query=settings.retriever.query,
                query_kept=report.kept if report is not None else False,
            ),
            median_lengths={
                name: int(np.median(rows[self.train.observed[name]]))
                for name, rows in self.train.lengths.items()
            },
        )

    def _scales(self, space: LatentSpace) -> dict[str, float]:
        latents = space.encode(self.train)
        return {name: max(float(value.square().mean().sqrt()), 1e-6) for name, value in latents.items()}

    def executor_trainer(
        self, space: LatentSpace, read: Understanding, prepared: Prepared
    ) -> ExecutorTrainer:
        """The executor with its anchor fitted, ready to be trained."""
        config = self.model_config(space, prepared.projection)
        with seeded(self.seed, "executor weights"):
            executor = Executor(config.executor, config.modalities, config.latent_widths, config.shared_width)
            if config.task is not None:
                executor.add_task(config.task)
        executor.gaussian = prepared.gaussian
        trainer = ExecutorTrainer(
            executor=executor,
            source=prepared.source,
            encoder=read.encoder,
            latent_space=space,
            training=prepared.training,
            validation=prepared.validation,
            checked=prepared.checked,
            plan_table=prepared.plan_table,
            weights=self.config.objective,
            settings=self.config.optimiser,
            seed=self.seed,
            train_projection=prepared.projection.kept,
            device=self.device,
        )
        _fit_anchor(executor, prepared)
        return trainer

    def executor(self, trainer: ExecutorTrainer) -> dict[str, Any]:
        """Train the executor, or read it; the report holds its history."""
        modules: Mapping[str, torch.nn.Module] = {
            "executor": trainer.executor,
            "query": trainer.source.projection,
        }
        if not self.workspace.has("executor"):
            history = trainer.train(
                self.config.optimiser.epochs, self.workspace, on_epoch=self._told("executor")
            )
            trust = fit_trust(trainer)
            refit = None
            if self.config.task.refit:
                refit = fit_task(trainer, self.config.task, self.seed, self._told("task head"))
            tensors = {
                f"{part}.{key}": value
                for part, module in modules.items()
                for key, value in module.state_dict().items()
            }
            self.workspace.save(
                "executor",
                tensors,
                {"history": history, "trust": trust, "task": None if refit is None else vars(refit)},
            )
        tensors, facts = self.workspace.load("executor")
        for part, module in modules.items():
            module.load_state_dict(_part(tensors, f"{part}."))
            module.eval().requires_grad_(False)
        return facts

    # stage 5

    def model(
        self,
        space: LatentSpace,
        read: Understanding,
        prepared: Prepared,
        executor: Executor,
        manifest: Manifest,
    ) -> Model:
        """The finished model in memory."""
        # the texts that a user's samples will need, so that most runs never load the text encoder
        known = CachedTextEncoder(self.text_encoder.encoder)
        texts = [
            text
            for plan in prepared.plans
            for text in (self.choice.schema.text(plan), *self.choice.schema.constraint_texts(plan))
        ]
        known.remember(texts, self.text_encoder.embed(texts))
        return Model(
            config=self.model_config(space, prepared.projection),
            manifest=manifest,
            latent_space=space,
            text_encoder=known,
            encoder=read.encoder,
            schema=self.choice.schema,
            planner=read.student,
            projection=prepared.source.projection,
            executor=executor,
            knowledge_base=prepared.source.kb,
        ).to(torch.device("cpu"))

    def manifest(self, data: dict[str, Any], training: dict[str, Any], notes: tuple[str, ...]) -> Manifest:
        """The manifest, before anything is saved."""
        return Manifest(
            fingerprint="",
            components="",
            files={},
            data=data,
            seed=self.seed,
            config=self.config.model_dump(mode="json"),
            versions=versions(),
            machine=machine(),
            training=training,
            notes=notes,
        )


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


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _fit_anchor(executor: Executor, prepared: Prepared) -> None:
    """Anchor weights and residual scales, on training pairs whose parts are all cross-fitted."""
    data, source = prepared.training, prepared.source
    step = max(1, len(data.pool) // ANCHOR_SAMPLE)
    pairs = np.arange(0, len(data.pool), step, dtype=np.int64)
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
        executor.anchor.cpu().fit(name, target, evidence, gaussian, visible[wanted])
        left = target - executor.anchor(name, evidence, gaussian, visible[wanted])
        scales.append(max(float(left.square().mean().sqrt()), 1e-6))
    executor.residual_scale.copy_(torch.tensor(scales))
