"""Stages in closed form: what is fitted once without a gradient, then read from the workspace."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from omg_graph.codecs.latents import LatentSpace
from omg_graph.predictor.label_regression import LabelRegression, WordEncoder
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.kernel import KernelConditional
from omg_graph.training.fold_pairs import fit_gaussian
from omg_graph.training.kernel_pairs import fit_kernel
from omg_graph.training.model_config import task_config
from omg_graph.training.reading import fit_reader
from omg_graph.training.run import RunData


def run_gaussian(run: RunData, latents: Mapping[str, Tensor], known: Tensor) -> GaussianConditional:
    """The joint Gaussian of the training rows' latents."""
    if not run.workspace.has("gaussian"):
        fitted = fit_gaussian(dict(latents), known, run.folds, run.train_pool)
        run.workspace.save("gaussian", fitted.state_dict(), {})
    model = GaussianConditional({name: value.shape[1] for name, value in latents.items()})
    model.load_state_dict(run.workspace.load("gaussian")[0])
    return model


def run_kernel(
    run: RunData, latents: Mapping[str, Tensor], gaussian: GaussianConditional
) -> KernelConditional:
    """Kernel regression of missing latents; an empty one where no anchor asks for it."""
    model = KernelConditional({name: value.shape[1] for name, value in latents.items()})
    if run.config.executor.anchor not in ("kernel", "mixture"):
        return model
    if not run.workspace.has("kernel"):
        fitted = fit_kernel(latents, run.train, gaussian, run.train_pool, run.config.anchor.rows, run.seed)
        run.workspace.save("kernel", fitted.state_dict(), {})
    model.load_state_dict(run.workspace.load("kernel")[0])
    return model


def run_reader(run: RunData, space: LatentSpace) -> LabelRegression | None:
    """The label reader of the training rows; None where there is no label, or none is to be read."""
    task = task_config(run, space)
    if task is None or not task.reading:
        return None
    if not run.workspace.has("label-reader"):
        latents = space.encode(run.train)
        fitted = fit_reader(
            latents,
            run.train,
            run_gaussian(run, latents, torch.from_numpy(run.train.mask())),
            task,
            run.train_pool,
            words=run.config.task.reading == "words",
            rows=run.config.anchor.rows,
            seed=run.seed,
        )
        run.workspace.save("label-reader", fitted.kernel.state_dict(), fitted.words.model_dump(mode="json"))
    tensors, facts = run.workspace.load("label-reader")
    reader = LabelRegression.untrained(space.widths, task, WordEncoder.model_validate(facts))
    reader.kernel.load_state_dict(tensors)
    return reader
