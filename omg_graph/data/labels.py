"""Which field is the target, and whether it means numbers or classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from omg_graph.data.arrays import is_nothing, per_sample, whole_text
from omg_graph.data.dataset import Labels
from omg_graph.data.fields import Layout, RawSplit
from omg_graph.errors import DataError

LabelValue = str | int | float | bool | None

_PREFERRED = ("regression_labels", "classification_labels", "labels", "label")

_UNIMODAL = {"T": "text", "A": "audio", "V": "vision"}
"""What follows the target's name in the fields of labels that annotators gave with one modality in sight:
CH-SIMS has ``regression_labels_T`` and so on."""

MAX_LABEL = float(np.finfo(np.float32).max)
"""Models reckon in single precision."""


def choose_label(
    splits: Mapping[str, Mapping[str, object]], requested: str | None
) -> tuple[str | None, str | None]:
    """The field that is the target of a file, and a note on how it was chosen.

    ``regression_labels`` where there are several fields with ``label`` in their names, unless ``requested``;
    without it ``classification_labels``, ``labels`` or ``label``, in this order.

    Raises:
        DataError: if the requested field isn't there, or nothing says which of several it should be.
    """
    present = [name for fields in splits.values() for name, value in fields.items() if value is not None]
    names = list(dict.fromkeys(name for name in present if "label" in name.lower()))
    if requested is not None:
        if requested not in present:
            raise DataError(
                f"expected the target {requested!r}, the file has {', '.join(names) or 'no labels'}: name "
                "the field with --label"
            )
        return requested, None
    if len(names) < 2:
        return (names[0], None) if names else (None, None)
    for name in _PREFERRED:
        if name in names:
            others = ", ".join(other for other in names if other != name)
            return name, f"the target is {name!r}; --label takes another ({others})"
    raise DataError(f"expected one target, the file has several: give --label with one of {', '.join(names)}")


def read_labels(layout: Layout, splits: Sequence[RawSplit], name: str) -> dict[str, Labels]:
    """The labels of each split that has the field.

    Raises:
        DataError: if there isn't one number or name for each sample, or a regression is asked of names.
    """
    values = {
        raw.name: _values(
            layout.splits[raw.name][name], raw.rows, single=layout.single, label=f"{raw.name}: {name}"
        )
        for raw in splits
        if layout.splits[raw.name].get(name) is not None
    }
    return _labels(name, values)


def read_unimodal(
    layout: Layout, splits: Sequence[RawSplit], target: Labels
) -> dict[str, dict[str, npt.NDArray[np.float64]]]:
    """Labels that were given with one modality in sight, split by split; none beside a target of classes.

    Raises:
        DataError: if there isn't one number for each sample.
    """
    found: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
    if target.kind != "regression":
        return found
    for raw in splits:
        fields = layout.splits[raw.name]
        for name, field in _unimodal_fields(fields, target.name, list(raw.columns)).items():
            values = _values(fields[field], raw.rows, single=layout.single, label=f"{raw.name}: {field}")
            found.setdefault(raw.name, {})[name] = _regression(field, values).values
    return found


def _unimodal_fields(fields: Mapping[str, object], target: str, modalities: Sequence[str]) -> dict[str, str]:
    """Modality to its field: ``<target>_T``, ``_A``, ``_V`` or, of any modality, ``<target>_<name>``."""
    found = {}
    for letter, name in [*_UNIMODAL.items(), *((name, name) for name in modalities)]:
        field = f"{target}_{letter}"
        if name in modalities and fields.get(field) is not None:
            found[name] = field
    return found


def _values(value: object, rows: int, *, single: bool, label: str) -> list[LabelValue]:
    """The labels of a split, one for each sample, None where there is none."""
    return [_label_value(item, label) for item in per_sample(value, rows, label, single=single)]


def _label_value(item: object, label: str) -> LabelValue:
    if isinstance(item, (str, bytes)):
        return whole_text(item)
    if is_nothing(item):
        return None
    if isinstance(item, float) and math.isinf(item):
        raise DataError(f"{label}: expected finite numbers, got {item}: make it None if it is missing")
    if isinstance(item, (int, float)):
        return item
    raise DataError(
        f"{label}: expected a number or a name, got {type(item).__name__}: give one for each sample"
    )


def _labels(name: str, splits: Mapping[str, Sequence[LabelValue]]) -> dict[str, Labels]:
    """Labels of all splits of a file, which share their class names.

    Names and whole numbers are classes, other numbers a regression; a field with ``regression`` in its name
    is a regression, and one with ``class`` in it has classes, whatever it holds.
    """
    known = [value for values in splits.values() for value in values if value is not None]
    numeric = "regression" in name.lower()
    classes = "class" in name.lower() or all(isinstance(value, (str, int)) for value in known)
    if numeric or not classes or not known:
        return {split: _regression(name, values) for split, values in splits.items()}
    names = {_class_name(value) for value in known}
    ordered = tuple(sorted(names, key=int) if all(_is_whole(text) for text in names) else sorted(names))
    index = {text: float(position) for position, text in enumerate(ordered)}
    return {
        split: Labels(
            name,
            "classes",
            np.array([math.nan if v is None else index[_class_name(v)] for v in values], np.float64),
            ordered,
        )
        for split, values in splits.items()
    }


def _regression(name: str, values: Sequence[LabelValue]) -> Labels:
    """Numbers as labels, NaN where there is none."""
    numbers: list[float] = []
    for value in values:
        if isinstance(value, str):
            raise DataError(f"{name}: expected numbers, got {value[:40]!r}: choose another field by --label")
        number = math.nan if value is None else float(value)
        if abs(number) > MAX_LABEL:
            raise DataError(f"{name}: expected numbers up to {MAX_LABEL:.1e}, got {number:g}: rescale them")
        numbers.append(number)
    return Labels(name, "regression", np.array(numbers, np.float64))


def _class_name(value: LabelValue) -> str:
    """The name the data gives a class; a whole number is its decimal text."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and str(int(text)) == text
