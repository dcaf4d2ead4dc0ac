"""Stages: the executor in its model, trained, and the finished model put together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from omg_graph.codecs.latents import LatentSpace
from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.executor.executor import Executor
from omg_graph.model.config import Manifest
from omg_graph.model.folder import machine, versions
from omg_graph.model.model import Model
from omg_graph.predictor.direct import DirectHeadConfig
from omg_graph.seeding import seeded
from omg_graph.training.calibration import calibrate
from omg_graph.training.execution import ExecutorTrainer, fit_trust
from omg_graph.training.model_config import model_config
from omg_graph.training.prediction import fit_task
from omg_graph.training.preparation import Prepared, fit_anchor
from omg_graph.training.readers import Understanding
from omg_graph.training.run import RunData
from omg_graph.training.starting import fit_start
from omg_graph.training.workspace import weights_of


def executor_trainer(
    run: RunData, space: LatentSpace, read: Understanding, prepared: Prepared
) -> ExecutorTrainer:
    """The executor with its anchor fitted, ready to be trained."""
    config = model_config(run, space, prepared.projection)
    with seeded(run.seed, "executor weights"):
        executor = Executor(config.executor, config.modalities, config.latent_widths, config.shared_width)
        if config.task is not None:
            executor.add_task(config.task)
    executor.gaussian = prepared.gaussian
    executor.planned = prepared.planned
    executor.kernel = prepared.kernel
    # on the CPU, where the pairs are; the trainer then moves the executor to its device, anchor and all
    fit_anchor(executor, prepared)
    return ExecutorTrainer(
        executor=executor,
        source=prepared.source,
        encoder=read.encoder,
        latent_space=space,
        training=prepared.training,
        validation=prepared.validation,
        checked=prepared.checked,
        plan_table=prepared.plan_table,
        weights=run.config.objective,
        settings=run.config.optimiser,
        seed=run.seed,
        train_projection=prepared.projection.corrected,
        device=run.device,
    )


def train_executor(run: RunData, trainer: ExecutorTrainer) -> dict[str, Any]:
    """Train the executor, or read it; the report holds its history."""
    modules: Mapping[str, torch.nn.Module] = {
        "executor": trainer.executor,
        "query": trainer.source.projection,
    }
    if not run.workspace.has("executor"):
        history = trainer.train(run.config.optimiser.epochs, run.workspace, on_epoch=run.told("executor"))
        trust = fit_trust(trainer)
        starts = fit_start(trainer)
        refit = None
        if run.config.task.refit:
            refit = fit_task(trainer, run.config.task, run.seed, run.told("task head"), run.workspace)
        calibration = calibrate(trainer) if run.config.task.calibrate else None
        head = trainer.executor.task
        networks = None if head is None else head.config.direct
        tensors = {
            f"{part}.{key}": value
            for part, module in modules.items()
            for key, value in module.state_dict().items()
        }
        run.workspace.save(
            "executor",
            tensors,
            {
                "history": history,
                "trust": trust,
                "starts": starts,
                "task": None if refit is None else vars(refit.head),
                "direct": None if refit is None else refit.direct,
                "networks": None if networks is None else networks.model_dump(mode="json"),
                "temperature": None if calibration is None else calibration.temperature,
                "spread": None if calibration is None else calibration.spread,
            },
        )
    tensors, facts = run.workspace.load("executor")
    if facts["networks"] is not None and trainer.executor.task is not None:
        # the head has got networks beside it; the order of its slots is that of the modalities, as before
        networks = DirectHeadConfig.model_validate(facts["networks"])
        trainer.executor.add_task(trainer.executor.task.config.model_copy(update={"direct": networks}))
        trainer.executor.to(run.device)
    for part, module in modules.items():
        module.load_state_dict(weights_of(tensors, f"{part}."))
        module.eval().requires_grad_(False)
    return facts


def assemble(
    run: RunData,
    space: LatentSpace,
    read: Understanding,
    prepared: Prepared,
    executor: Executor,
    manifest: Manifest,
) -> Model:
    """The finished model in memory."""
    # the texts that a user's samples will need, so that most runs never load the text encoder
    known = CachedTextEncoder(run.text_encoder.encoder)
    texts = [
        text
        for plan in prepared.plans
        for text in (run.choice.schema.text(plan), *run.choice.schema.constraint_texts(plan))
    ]
    known.remember(texts, run.text_encoder.embed(texts))
    config = model_config(run, space, prepared.projection)
    if executor.task is not None:
        config = config.model_copy(update={"task": executor.task.config})
    return Model(
        config=config,
        manifest=manifest,
        latent_space=space,
        text_encoder=known,
        encoder=read.encoder,
        schema=run.choice.schema,
        planner=read.student,
        projection=prepared.source.projection,
        executor=executor,
        label_regression=prepared.reader,
        hidden_states=run.hidden_states,
        device=run.device,
        knowledge_base=prepared.source.kb,
    ).to(torch.device("cpu"))


def first_manifest(
    run: RunData, data: dict[str, Any], training: dict[str, Any], notes: tuple[str, ...]
) -> Manifest:
    """The manifest, before anything is saved."""
    return Manifest(
        fingerprint="",
        components="",
        files={},
        data=data,
        seed=run.seed,
        config=run.config.model_dump(mode="json"),
        versions=versions(),
        machine=machine(),
        training=training,
        notes=notes,
    )
