"""The label reader of the training rows, and what it says of every pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from omg_graph.encoders.words import WordEncoder
from omg_graph.executor.gaussian import GaussianConditional
from omg_graph.executor.kernel import KernelConditional
from omg_graph.executor.task import TaskHeadConfig, label_columns
from omg_graph.model.reader import LABEL, LabelReader, with_words
from omg_graph.samples.dataset import TEXT_MODALITY, Split
from omg_graph.training.kernel_pairs import BLOCK, TUNING_ROWS, filled_inputs, observed_sets, rows_drawn
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
) -> LabelReader:
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
    inputs, there = with_words(filled_inputs(latents, known, gaussian), known, texts, encoder)
    inputs[LABEL] = label_columns(task, label)
    there = torch.cat([there, ~label.isnan().unsqueeze(1)], dim=1)

    def kept(index: Tensor) -> KernelConditional:
        return KernelConditional.keep(
            {name: value[index] for name, value in inputs.items()},
            there[index],
            [split.ids[row] for row in index.tolist()],
            [split.groups[row] for row in index.tolist()],
        )

    tuned = kept(rows_drawn(split.ids, min(rows, TUNING_ROWS), seed, "reader"))
    tuned.tune(_with_words(observed_sets(pool), split, texts is not None), [LABEL])
    kernel = kept(rows_drawn(split.ids, rows, seed, "reader"))
    kernel.patterns, kernel.lengths, kernel.ridges = tuned.patterns, tuned.lengths, tuned.ridges
    return LabelReader(kernel, encoder)


def _with_words(patterns: Tensor, split: Split, read: bool) -> Tensor:
    """Observed sets of modalities with whether words are there, and no label."""
    patterns = torch.cat([patterns, torch.ones(1, patterns.shape[1], dtype=torch.bool)])
    shown = torch.zeros(len(patterns), 1, dtype=torch.bool)
    if read:
        shown = patterns[:, split.names.index(TEXT_MODALITY)].unsqueeze(1)
    return torch.cat([patterns, shown, shown, torch.zeros_like(shown)], dim=1)


def reading_pairs(
    reader: LabelReader, latents: Mapping[str, Tensor], split: Split, pool: PatternPool
) -> Tensor:
    """What the reader says of each pair, (pairs, width), never from a row's own group."""
    out = torch.zeros(len(pool), reader.width)
    patterns, member = np.unique(pool.visible, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        of_pattern = np.flatnonzero(member == index)
        for start in range(0, len(of_pattern), BLOCK):
            pairs = of_pattern[start : start + BLOCK]
            rows = pool.rows[pairs]
            out[torch.from_numpy(pairs)] = reader.read(
                {
                    name: value[rows] * bool(pattern[column])
                    for column, (name, value) in enumerate(latents.items())
                },
                torch.from_numpy(pattern).expand(len(pairs), -1),
                _visible_texts(split, rows.tolist(), pattern.tolist()),
                [split.ids[row] for row in rows],
                [split.groups[row] for row in rows],
            )
    return out


def _visible_texts(split: Split, rows: Sequence[int], pattern: Sequence[bool]) -> list[str | None] | None:
    if split.raw_text is None:
        return None
    if TEXT_MODALITY in split.names and not pattern[split.names.index(TEXT_MODALITY)]:
        return None
    return [split.raw_text[row] for row in rows]
