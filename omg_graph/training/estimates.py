"""Stage: what closed forms say of every pair of rows and pattern, with neither plan nor evidence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from omg_graph.codecs.latents import LatentSpace
from omg_graph.predictor.label_regression import LabelRegression
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.priors.kernel import KernelConditional
from omg_graph.training.closed_forms import run_gaussian, run_kernel, run_reader
from omg_graph.training.fold_pairs import gaussian_pairs
from omg_graph.training.kernel_pairs import kernel_pairs
from omg_graph.training.reading import reading_pairs
from omg_graph.training.run import RunData


@dataclass(frozen=True)
class PairEstimates:
    """Of the pairs of one split."""

    gaussian: dict[str, Tensor]
    """E[z | visible] of every modality, (pairs, latent) each."""
    kernel: dict[str, Tensor]
    """The same by kernel regression."""
    reading: Tensor | None
    """What the label reader says, (pairs, columns); None without one."""
    words: Tensor | None
    """What the transcripts say, (rows, terms); None where none is read."""


@dataclass(frozen=True)
class Estimates:
    """The closed forms, and what they say. Runs that differ in later stages alone can have them in common."""

    gaussian: GaussianConditional
    kernel: KernelConditional
    reader: LabelRegression | None
    training: PairEstimates
    """Cross-fitted: nothing of a row's own group is in them."""
    validation: PairEstimates


def estimate_pairs(run: RunData, space: LatentSpace) -> Estimates:
    """Fit the closed forms, or read them from the workspace, and ask them about every pair."""
    latents, known = space.encode(run.train), torch.from_numpy(run.train.mask())
    valid_latents, valid_known = space.encode(run.valid), torch.from_numpy(run.valid.mask())
    gaussian = run_gaussian(run, latents, known)
    # the Gaussian conditional of a training row comes from the other folds
    train_gaussian = gaussian_pairs(gaussian, latents, known, run.folds, run.train_pool)
    valid_gaussian = gaussian_pairs(gaussian, valid_latents, valid_known, None, run.valid_pool)
    run.progress("Gaussian conditional", 1, 1, None)
    kernel = run_kernel(run, latents, gaussian)
    train_kernel = kernel_pairs(kernel, latents, run.train, run.train_pool)
    valid_kernel = kernel_pairs(kernel, valid_latents, run.valid, run.valid_pool)
    run.progress("kernel conditional", 1, 1, None)
    reader = run_reader(run, space)
    train_reading = valid_reading = train_words = valid_words = None
    if reader is not None:
        train_reading = reading_pairs(reader, latents, run.train, run.train_pool)
        valid_reading = reading_pairs(reader, valid_latents, run.valid, run.valid_pool)
        train_words = reader.describe(run.train.raw_text, len(run.train))
        valid_words = reader.describe(run.valid.raw_text, len(run.valid))
        run.progress("label reader", 1, 1, None)
    return Estimates(
        gaussian,
        kernel,
        reader,
        PairEstimates(train_gaussian, train_kernel, train_reading, train_words),
        PairEstimates(valid_gaussian, valid_kernel, valid_reading, valid_words),
    )
