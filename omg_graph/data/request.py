"""What somebody asks to have reconstructed: a file, samples written out, or a split, as the model sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from omg_graph.data.columns import FillNonfinite
from omg_graph.data.dataset import BoolArray, FloatArray, ModalitySpec, Split
from omg_graph.data.reader import DataFile, read_data_file, read_mapping
from omg_graph.data.splits import choose_split, conform, hide_modalities
from omg_graph.errors import DataError
from omg_graph.files import DataFolder

Samples = Mapping[str, object] | Sequence[Mapping[str, object]]
"""Splits, rows or one sample as mappings; lists may stand for arrays."""


@dataclass(frozen=True)
class Request:
    """Samples in a model's shapes, without labels."""

    observed: Split
    truth: Split
    """The same rows before anything was hidden."""
    hidden: BoolArray
    """(samples, modalities): what was hidden and is really there."""
    notes: tuple[str, ...]
    single: bool
    """Whether the source is one sample, and not rows of them."""
    sha256: str
    """Of the data; empty for a split in memory."""


def read_request(
    source: str | Path | Split | Samples,
    specs: Sequence[ModalitySpec],
    *,
    split: str | None = None,
    missing: Sequence[str] = (),
    limit: int | None = None,
    fill_nonfinite: FillNonfinite | None = None,
    feature_means: Mapping[str, FloatArray] | None = None,
    folder: DataFolder | None = None,
) -> Request:
    """Read samples, make them fit a model, and hide some modalities.

    Args:
        source: a path, samples as mappings, or a split in memory.
        specs: the model's modalities.
        split: which split of a file: the only one, else ``test``, else ``valid`` when None.
        missing: modalities to hide although they are there.
        limit: only the first so many samples.
        fill_nonfinite: what takes the place of single non-finite numbers, which are refused otherwise: 0,
            or the feature's mean over the rows that the model was trained on.
        feature_means: modality to those means, (features,).
        folder: the only folder that paths may lie in; anywhere if None.

    Raises:
        DataError: if the data can't be used, or nothing is observed in any sample.
    """
    notes: tuple[str, ...] = ()
    if isinstance(source, Split):
        name, single, sha256, rows = source.name, False, "", source
    else:
        name = str(source) if isinstance(source, (str, Path)) else "samples"
        with nullcontext() if folder is None else folder.unnamed():
            data = _read(source, specs, fill_nonfinite, feature_means, folder)
            rows, note = choose_split(data, split)
        single, sha256, notes = data.single, data.sha256, (*data.notes, note)
    if limit is not None:
        rows = rows.take(np.arange(min(limit, len(rows))))
    truth, changes = conform(rows.without_labels(), specs, name, empty_rows="keep")
    observed, hidden = hide_modalities(truth, missing)
    notes = (*notes, *changes)
    empty = ~observed.mask().any(axis=1)
    if empty.all():
        first = f"sample {observed.ids[0]!r}" if len(observed) == 1 else f"all {len(observed)} samples"
        raise DataError(
            f"{name}: expected something observed, in {first} nothing is: give at least one of "
            f"{', '.join(spec.name for spec in specs)}, or hide less with --missing"
        )
    if empty.any():
        notes = (*notes, f"{int(empty.sum())} samples with nothing observed: known from the prior alone")
    return Request(observed, truth, hidden, notes, single, sha256)


def _read(
    source: str | Path | Samples,
    specs: Sequence[ModalitySpec],
    fill: FillNonfinite | None,
    means: Mapping[str, FloatArray] | None,
    folder: DataFolder | None,
) -> DataFile:
    if not isinstance(source, (str, Path)):
        return read_mapping(
            source,
            source="samples",
            with_labels=False,
            specs=specs,
            fill_nonfinite=fill,
            feature_means=means,
            folder=None if folder is None else folder.folder,
        )
    path = Path(source) if folder is None else folder.find(str(source), "path")
    return read_data_file(path, with_labels=False, specs=specs, fill_nonfinite=fill, feature_means=means)
