"""The stages of a training, each made when it is first asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from omg_graph.codecs.autoencoder import AutoencoderSettings
from omg_graph.codecs.latents import LatentSpace, NamedEpochCallback
from omg_graph.data.dataset import Split
from omg_graph.data.patterns import PatternPool, pattern_pool
from omg_graph.encoders.hidden_states import ThinkerTextEncoder
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.knowledge.entries import make_entries
from omg_graph.metrics.labels import choose_family
from omg_graph.model.components import DEFAULT_COMPONENTS, Components
from omg_graph.model.config import Manifest, ModelConfig, PlanningSettings, RetrievalSettings
from omg_graph.model.folder import build_projection, machine, versions
from omg_graph.model.model import Model, components_fingerprint
from omg_graph.planner.schema import Plan
from omg_graph.planner.student import StudentPlanner
from omg_graph.predictor.label_regression import LabelRegression, WordEncoder
from omg_graph.predictor.task import TaskHeadConfig, predictor_class
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.kernel_fitting import rows_drawn
from omg_graph.priors.prior import Examples, Shown, filled, prior_class
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.training.cache import Content, Made, StageCache, digest_of
from omg_graph.training.config import (
    EncoderSettings,
    PlanChoiceSettings,
    StudentSettings,
    TrainingConfig,
)
from omg_graph.training.evidence import EvidenceSource, ProjectionFit, fit_projection
from omg_graph.training.executor_training import (
    ExecutorTrainer,
    PlanView,
    fit_anchor,
    new_executor,
    put_weights,
    train_executor,
)
from omg_graph.training.fitting import EpochCallback
from omg_graph.training.folds import group_folds
from omg_graph.training.observation_encoder import encoder_config, fit_observation_encoder
from omg_graph.training.prediction import (
    fit_direct_networks,
    fit_prediction,
    fit_trust_and_start,
    put_head,
)
from omg_graph.training.priors import Estimates, label_pairs, pair_estimates
from omg_graph.training.raw_states import PairStates, pair_states, states_notes
from omg_graph.training.request import Progress, TrainingData
from omg_graph.training.rows import IntArray, PairData, PlannedRows, planned_rows
from omg_graph.training.student import (
    PairPlans,
    build_student,
    choose_plans,
    fit_student,
    plan_table,
    plan_texts,
)
from omg_graph.training.targets import describe_target, label_tensor, task_config, usable_labels
from omg_graph.training.validation import validate

CHECKED_TURNS = 3
FITTED = ("trust", "starts", "guidance", "direct", "temperature", "spread")
"""What the manifest says of the fits after the executor's training."""
M = TypeVar("M", bound=nn.Module)
Tensors = dict[str, Tensor]
Facts = dict[str, Any]
PlanTable = tuple[list[Plan], IntArray, Tensor]


@dataclass
class TrainingRun:
    """One training: its data and settings, and what its stages make of them.

    A stage is a property, computed at first access or read from the cache, with the stages it depends on. So
    a resumed training repeats nothing. Estimates of training rows that the executor is trained on are
    cross-fitted by group.
    """

    data: TrainingData
    config: TrainingConfig
    seed: int
    cache: StageCache
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    on_progress: Progress = lambda *_: None
    components: Components = DEFAULT_COMPONENTS
    """The parts of the method, or others in their place."""
    teacher_plans: bool = False
    """Whether the executor trains on the teacher's plans in place of the student's out-of-fold ones."""
    after_epoch: Callable[[ExecutorTrainer, int], None] = lambda *_: None
    """Called after each epoch of the executor, with the epoch from 1."""

    def variant(
        self,
        config: TrainingConfig,
        folder: Path,
        components: Components = DEFAULT_COMPONENTS,
        *,
        teacher_plans: bool = False,
    ) -> TrainingRun:
        """The same data and seed under other settings; stages that don't differ are shared.

        Args:
            config: The other settings.
            folder: For stages that aren't shared.
            components: See above.
            teacher_plans: See above.
        """
        made = replace(
            self,
            config=config,
            cache=self.cache.variant(folder),
            components=components,
            teacher_plans=teacher_plans,
        )
        made.__dict__["text_encoder"] = self.text_encoder  # one table of embeddings
        return made

    def _on_epoch(self, what: str) -> EpochCallback:
        return lambda done, of, loss: self.on_progress(what, done, of, loss)

    # rows, and their missing patterns

    @cached_property
    def train(self) -> Made[Split]:
        """The training rows."""
        return Made(self.data.train, digest_of([self.data.origin, "train", self.data.train.ids]))

    @cached_property
    def valid(self) -> Made[Split]:
        """The rows that choices are made on."""
        return Made(self.data.valid, digest_of([self.data.origin, "valid", self.data.valid.ids]))

    @cached_property
    def folds(self) -> IntArray:
        """(rows,): the fold of each training row, for cross-fitting."""
        return group_folds(self.data.train.groups, self.config.planner.folds, self.seed)

    @cached_property
    def train_pool(self) -> PatternPool:
        """Pairs of a training row and a pattern."""
        return self._pool(self.data.train)

    @cached_property
    def valid_pool(self) -> PatternPool:
        """Pairs of a validation row and a pattern."""
        return self._pool(self.data.valid)

    def _pool(self, split: Split) -> PatternPool:
        pool = pattern_pool(split.mask(), split.ids, self.config.planner.patterns, self.seed)
        return pool if self.config.missing_rate is None else pool.at_rate(self.config.missing_rate)

    # latents

    @cached_property
    def codecs(self) -> Made[LatentSpace]:
        """Standard units and autoencoders."""
        settings = self.config.autoencoder
        modalities = self.data.train.modalities
        # PCA draws nothing: all seeds share it
        seed = self.seed if LatentSpace.draws(self.data.train, settings) else 0
        return self.cache.stage(
            "codecs",
            partial(
                _fit_codecs,
                device=self.device,
                on_epoch=lambda name, *epoch: self.on_progress(f"codec of {name}", *epoch),
            ),
            lambda tensors, _: LatentSpace.load(modalities, tensors),
            self.train,
            settings,
            seed,
        )

    @cached_property
    def latents(self) -> Made[Tensors]:
        """Of the training rows, (rows, latent) each."""
        return self.cache.derived("latents", _encode, self.codecs, self.train)

    @cached_property
    def valid_latents(self) -> Made[Tensors]:
        """Of the validation rows."""
        return self.cache.derived("latents", _encode, self.codecs, self.valid)

    # texts

    @cached_property
    def text_encoder(self) -> CachedTextEncoder:
        """g: a sentence encoder, or a thinker's states about the centre of all texts of training plans."""
        states = self.data.hidden_states
        if self.data.text_encoder is not None or states is None:
            return CachedTextEncoder(self.data.text_encoder)  # type: ignore[arg-type]
        plans = {plan for plan in self.data.plans if plan is not None}

        def centre(texts: list[str], _thinker: str) -> Content:
            progress = lambda done, of: self.on_progress("hidden states of plans", done, of, None)  # noqa: E731
            return {
                "centre": torch.from_numpy(ThinkerTextEncoder.centred_on(states, texts, progress).centre)
            }, {}

        texts = sorted(set(plan_texts(self.data.schema, list(plans))))
        made = self.cache.stage(
            "text-centre", centre, lambda tensors, _: tensors["centre"].numpy(), texts, states.record.digest
        )
        return CachedTextEncoder(ThinkerTextEncoder(states, made.value))

    @cached_property
    def texts(self) -> Made[CachedTextEncoder]:
        """g, which knows the texts of the teacher's plans.

        A text's embedding differs in its last bits with the texts beside it, so they are kept.
        """
        encoder = self.text_encoder
        plans = {plan for plan in (*self.data.plans, *self.data.valid_plans) if plan is not None}

        def embed(texts: list[str], _name: str, _origin: Any) -> Content:
            return {"embeddings": torch.from_numpy(encoder.embed(texts))}, {"texts": texts}

        def load(tensors: Tensors, facts: Facts) -> CachedTextEncoder:
            encoder.remember(facts["texts"], tensors["embeddings"].numpy())
            return encoder

        texts = sorted(set(plan_texts(self.data.schema, sorted(plans))))
        thinker = self.data.origin.get("thinker")
        return self.cache.stage("texts", embed, load, texts, encoder.name, thinker)

    # the label's regression

    def _examples(self, place: int) -> Made[Examples]:
        """Rows of one split and their pairs; what a training row misses is filled by a joint Gaussian."""
        split, latents, pool = (
            (self.train, self.latents, self.train_pool),
            (self.valid, self.valid_latents, self.valid_pool),
        )[place]

        def make(
            split: Split, latents: Tensors, pool: PatternPool, folds: IntArray | None, most_rows: int
        ) -> Examples:
            rows = Examples.of(split, latents, pool, folds, most_rows)
            if place or bool(rows.known.all()):
                return rows
            known = Shown(ids=rows.ids, groups=rows.groups, latents=rows.latents, observed=rows.known)
            return replace(rows, latents=filled(GaussianConditional.fit(rows), known))

        folds = None if place else self.folds
        return self.cache.derived("examples", make, split, latents, pool, folds, self.config.kernel_rows)

    @cached_property
    def task(self) -> TaskHeadConfig | None:
        """What the head predicts; None without labels."""
        width = self.text_encoder.width
        return task_config(self.data.train, self.data.schema, self.codecs.value, width, self.config.task)

    @cached_property
    def label_regression(self) -> Made[LabelRegression] | None:
        """The label's regression; None where there is no label, or none is to be estimated."""
        task, widths = self.task, self.codecs.value.widths
        if task is None or not task.reading:
            return None

        def fitted(rows: Examples, split: Split, task: TaskHeadConfig, words: bool, seed: int) -> Content:
            label = label_tensor(split)
            if label is None:
                raise ValueError("expected training rows with labels")
            texts = split.raw_text if words else None
            regression = LabelRegression.fit(rows, task, label, texts, seed)
            return dict(regression.kernel.state_dict()), regression.words.model_dump(mode="json")

        def load(tensors: Tensors, facts: Facts) -> LabelRegression:
            regression = LabelRegression.untrained(widths, task, WordEncoder.model_validate(facts))
            regression.kernel.load_state_dict(tensors)
            return regression

        return self.cache.stage(
            "label-regression",
            fitted,
            load,
            self._examples(0),
            self.train,
            task,
            self.config.task.reading == "words",
            self.seed,
        )

    @cached_property
    def label_estimates(self) -> tuple[Made[Tensor], Made[Tensor]] | None:
        """The label's regression of every training and validation pair."""
        regression = self.label_regression
        if regression is None:
            return None
        made = [
            self.cache.derived("label estimates", label_pairs, regression, self._examples(place), split)
            for place, split in enumerate((self.train, self.valid))
        ]
        return made[0], made[1]

    # psi and the student

    @cached_property
    def planned(self) -> tuple[Made[PlannedRows], Made[PlannedRows]]:
        """Training and validation rows with the teacher's plans, to learn from and to check on."""
        train = self._planned(self.latents, self.train, self.train_pool, self.data.plans)
        return train, self._planned(self.valid_latents, self.valid, self.valid_pool, self.data.valid_plans)

    def _planned(
        self, latents: Made[Tensors], split: Made[Split], pool: PatternPool, plans: Sequence[Plan | None]
    ) -> Made[PlannedRows]:
        def make(
            latents: Tensors, split: Split, pool: PatternPool, plans: Any, texts: CachedTextEncoder
        ) -> PlannedRows:
            return planned_rows(
                split,
                plans,
                pool,
                latents,
                schema=self.data.schema,
                text_encoder=texts,
                states=self._states(split, pool),
                scale=self.data.train,
            )

        return self.cache.derived("planned rows", make, latents, split, pool, plans, self.texts)

    def _states(self, split: Split, pool: PatternPool) -> PairStates | None:
        states, what = self.data.hidden_states, f"hidden states, {split.name}"
        if states is None:
            return None
        return pair_states(states, split, pool, lambda done, of: self.on_progress(what, done, of, None))

    @cached_property
    def encoder(self) -> Made[ObservationEncoder]:
        """Psi, on all training rows."""
        return self._encoder()

    def _encoder(self, fold: int | None = None) -> Made[ObservationEncoder]:
        rows, checked = self.planned
        settings, states = self.config.encoder, self.data.hidden_states
        raw_width = 0 if states is None else states.width

        def fitted(
            rows: PlannedRows,
            checked: PlannedRows | None,
            settings: EncoderSettings,
            seed: int,
            allowed: Any,
            epochs: int | None,
        ) -> Content:
            encoder, report = fit_observation_encoder(
                encoder_config(rows.latents, settings, rows.plan_embeddings.shape[1], raw_width),
                rows,
                settings,
                seed=seed,
                allowed=allowed,
                validation=checked,
                epochs=epochs,
                on_epoch=self._on_epoch(f"observation encoder{_which(fold)}"),
            )
            return dict(encoder.state_dict()), {"epochs": report.epochs, "loss": report.validation_loss}

        def load(tensors: Tensors, _: Facts) -> ObservationEncoder:
            width = self.text_encoder.width
            encoder = ObservationEncoder(encoder_config(rows.value.latents, settings, width, raw_width))
            return _loaded(encoder, tensors)

        return self.cache.stage(
            "encoder" + _file(fold), fitted, load, rows, *self._of_fold(fold, checked, settings, "encoder")
        )

    def _of_fold(
        self, fold: int | None, checked: Made[PlannedRows], settings: Any, longest: str
    ) -> tuple[Any, ...]:
        """What a fit on all rows is given, and one on all but a fold: for as many epochs as the former."""
        if fold is None:
            return checked, settings, self.seed, None, None
        epochs = int(getattr(self, longest).facts["epochs"])
        return None, settings, self.seed + 1000 + fold, self.folds != fold, epochs

    @cached_property
    def student(self) -> Made[StudentPlanner]:
        """The student, on all training rows."""
        return self._student(self.encoder)

    @cached_property
    def student_rows(self) -> tuple[Made[PlannedRows], Made[PlannedRows]]:
        """The planned rows with label estimates, where the student is to read them."""
        estimates = self.label_estimates
        if not self.config.planner.reading or estimates is None:
            return self.planned
        made = [
            self.cache.derived(
                "rows with estimates",
                lambda rows, estimates: replace(rows, label_estimates=estimates),
                self.planned[place],
                estimates[place],
            )
            for place in (0, 1)
        ]
        return made[0], made[1]

    def _student(self, encoder: Made[ObservationEncoder], fold: int | None = None) -> Made[StudentPlanner]:
        rows, checked = self.student_rows
        schema, settings = self.data.schema, self.config.planner.only(StudentSettings)

        def fitted(
            encoder: ObservationEncoder,
            rows: PlannedRows,
            checked: PlannedRows | None,
            settings: StudentSettings,
            seed: int,
            allowed: Any,
            epochs: int | None,
        ) -> Content:
            student, report = fit_student(
                schema,
                encoder,
                rows,
                settings,
                seed=seed,
                allowed=allowed,
                validation=checked,
                epochs=epochs,
                on_epoch=self._on_epoch(f"planner{_which(fold)}"),
            )
            return dict(student.state_dict()), {"epochs": report.epochs, "loss": report.validation_loss}

        def load(tensors: Tensors, _: Facts) -> StudentPlanner:
            width = encoder.value.config.shared_width
            return _loaded(build_student(schema, rows.value, width, settings, self.seed), tensors)

        arguments = self._of_fold(fold, checked, settings, "student")
        return self.cache.stage("student" + _file(fold), fitted, load, encoder, rows, *arguments)

    @cached_property
    def pair_plans(self) -> Made[PairPlans]:
        """u_X and the re-ranked plan of every pair, of training pairs by folds that never saw them."""
        encoders, students = [self.encoder], [self.student]
        for fold in np.unique(self.folds).tolist():
            encoders.append(self._encoder(fold))
            students.append(self._student(encoders[-1], fold))
        encoder = self.texts.value

        def load(tensors: Tensors, facts: Facts) -> PairPlans:
            encoder.remember(facts["texts"], tensors["text_embeddings"].numpy())
            plans = [tuple(plan) for plan in facts["plans"]]
            return PairPlans(
                tensors["training"],
                tensors["validation"],
                [plans[index] for index in tensors["training_plans"].tolist()],
                [plans[index] for index in tensors["validation_plans"].tolist()],
            )

        made = self.cache.stage(
            "plans",
            partial(choose_plans, text_encoder=encoder),
            load,
            encoders,
            students,
            *self.student_rows,
            self.train,
            self.valid,
            self.folds,
            self.config.planner.only(PlanChoiceSettings),
            self.seed,
        )
        if not self.teacher_plans:
            return made
        return self.cache.derived(
            "teacher's plans",
            _by_teacher,
            made,
            self.train_pool,
            self.data.plans,
            self.valid_pool,
            self.data.valid_plans,
        )

    # what the executor trains on

    @cached_property
    def entries(self) -> Made[KnowledgeBase]:
        """The knowledge base: the training split, or as much of it as is asked for, and nothing else."""
        settings = self.config.retriever

        def make(
            rows: Tensor,
            split: Split,
            latents: Tensors,
            codecs: LatentSpace,
            encoder: ObservationEncoder,
            texts: CachedTextEncoder,
            query: Any,
            plan_view: bool,
            source: str,
        ) -> KnowledgeBase:
            return make_entries(
                split.take(rows.numpy()),
                [self.data.plans[row] for row in rows.tolist()],
                latent_space=codecs,
                encoder=encoder,
                text_encoder=texts,
                schema=self.data.schema,
                query=query,
                plan_view=plan_view,
                components=components_fingerprint(codecs, encoder, texts.name),
                name=source,
                source=f"{source} · train",
                hidden_states=self.data.hidden_states,
                latents={name: value[rows] for name, value in latents.items()},
            )

        count = settings.entries or len(self.data.train)
        rows = rows_drawn(self.data.train.ids, count, self.seed, "entries")
        return self.cache.derived(
            "entries",
            make,
            rows,
            self.train,
            self.latents,
            self.codecs,
            self.encoder,
            self.texts,
            settings.query,
            settings.plan_view,
            self.data.source,
        )

    @cached_property
    def plan_table(self) -> Made[PlanTable]:
        """Distinct plans of all pairs, which of them each pair has, and c_S of each."""

        def make(plans: PairPlans, texts: CachedTextEncoder, taught: Sequence[Plan | None]) -> PlanTable:
            every = plans.training_plans + plans.validation_plans
            every += [plan for plan in taught if plan is not None]
            return plan_table(self.data.schema, texts, every)

        return self.cache.derived("plan table", make, self.pair_plans, self.texts, self.data.plans)

    def _planned_examples(self, place: int) -> Made[Examples]:
        """The rows with the plan of every pair."""
        condition = self.components.condition

        def make(rows: Examples, table: PlanTable, _condition: str) -> Examples:
            _, index, embeddings = table
            count, checked = len(self.train_pool), len(self.valid_pool)
            own = (index[:count], index[count : count + checked])[place]
            return replace(
                rows,
                plan_index=torch.from_numpy(own),
                plan_table=embeddings,
                condition=condition,
            )

        return self.cache.derived(
            "planned examples", make, self._examples(place), self.plan_table, condition.__name__
        )

    @cached_property
    def priors(self) -> dict[str, Made[Any]]:
        """The priors of the executor's mixture, by name."""
        widths = self.codecs.value.widths
        made = {}
        for name in self.config.executor.priors:
            kind = prior_class(name)
            made[name] = self.cache.stage(
                f"prior-{name}",
                _weights_of(kind.fit),
                lambda tensors, _, kind=kind: _loaded(kind(widths), tensors),  # type: ignore[misc]
                self._examples_for(kind, 0),
                self.seed,
            )
        return made

    def _examples_for(self, prior: Any, place: int) -> Made[Examples]:
        """The rows for a prior; without plans unless it uses them, so that it is shared between plans."""
        return self._planned_examples(place) if prior.reads_plans else self._examples(place)

    def _estimates(self, place: int) -> list[Made[Estimates | None]]:
        """Each prior's estimates of every pair."""
        return [
            self.cache.derived(
                "estimates",
                partial(pair_estimates, training=place == 0),
                prior,
                self._examples_for(prior.value, place),
            )
            for prior in self.priors.values()
        ]

    def _pairs(self, place: int) -> Made[PairData]:
        """Pairs of training or validation rows, their shortlists those of the raw query at first."""
        split = (self.train, self.valid)[place]
        source, regression = self._source.value, self.label_regression
        label_estimates = self.label_estimates

        def make(
            rows: Examples,
            split: Split,
            plans: PairPlans,
            estimates: list[Estimates | None],
            label_estimates: Tensor | None,
            regression: LabelRegression | None,
            _source: Any,
        ) -> PairData:
            keys, owners = [], []
            for column, value in enumerate(rows.latents.values()):
                there = rows.known[:, column : column + 1]
                norms = value.norm(dim=1, keepdim=True)
                keys.append(torch.where(there, value / norms.clamp(min=1e-12), 0.0))
                owners += [column] * value.shape[1]
            data = PairData(
                **vars(rows),
                label=label_tensor(split),
                keys=torch.cat(keys, dim=1),
                view_of_column=torch.tensor(owners),
                observation=(plans.training, plans.validation)[place],
                estimates=dict(zip(self.priors, estimates, strict=True)),
                shortlist={},
                label_estimates=label_estimates,
                words=None if regression is None else regression.describe(split.raw_text, len(split)),
            )
            return replace(data, shortlist=source.shortlist(data, fitted=False))

        return self.cache.derived(
            "pairs",
            make,
            self._planned_examples(place),
            split,
            self.pair_plans,
            self._estimates(place),
            None if label_estimates is None else label_estimates[place],
            regression,
            self._source,
            remember=False,
        )

    @cached_property
    def pairs(self) -> tuple[Made[PairData], Made[PairData]]:
        """What the executor trains on and is checked on."""
        return self._pairs(0), self._pairs(1)

    @cached_property
    def checked(self) -> IntArray:
        """Validation pairs that choose epochs."""
        return self.pairs[1].value.checked(self.seed, CHECKED_TURNS)

    @cached_property
    def _source(self) -> Made[EvidenceSource]:
        """Evidence under the raw query, until ``source`` gives it the learned one."""
        settings, parts = self.config.retriever, self.components
        _ = self.pair_plans  # its texts are kept, so they are embedded first

        def make(entries: KnowledgeBase, *_: Any) -> EvidenceSource:
            def query_plan(plan: Tensor, ids: Sequence[str]) -> Tensor:
                return parts.query_plan(plan, ids, self.data.schema, self.text_encoder)

            projection = build_projection(self._model_config(None))
            return EvidenceSource(entries, projection, settings, query_plan, parts.attention)

        names = [parts.query_plan.__name__, parts.attention.__name__]
        return self.cache.derived("evidence", make, self.entries, settings, names, remember=False)

    @cached_property
    def query(self) -> Made[ProjectionFit]:
        """Eq. 7's correction to the raw query, which ``source`` then has, and the pairs their shortlists."""
        training, validation = self.pairs

        def fitted(
            source: EvidenceSource,
            training: PairData,
            validation: PairData,
            checked: IntArray,
            seed: int,
            _keep: str,
        ) -> Content:
            report = fit_projection(
                source,
                training,
                validation,
                checked,
                seed=seed,
                keep=self.components.keep_query,
                on_epoch=self._on_epoch("query projection"),
            )
            return dict(source.projection.state_dict()), vars(report)

        made = self.cache.stage(
            "query",
            fitted,
            lambda *content: content,
            self._source,
            training,
            validation,
            self.checked,
            self.seed,
            self.components.keep_query.__name__,
        )
        tensors, facts = made.value
        source = self._source.value
        source.projection.load_state_dict(tensors)
        if facts["kept"]:
            # the query has changed, and with it the shortlists
            for data in (training.value, validation.value):
                data.shortlist.update(source.shortlist(data, fitted=True))
        return Made(ProjectionFit(**facts), made.digest, made.facts)

    @property
    def source(self) -> EvidenceSource:
        """Where evidence comes from, with the learned query."""
        _ = self.query
        return self._source.value

    # the executor and the head

    @cached_property
    def trainer(self) -> Made[ExecutorTrainer]:
        """The executor with its anchor fitted, ready to be trained."""
        training, validation = self.pairs

        def make(
            query: ProjectionFit,
            _source: Any,
            training: PairData,
            validation: PairData,
            encoder: ObservationEncoder,
            codecs: LatentSpace,
            priors: list[Any],
            *_settings: Any,
        ) -> ExecutorTrainer:
            fitted = dict(zip(self.priors, priors, strict=True))
            config = self._model_config(query)
            executor = new_executor(config, fitted, self.seed, self.components.denoiser, codecs.tokens)
            # on the CPU, where the pairs are; the trainer then moves the executor to its device
            fit_anchor(executor, self.source, training, codecs.sampled)
            return ExecutorTrainer(
                executor=executor,
                source=self.source,
                encoder=encoder,
                latent_space=codecs,
                views=self._views(training, fitted),
                validation=validation,
                checked=self.checked,
                weights=self.config.objective,
                seed=self.seed,
                train_projection=query.corrected,
                device=self.device,
                objective=self.components.objective,
            )

        return self.cache.derived(
            "trainer",
            make,
            self.query,
            self._source,
            training,
            validation,
            self.encoder,
            self.codecs,
            list(self.priors.values()),
            self.plan_table,
            [self.config.executor, self.task, self.config.objective, self.seed, self.components.names],
            remember=False,
        )

    def _views(self, training: PairData, priors: Mapping[str, Any]) -> dict[PlanView, PairData]:
        """Training pairs with their own plans and the teacher's, as they are and with other observations."""
        weights = self.config.objective
        views = {PlanView(): training}
        if weights.teacher_share and any(plan is not None for plan in self.data.plans):
            distinct = {plan: place for place, plan in enumerate(self.plan_table.value[0])}
            places = np.array([-1 if plan is None else distinct[plan] for plan in self.data.plans])
            taught = training.taught(torch.from_numpy(places[training.pool.rows]))
            # the teacher's plans may find other entries, and priors that read plans estimate otherwise
            views[PlanView(taught=True)] = replace(
                taught,
                shortlist=self.source.shortlist(taught, fitted=True),
                estimates=taught.estimates
                | {
                    name: pair_estimates(prior, taught, training=True)
                    for name, prior in priors.items()
                    if prior.reads_plans
                },
            )
        if weights.counterfactual_share:
            for view, data in tuple(views.items()):
                donors = data.donors(self.seed, same_plan=not view.taught)
                views[replace(view, counterfactual=True)] = data.showing(donors)
        return views

    @cached_property
    def executor(self) -> Made[ExecutorTrainer]:
        """The trained executor."""

        def after_epoch(trainer: ExecutorTrainer, done: int, of: int, loss: float) -> None:
            self.after_epoch(trainer, done)
            self.on_progress("executor", done, of, loss)

        made = self.cache.stage(
            "executor",
            partial(train_executor, after_epoch=after_epoch),
            lambda *content: content,
            self.trainer,
            self.config.optimiser,
            private=True,
            resumable=True,
        )
        return self._with_weights(made)

    def _with_weights(self, made: Made[Content]) -> Made[ExecutorTrainer]:
        tensors, facts = made.value
        if "networks" in facts:
            put_head(self.trainer.value, facts)
        put_weights(self.trainer.value, tensors)
        return Made(self.trainer.value, made.digest, facts | {"file": made.facts["file"]})

    @cached_property
    def trust(self) -> Made[ExecutorTrainer]:
        """The executor with its trust and start of draws fitted."""
        return self._with_weights(
            self.cache.stage(
                "trust", fit_trust_and_start, lambda *content: content, self.executor, private=True
            )
        )

    @cached_property
    def direct(self) -> Made[Content] | None:
        """The direct head's networks, where the head is fitted beside some."""
        settings, task = self.config.task, self.task
        if task is None or not settings.refit or not settings.direct.members:
            return None
        if not predictor_class(task.predictor).averages_networks:
            return None
        return self.cache.stage(
            "direct",
            partial(fit_direct_networks, device=self.device, on_epoch=self._on_epoch("direct head")),
            lambda *content: content,
            task,
            self._labelled_pairs(0),
            self._labelled_pairs(1),
            settings.direct,
            self.seed,
        )

    def _labelled_pairs(self, place: int) -> Made[PairData]:
        """The pairs for the direct networks: without plans and evidence."""
        split = (self.train, self.valid)[place]
        latents = (self.latents, self.valid_latents)[place]
        pool = (self.train_pool, self.valid_pool)[place]
        data = self.pairs[place].value
        words = self.label_regression
        return self.cache.derived(
            "labelled pairs", lambda *_: data, split, latents, pool, words, remember=False
        )

    @cached_property
    def prediction(self) -> Made[ExecutorTrainer]:
        """The finished executor, with its task head."""
        settings = self.config.task
        return self._with_weights(
            self.cache.stage(
                "prediction",
                partial(fit_prediction, on_epoch=self._on_epoch("task head")),
                lambda *content: content,
                self.trust,
                settings.epochs if settings.refit else None,
                settings.calibrate,
                self.direct,
                self.seed,
                private=True,
            )
        )

    # the model

    def _model_config(self, query: ProjectionFit | None) -> ModelConfig:
        settings, train, states = self.config, self.data.train, self.data.hidden_states
        width = self.text_encoder.width
        return ModelConfig(
            name=settings.name,
            synthetic=self.data.synthetic,
            feature_names=self.data.feature_names,
            feature_units=self.data.feature_units,
            modalities=train.modalities,
            latent_widths=self.codecs.value.widths,
            autoencoder=settings.autoencoder.kind,
            text_encoder=self.text_encoder.name,
            shared_width=width,
            thinker=None if states is None else states.record,
            encoder=encoder_config(
                self.latents.value, settings.encoder, width, 0 if states is None else states.width
            ),
            executor=settings.executor,
            task=self.task,
            target=describe_target(train),
            metrics=choose_family(usable_labels(train)),
            planning=PlanningSettings(**settings.planner.only(PlanChoiceSettings).model_dump()),
            retrieval=RetrievalSettings(
                kind=settings.retriever.kind,
                top_k=settings.retriever.top_k,
                temperature=settings.retriever.temperature,
                query=settings.retriever.query,
                plan_view=settings.retriever.plan_view,
                query_kept=query is not None and query.kept,
            ),
            median_lengths={
                name: int(np.median(rows[train.observed[name]])) for name, rows in train.lengths.items()
            },
        )

    @cached_property
    def planner_model(self) -> Model:
        """A model whose planner can be asked, and whose executor was never trained."""
        executor = new_executor(
            self._model_config(None), {}, self.seed, self.components.denoiser, self.codecs.value.tokens
        )
        return self._assembled(executor, None, self.text_encoder, build_projection(self._model_config(None)))

    @cached_property
    def model(self) -> Model:
        """The finished model in memory, not measured yet."""
        executor = self.prediction.value.executor
        # the texts that a user's samples will need, so that most runs never load the text encoder
        texts = CachedTextEncoder(self.text_encoder.encoder)
        known = plan_texts(self.data.schema, self.plan_table.value[0])
        texts.remember(known, self.text_encoder.embed(known))
        return self._assembled(executor, self.query.value, texts, self.source.projection)

    def _assembled(
        self, executor: Any, query: ProjectionFit | None, texts: CachedTextEncoder, projection: nn.Module
    ) -> Model:
        config = self._model_config(query)
        if executor.task is not None:
            config = config.model_copy(update={"task": executor.task.config})
        regression = self.label_regression
        return Model(
            config=config,
            manifest=self._manifest(trained=query is not None),
            latent_space=self.codecs.value,
            text_encoder=texts,
            encoder=self.encoder.value,
            schema=self.data.schema,
            planner=self.student.value,
            projection=projection,
            executor=executor,
            label_regression=None if regression is None else regression.value,
            hidden_states=self.data.hidden_states,
            device=self.device,
            knowledge_base=self.entries.value,
            components=self.components,
        ).to(torch.device("cpu"))

    @property
    def facts(self) -> Facts:
        """Of the data, for the manifest."""
        facts = dict(self.data.facts)
        if (rate := self.config.missing_rate) is not None:
            facts["missing_rate"] = {"nominal": rate, "realised": round(self.train_pool.missing_rate, 4)}
        return facts

    @property
    def notes(self) -> tuple[str, ...]:
        """What was decided, left out or rebuilt so far."""
        notes = [*self.data.notes, *LatentSpace.notes(self.data.train, self.config.autoencoder)]
        if (rate := self.config.missing_rate) is not None:
            realised = round(self.train_pool.missing_rate, 4)
            notes.append(f"trained for the missing rate {rate:g} alone; {realised:g} is realised")
        if "planned" in self.__dict__:
            rows, checked = (made.value.states for made in self.planned)
            notes += states_notes(self.data.hidden_states, self.data.train, rows, checked)
        return (*notes, *self.cache.notes)

    def _manifest(self, trained: bool) -> Manifest:
        training: Facts = {"plans": self.data.teacher, "frame_filling": self.codecs.facts["frame_filling"]}
        for part, made in (("encoder", self.encoder), ("student", self.student)):
            training.setdefault("reader", {}).update(
                {f"{part}_epochs": made.facts["epochs"], f"{part}_loss": made.facts["loss"]}
            )
        if trained:
            fits = {**self.trust.facts, **self.prediction.facts}
            training |= {
                "query_projection": vars(self.query.value),
                "executor_history": self.executor.facts["history"],
                "executor_epochs": self.executor.facts["epochs"],
                **{name: fits[name] for name in FITTED},
            }
        return Manifest(
            fingerprint="",
            components="",
            files={},
            data=self.facts,
            seed=self.seed,
            config=self.config.model_dump(mode="json"),
            versions=versions(),
            machine=machine(),
            training=training,
            notes=self.notes,
        )

    @cached_property
    def metrics(self) -> Facts:
        """The model on validation rows, for every missing pattern, beside simple floors."""
        return validate(self.model, self.data.train, self.data.valid, self.on_progress)


def _fit_codecs(
    split: Split,
    settings: AutoencoderSettings,
    seed: int,
    *,
    device: torch.device,
    on_epoch: NamedEpochCallback,
) -> Content:
    """Codecs of all modalities, with their widths and how well lost frames are filled (1 for the mean)."""
    space = LatentSpace.fit(split, settings, seed, device=device, on_epoch=on_epoch)
    filling = {name: errors for name, codec in space.codecs.items() if (errors := codec.filling())}
    return space.state(), {"widths": space.widths, "frame_filling": filling}


def _encode(space: LatentSpace, split: Split) -> Tensors:
    return space.encode(split)


def _weights_of(fit: Callable[..., nn.Module]) -> Callable[..., Content]:
    """The stage of a fit that makes a module."""
    return lambda *arguments: (dict(fit(*arguments).state_dict()), {})


def _loaded(module: M, tensors: Mapping[str, Tensor]) -> M:
    module.load_state_dict(tensors)
    return module.eval()


def _by_teacher(
    made: PairPlans,
    train_pool: PatternPool,
    plans: Sequence[Plan | None],
    valid_pool: PatternPool,
    valid_plans: Sequence[Plan | None],
) -> PairPlans:
    """The teacher's plan of each pair's row; the student's where the teacher has none."""
    return replace(
        made,
        training_plans=[
            plans[row] or own for row, own in zip(train_pool.rows, made.training_plans, strict=True)
        ],
        validation_plans=[
            valid_plans[row] or own for row, own in zip(valid_pool.rows, made.validation_plans, strict=True)
        ],
    )


def _which(fold: int | None) -> str:
    return "" if fold is None else f", fold {fold + 1}"


def _file(fold: int | None) -> str:
    return "" if fold is None else f"-fold-{fold}"
