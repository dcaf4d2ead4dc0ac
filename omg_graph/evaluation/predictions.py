"""``predictions.jsonl``: every prediction of an evaluation, a line for each sample, condition and method."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.types import AllowInfNan

from omg_graph.errors import DataError, first_fault
from omg_graph.evaluation.protocols import Rate
from omg_graph.evaluation.tables import SampleTable
from omg_graph.metrics.features import PooledRatio
from omg_graph.metrics.labels import MetricFamily, Numbers

FILE = "predictions.jsonl"

Finite = Annotated[float, AllowInfNan(False)]
Label = str | Finite | None


class ModalityLine(BaseModel):
    """What became of one hidden modality whose truth is known, on standardised features."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    squared_error: Finite
    squared_deviation: Finite
    energy_score: Finite | None = None
    covered: Finite | None = None
    """Features inside the 90 % interval."""
    features: Finite | None = None
    """Features that could be inside."""


class PredictionLine(BaseModel):
    """One line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    family: MetricFamily
    protocol: str
    condition: str
    rate: Rate
    mask_seed: int | None
    model_seed: int
    floor_seed: int | None = None
    id: str
    group: str
    observed: tuple[str, ...]
    truth: Label
    """A number, or a class by name; None where there is none."""
    value: Finite | None
    label: str | None
    """The class or degree predicted, by name."""
    probability: Finite | None
    """What the truth's class or degree was given."""
    confidence: Finite | None = None
    """The largest probability."""
    modalities: dict[str, ModalityLine]


def write_predictions(tables: Iterable[SampleTable], file: IO[str]) -> int:
    """Write tables, one after the other; how many lines that were."""
    count = 0
    for table in tables:
        for line in _lines(table):
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
            count += 1
    return count


def read_predictions(folder: Path) -> list[SampleTable]:
    """The tables of an evaluation's folder, or of its ``predictions.jsonl``.

    Raises:
        DataError: if it isn't there, or a line isn't one of ours.
    """
    path = folder / FILE if folder.is_dir() else folder
    if not path.is_file():
        raise DataError(f"{folder}: expected a folder that omg evaluate wrote, it has no {FILE}")
    grouped: dict[tuple[Any, ...], list[PredictionLine]] = {}
    with path.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                line = PredictionLine.model_validate_json(text)
            except ValidationError as error:
                fault = first_fault(error, "the line")
                raise DataError(
                    f"{path}: line {number}: expected a prediction of omg evaluate, {fault}: evaluate anew"
                ) from None
            key = (line.method, line.condition, line.mask_seed, line.model_seed, line.floor_seed)
            grouped.setdefault(key, []).append(line)
    if not grouped:
        raise DataError(f"{path}: expected predictions, the file is empty: evaluate anew")
    names = _all_names(line for lines in grouped.values() for line in lines)
    return [_table(lines, names, path) for lines in grouped.values()]


def _lines(table: SampleTable) -> Iterator[dict[str, Any]]:
    classes = table.family == "classes"
    for row, sample in enumerate(table.ids):
        truth = _number(table.truth[row])
        label = _number(table.label[row])
        yield {
            "method": table.method,
            "family": table.family,
            "protocol": table.protocol,
            "condition": table.condition,
            "rate": table.rate,
            "mask_seed": table.mask_seed,
            "model_seed": table.model_seed,
            "floor_seed": table.floor_seed,
            "id": sample,
            "group": table.groups[row],
            "observed": table.observed[row],
            "truth": table.names[int(truth)] if classes and truth is not None else truth,
            "value": _number(table.value[row]),
            "label": None if label is None else table.names[int(label)],
            "probability": _number(table.probability[row]),
            "confidence": _number(table.confidence[row]),
            "modalities": {
                name: _modality(table, name, row)
                for name, ratio in table.errors.items()
                if ratio.denominator[row] > 0 or ratio.numerator[row] > 0
            },
        }


def _modality(table: SampleTable, name: str, row: int) -> dict[str, float]:
    ratio = table.errors[name]
    line = {
        "squared_error": _rounded(ratio.numerator[row]),
        "squared_deviation": _rounded(ratio.denominator[row]),
    }
    if name in table.energy and not np.isnan(table.energy[name][row]):
        line["energy_score"] = _rounded(table.energy[name][row])
    if name in table.coverage and table.coverage[name].denominator[row] > 0:
        line["covered"] = float(table.coverage[name].numerator[row])
        line["features"] = float(table.coverage[name].denominator[row])
    return line


def _number(value: float) -> float | None:
    return None if np.isnan(value) else _rounded(value)


def _rounded(value: float) -> float:
    """Nine digits: all that single precision holds."""
    return float(f"{value:.9g}")


def _all_names(lines: Iterable[PredictionLine]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for line in lines:
        if line.label is not None:
            names[line.label] = None
        if isinstance(line.truth, str):
            names[line.truth] = None
    return tuple(sorted(names))


def _table(lines: Sequence[PredictionLine], names: tuple[str, ...], path: Path) -> SampleTable:
    first, count = lines[0], len(lines)
    ids = tuple(line.id for line in lines)
    if len(set(ids)) < count:
        raise DataError(f"{path}: expected a line for each sample, some come twice: evaluate anew")
    place = {name: float(index) for index, name in enumerate(names)}
    modalities = list(dict.fromkeys(name for line in lines for name in line.modalities))

    def of(name: str, field: str) -> Numbers:
        values = (getattr(line.modalities.get(name), field, None) for line in lines)
        return np.array([np.nan if value is None else value for value in values], np.float64)

    def ratio(name: str, above: str, below: str) -> PooledRatio:
        return PooledRatio(np.nan_to_num(of(name, above)), np.nan_to_num(of(name, below)))

    return SampleTable(
        method=first.method,
        family=first.family,
        protocol=first.protocol,
        condition=first.condition,
        rate=first.rate,
        mask_seed=first.mask_seed,
        model_seed=first.model_seed,
        ids=ids,
        groups=tuple(line.group for line in lines),
        observed=tuple(line.observed for line in lines),
        truth=np.array([_code(line.truth, place) for line in lines], np.float64),
        value=np.array([_code(line.value, place) for line in lines], np.float64),
        label=np.array([_code(line.label, place) for line in lines], np.float64),
        probability=np.array([_code(line.probability, place) for line in lines], np.float64),
        names=names,
        errors={name: ratio(name, "squared_error", "squared_deviation") for name in modalities},
        energy={name: of(name, "energy_score") for name in modalities},
        coverage={name: ratio(name, "covered", "features") for name in modalities},
        confidence=np.array([_code(line.confidence, place) for line in lines], np.float64),
        floor_seed=first.floor_seed,
    )


def _code(value: Label, place: dict[str, float]) -> float:
    if value is None:
        return np.nan
    return place[value] if isinstance(value, str) else value
