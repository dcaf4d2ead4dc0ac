"""The label reader of the training rows, and what it says of every pair."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from omg_graph.data.dataset import TEXT_MODALITY, Split
from omg_graph.predictor.label_regression import LABEL, LabelRegression, WordEncoder, with_words
from omg_graph.predictor.task import TaskHeadConfig, label_columns
from omg_graph.priors.gaussian import GaussianConditional
from omg_graph.training.fold_pairs import visible_text
from omg_graph.training.kernel_pairs import alike_pairs, kept_and_tuned, observed_sets
from omg_graph.training.patterns import PatternPool
from omg_graph.training.targets import label_tensor


def fit_reader(
    latents: Mapping[str, Tensor],
    split: Split,
    gaussian: GaussianConditional,
    task: TaskHeadConfig,
    pool: PatternPool,
    *,
    words: bool,
    rows: int,
    seed: int,
) -> LabelRegression:
    """Keep rows with their words and labels, and choose length and ridge for every observed set.

    Args:
        latents: Latents of the training rows.
        split: The training rows, labelled.
        gaussian: Fills what rows miss, where they serve as inputs.
        task: What the head predicts.
        pool: Patterns to choose on.
        words: Whether to read transcripts.
        rows: Rows to keep at most.
        seed: Decides which.
    """
    label = label_tensor(split)
    if label is None:
        raise ValueError("a split without labels has nothing to learn from")
    # a transcript belongs to the modality text, and is hidden with it: without it nothing would hide it
    words = words and TEXT_MODALITY in split.names
    encoder = WordEncoder.fit((split.raw_text or ()) if words else ())
    known = torch.from_numpy(split.mask())
    texts = split.raw_text if encoder.width else None
    inputs, there = with_words(gaussian.filled(latents, known), known, texts, encoder)
    inputs[LABEL] = label_columns(task, label)
    there = torch.cat([there, ~label.isnan().unsqueeze(1)], dim=1)

    shown = _with_words(observed_sets(pool), split, texts is not None)
    kernel = kept_and_tuned(
        inputs, there, split, shown, rows=rows, seed=seed, purpose="reader", targets=[LABEL]
    )
    return LabelRegression(kernel, encoder)


def _with_words(patterns: Tensor, split: Split, read: bool) -> Tensor:
    """Observed sets of modalities with whether words are there, and no label."""
    patterns = torch.cat([patterns, torch.ones(1, patterns.shape[1], dtype=torch.bool)])
    shown = torch.zeros(len(patterns), 1, dtype=torch.bool)
    if read:
        shown = patterns[:, split.names.index(TEXT_MODALITY)].unsqueeze(1)
    return torch.cat([patterns, shown, shown, torch.zeros_like(shown)], dim=1)


def reading_pairs(
    reader: LabelRegression, latents: Mapping[str, Tensor], split: Split, pool: PatternPool
) -> Tensor:
    """What the reader says of each pair, (pairs, width), never from a row's own group."""
    out = torch.zeros(len(pool), reader.width)
    for block in alike_pairs(latents, split, pool):
        texts = visible_text(split, pool, block.pairs)
        out[torch.from_numpy(block.pairs)] = reader.predict(
            block.latents, block.visible, texts, block.ids, block.groups
        )
    return out
