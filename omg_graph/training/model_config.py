"""The configuration of the model that a run makes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from omg_graph.codecs.latents import LatentSpace
from omg_graph.encoders.observation import ObservationEncoderConfig
from omg_graph.metrics.labels import choose_family
from omg_graph.model.config import ModelConfig, PlanningSettings, RetrievalSettings
from omg_graph.predictor.task import TaskHeadConfig, label_width
from omg_graph.training.evidence import ProjectionFit
from omg_graph.training.run import RunData
from omg_graph.training.targets import describe_target, task_head, usable_labels


def model_config(run: RunData, space: LatentSpace, report: ProjectionFit | None) -> ModelConfig:
    """The configuration of the model that this run makes."""
    settings = run.config
    return ModelConfig(
        name=settings.name,
        synthetic=run.synthetic,
        feature_names=run.feature_names,
        feature_units=run.feature_units,
        modalities=run.train.modalities,
        latent_widths=space.widths,
        autoencoder=settings.autoencoder.kind,
        text_encoder=run.text_encoder.name,
        shared_width=run.text_encoder.width,
        thinker=None if run.hidden_states is None else run.hidden_states.record,
        encoder=encoder_config(run, space.encode(run.train)),
        executor=settings.executor,
        task=task_config(run, space),
        target=describe_target(run.train),
        metrics=choose_family(usable_labels(run.train)),
        planning=PlanningSettings(
            candidates=settings.planner.candidates,
            include_greedy=settings.planner.include_greedy,
            temperature=settings.planner.temperature,
            top_p=settings.planner.top_p,
            semantic_weight=settings.planner.semantic_weight,
            schema_penalty=settings.planner.schema_penalty,
            condition=settings.planner.condition,
        ),
        retrieval=RetrievalSettings(
            top_k=settings.retriever.top_k,
            temperature=settings.retriever.temperature,
            query=settings.retriever.query,
            query_kept=report.kept if report is not None else False,
            query_plan=settings.retriever.query_plan,
            aggregation=settings.retriever.aggregation,
            source=settings.retriever.source,
        ),
        median_lengths={
            name: int(np.median(rows[run.train.observed[name]])) for name, rows in run.train.lengths.items()
        },
    )


def encoder_config(run: RunData, latents: Mapping[str, Tensor]) -> ObservationEncoderConfig:
    """Psi's sizes, for the training rows' latents."""
    return ObservationEncoderConfig(
        widths={name: value.shape[1] for name, value in latents.items()},
        scales={name: max(float(value.square().mean().sqrt()), 1e-6) for name, value in latents.items()},
        shared_width=run.text_encoder.width,
        hidden=run.config.encoder.hidden,
        dropout=run.config.encoder.dropout,
        raw_width=0 if run.hidden_states is None else run.hidden_states.width,
        raw_dropout=run.config.encoder.raw_dropout,
    )


def task_config(run: RunData, space: LatentSpace) -> TaskHeadConfig | None:
    """The task head's, for the training rows' labels; None without any."""
    task, settings = task_head(run.train, run.choice.schema, space, run.text_encoder.width), run.config.task
    if task is None or not settings.refit or settings.reading == "none":
        return task
    return task.model_copy(update={"reading": label_width(task)})
