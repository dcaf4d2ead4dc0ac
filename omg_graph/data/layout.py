"""Where the samples lie in what a file holds: splits by name, rows of one split, or one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from omg_graph.data.arrays import whole_text
from omg_graph.data.columns import axes_of, is_reserved
from omg_graph.data.dataset import ModalitySpec
from omg_graph.errors import DataError

DEFAULT_SPLIT = "data"
"""The name of the only split of a file that names none."""

Fields = dict[str, object]


@dataclass(frozen=True)
class Layout:
    """The fields of each split."""

    splits: dict[str, Fields]
    single: bool
    """Whether the file holds one sample, whose fields have no axis of samples."""
    flat: bool
    """Whether the file names no splits."""


def find_layout(content: object, specs: Sequence[ModalitySpec] = ()) -> Layout:
    """Tell splits, rows and a single sample apart.

    A mapping of mappings has splits. An id or a transcript that is one value, not a list, makes a single
    sample; without either, the model's shapes decide where they are given, else a modality with one axis.

    Args:
        content: of a file: a mapping, or a list of samples that are mappings.
        specs: modalities of the model that will read it.

    Raises:
        DataError: if the content is neither.
    """
    if isinstance(content, (list, tuple)) and content and all(isinstance(item, dict) for item in content):
        return Layout({DEFAULT_SPLIT: _columns([_named(item) for item in content])}, single=False, flat=True)
    if not isinstance(content, Mapping) or not content:
        raise DataError(
            "a mapping of splits, or of the fields of samples (id, raw_text, modalities), was expected, "
            f"{'an empty one' if isinstance(content, Mapping) else type(content).__name__} came"
        )
    fields = _named(content)
    inner = {
        name: value for name, value in fields.items() if isinstance(value, Mapping) and name != "observed"
    }
    beside = [name for name, value in fields.items() if name not in inner and value is not None]
    if inner and not any(name in ("id", "raw_text", "observed") or axes_of(fields[name]) for name in beside):
        return Layout({name: _named(value) for name, value in inner.items()}, single=False, flat=False)
    return Layout({DEFAULT_SPLIT: fields}, single=_is_single(fields, specs), flat=True)


def nested(arrays: Mapping[str, object]) -> Fields:
    """The fields of an ``.npz`` file, whose names are paths like ``text`` or ``train/observed/text``."""
    result: Fields = {}
    for path, value in arrays.items():
        *folders, name = path.split("/")
        place = result
        for folder in folders:
            inner = place.setdefault(folder, {})
            if not isinstance(inner, dict):
                raise DataError(f"{folder!r} is both a field and a split of the file")
            place = cast("Fields", inner)
        if name in place:
            raise DataError(f"{name!r} is both a field and a split of the file")
        place[name] = value
    return result


def _named(mapping: Mapping[object, object]) -> Fields:
    fields: Fields = {}
    for key, value in mapping.items():
        if not isinstance(key, (str, bytes)):
            raise DataError(f"names of splits or fields were expected, the key {key!r:.40} came")
        fields[whole_text(key)] = value
    return fields


def _columns(samples: list[Fields]) -> Fields:
    """Samples that came one by one, as the columns of a split."""
    names = dict.fromkeys(name for sample in samples for name in sample)
    columns: Fields = {name: [sample.get(name) for sample in samples] for name in names if name != "observed"}
    if "observed" in names:
        flags = [{} if sample.get("observed") is None else sample["observed"] for sample in samples]
        if not all(isinstance(item, Mapping) for item in flags):
            raise DataError("observed: a mapping from modality to true or false was expected")
        said = cast("list[Mapping[str, object]]", flags)
        known = dict.fromkeys(name for item in said for name in item)
        columns["observed"] = {name: [item.get(name, True) for item in said] for name in known}
    return columns


def is_scalar(value: object) -> bool:
    """Whether a value is one text or number, and not a list of them."""
    if isinstance(value, np.ndarray):
        return value.ndim == 0
    return isinstance(value, (str, bytes, int, float, np.generic))


def _is_single(fields: Fields, specs: Sequence[ModalitySpec]) -> bool:
    for name in ("id", "raw_text"):
        if fields.get(name) is not None:
            return is_scalar(fields[name])
    for spec in specs:
        shape = _shape(fields.get(spec.name))
        if shape is None:
            continue
        if _squeezed(shape) == _squeezed(spec.shape):
            return True
        if _squeezed(shape[1:]) == _squeezed(spec.shape):
            return False
    labels = [value for name, value in fields.items() if "label" in name.lower() and value is not None]
    if labels:
        return is_scalar(labels[0])
    return any(axes_of(value) == 1 for name, value in fields.items() if not is_reserved(name, fields))


def _shape(value: object) -> tuple[int, ...] | None:
    axes = axes_of(value)
    if axes is None or axes == 0:
        return None
    if isinstance(value, np.ndarray):
        return tuple(value.shape)
    items = cast("Sequence[object]", value)
    inner = next((item for item in items if item is not None), None)
    return (len(items), *(_shape(inner) or ()))


def _squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
