"""Several splits of a file as one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from omg_graph.data.conforming import conform
from omg_graph.data.dataset import BoolArray, IntArray, Labels, ModalitySpec, Split
from omg_graph.errors import DataError


def pooled(splits: Sequence[Split], source: str, name: str = "all") -> Split:
    """The rows of all splits, one after the other.

    A modality that a split lacks is missing in its rows, and sequences are padded to the longest.

    Args:
        splits: at least one.
        source: the file, for messages.
        name: of the whole.

    Raises:
        DataError: if an id comes in two of them, or shapes don't fit together.
    """
    twice, times = Counter(sample for split in splits for sample in split.ids).most_common(1)[0]
    if times > 1:
        raise DataError(
            f"{source}: different ids were expected in {', '.join(split.name for split in splits)}, "
            f"{twice[:60]!r} comes in {times} of them: take one split, or rename them"
        )
    if len(splits) == 1:
        return replace(splits[0], name=name)
    specs = _specs(splits)
    parts = [conform(split, specs, source, empty_rows="keep")[0] for split in splits]
    texts: list[str | None] = []
    for part in parts:
        texts += part.raw_text or (None,) * len(part)
    return Split(
        name=name,
        ids=tuple(sample for part in parts for sample in part.ids),
        groups=tuple(group for part in parts for group in part.groups),
        modalities=specs,
        arrays={spec.name: np.concatenate([part.arrays[spec.name] for part in parts]) for spec in specs},
        observed={spec.name: np.concatenate([part.observed[spec.name] for part in parts]) for spec in specs},
        lengths={
            spec.name: np.concatenate([_lengths(part, spec) for part in parts])
            for spec in specs
            if any(spec.name in part.lengths for part in parts)
        },
        lost={
            spec.name: np.concatenate([_lost(part, spec) for part in parts])
            for spec in specs
            if any(spec.name in part.lost for part in parts)
        },
        unimodal={
            spec.name: np.concatenate([p.unimodal.get(spec.name, np.full(len(p), np.nan)) for p in parts])
            for spec in specs
            if any(spec.name in part.unimodal for part in parts)
        },
        recordings={
            spec.name: tuple(
                one for part in parts for one in part.recordings.get(spec.name, (None,) * len(part))
            )
            for spec in specs
            if any(spec.name in part.recordings for part in parts)
        },
        raw_text=tuple(texts) if any(part.raw_text is not None for part in parts) else None,
        labels=_labels(parts, source),
    )


def _specs(splits: Sequence[Split]) -> tuple[ModalitySpec, ...]:
    """Every modality of some split, as long as its longest."""
    found: dict[str, ModalitySpec] = {}
    for split in splits:
        for spec in split.modalities:
            known = found.get(spec.name)
            longer = known is not None and spec.kind == "sequence" and spec.shape > known.shape
            if known is None or longer:
                found[spec.name] = spec
    return tuple(found.values())


def _lengths(split: Split, spec: ModalitySpec) -> IntArray:
    if spec.name in split.lengths:
        return split.lengths[spec.name]
    return np.where(split.observed[spec.name], spec.shape[0], 0).astype(np.int64)


def _lost(split: Split, spec: ModalitySpec) -> BoolArray:
    return split.lost.get(spec.name, np.zeros((len(split), spec.shape[0]), np.bool_))


def _labels(splits: Sequence[Split], source: str) -> Labels | None:
    known = [split.labels for split in splits if split.labels is not None]
    if not known:
        return None
    if len({(labels.name, labels.kind, labels.class_names) for labels in known}) > 1:
        raise DataError(f"{source}: labels of one kind were expected in all splits: name one with --label")
    parts = [np.full(len(s), np.nan) if s.labels is None else s.labels.values for s in splits]
    return replace(known[0], values=np.concatenate(parts))
