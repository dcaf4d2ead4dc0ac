"""What has been measured so far: figures of every variant, and its paired differences from the method."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from omg_graph.bench.ablation.gradients import read_gradients
from omg_graph.bench.ablation.runs import (
    PROTOCOLS,
    AblationRequest,
    evaluation_folder,
    gradient_files,
    is_measured,
    seeds_of,
)
from omg_graph.bench.ablation.variants import DEFAULT, VARIANTS, Swap, Variant
from omg_graph.evaluation.evaluate import METRICS
from omg_graph.evaluation.intervals import (
    AVERAGE,
    Difference,
    Interval,
    Resamples,
    Results,
    average,
    check_pairing,
    interval,
    methods_of,
    paired,
    resamples_of,
)
from omg_graph.evaluation.predictions import read_predictions
from omg_graph.evaluation.runner import METHOD
from omg_graph.evaluation.tables import SampleTable, conditions_in_order, metrics_of
from omg_graph.model.folder import machine, versions

Entry = Variant | Swap
Groups = dict[str, tuple[str, ...]]
"""Name to the conditions that are averaged together."""


@dataclass(frozen=True)
class Figures:
    """One method under one protocol."""

    values: dict[tuple[str, str], Interval]
    """(metric, condition, ``average`` or group of conditions) to figure."""
    differences: list[Difference]
    """From the method itself, on the seeds that both have; empty for the method."""

    def averaged(self, metric: str) -> Interval | None:
        """The mean over conditions; None where undefined."""
        return self.values.get((metric, AVERAGE))

    def change(self, metric: str) -> Difference | None:
        """The averaged difference from the method."""
        wanted = (metric, AVERAGE)
        return next((row for row in self.differences if (row.metric, row.condition) == wanted), None)


@dataclass(frozen=True)
class Measured:
    """A variant, swap or floor, as far as it has been run."""

    name: str
    seeds: tuple[int, ...]
    """Those that are finished, in every fold."""
    figures: dict[str, Figures]
    """By protocol."""
    same_as: str | None = None
    """The variant of the same settings that stands for it."""


@dataclass
class AblationResults:
    """Everything that is on disk."""

    request: AblationRequest
    entries: dict[str, Entry]
    measured: dict[str, Measured]
    floors: dict[str, Measured]
    gradients: dict[str, list[dict[str, Any]]]
    """Variant to records by seed and epoch."""
    notes: dict[str, str] = field(default_factory=dict)
    """Protocol to what its intervals rest on."""
    metrics: tuple[str, ...] = ()
    family: str = "none"
    reranked: float | None = None
    """How often re-ranking made another plan win than the most probable one, at the random rate."""

    @property
    def wanted(self) -> int:
        """Seeds that were asked for."""
        return self.request.seeds

    def as_json(self) -> dict[str, Any]:
        """``ablation.json``."""
        return {
            "identity": self.request.identity(),
            "seeds_wanted": self.wanted,
            "metrics": list(self.metrics),
            "variants": [self._entry(name) for name, e in self.entries.items() if isinstance(e, Variant)],
            "swaps": [self._entry(name) for name, e in self.entries.items() if isinstance(e, Swap)],
            "floors": [_measured(found) for found in self.floors.values()],
            "gradients": self.gradients,
            "intervals": self.notes,
            "reranked_share": self.reranked,
            "versions": versions(),
            "machine": machine(),
        }

    def _entry(self, name: str) -> dict[str, Any]:
        entry, found = self.entries[name], self.measured.get(name)
        row: dict[str, Any] = {"name": name, "shows": entry.shows}
        if isinstance(entry, Swap):
            row["changes"] = {"planning": dict(entry.planning), "retrieval": dict(entry.retrieval)}
        else:
            printed = entry.printed
            row["changes"] = entry.changes(self.request.base())
            row["paper"] = None if printed is None else {"table": printed.table, "method": printed.method}
        return row | ({"seeds": [], "same_as": None, "protocols": {}} if found is None else _measured(found))


def owners(request: AblationRequest) -> dict[str, str]:
    """Variant to the first of the same settings, which is the one that is run."""
    first: dict[str, str] = {}
    return {variant.name: first.setdefault(request.digest_of(variant), variant.name) for variant in VARIANTS}


@dataclass
class Kept:
    """What ``collect`` has worked out already: more finished runs change no figure of those before."""

    default: dict[str, tuple[tuple[int, ...], list[SampleTable]]] = field(default_factory=dict)
    """Protocol to the method's seeds and tables, floors included."""
    figures: dict[tuple[str, str, tuple[int, ...], tuple[int, ...]], Figures] = field(default_factory=dict)
    """By protocol, variant or floor, its seeds and those of the method."""


def collect(
    request: AblationRequest,
    variants: Sequence[Variant],
    swaps: Sequence[Swap],
    kept: Kept | None = None,
) -> AblationResults:
    """Read what there is and compare every variant with the method, by one set of resamples a protocol.

    Args:
        request: What was ablated on, and where its results are.
        variants: What to show.
        swaps: Swaps to show.
        kept: Of earlier calls with the same request, and for later ones.
    """
    kept = Kept() if kept is None else kept
    owner = owners(request)
    entries: dict[str, Entry] = {variant.name: variant for variant in variants}
    entries |= {swap.name: swap for swap in swaps}
    seeds = {name: found for name in entries if (found := _finished(request, owner.get(name, name)))}
    results = AblationResults(request, entries, {}, {}, _gradients(request, variants))
    figures: dict[str, dict[str, Figures]] = {name: {} for name in seeds}
    floors: dict[str, dict[str, Figures]] = {}
    for protocol in PROTOCOLS if DEFAULT in seeds else ():
        of_default = tuple(seeds[DEFAULT])
        if kept.default.get(protocol, ((), []))[0] != of_default:
            kept.default[protocol] = (of_default, _tables(request, DEFAULT, of_default, protocol))
        methods = methods_of(kept.default[protocol][1])
        default = methods[METHOD]
        resamples = resamples_of([Results(DEFAULT, default)])  # of the same samples as every variant's
        results.notes[protocol] = resamples.note
        groups = _groups(request.groups, default)
        results.metrics = tuple(
            dict.fromkeys([*results.metrics, *(metric.name for metric in metrics_of(default))])
        )
        results.family = default[0].family
        for name, of_name in seeds.items():
            key = (protocol, name, tuple(of_name), of_default)
            if key not in kept.figures:
                rows = default
                if name != DEFAULT:
                    tables = _tables(request, owner.get(name, name), of_name, protocol)
                    rows = methods_of(tables)[METHOD]
                kept.figures[key] = _figures(name, rows, default, resamples, groups)
            figures[name][protocol] = kept.figures[key]
        for method, rows in methods.items():
            key = (protocol, f"floor {method}", of_default, of_default)
            if method == METHOD:
                continue
            if key not in kept.figures:
                kept.figures[key] = _figures(method, rows, default, resamples, groups)
            floors.setdefault(method, {})[protocol] = kept.figures[key]
    results.reranked = _reranked(request, seeds.get(DEFAULT, ()))
    results.measured = {
        name: Measured(name, tuple(seeds[name]), figures[name], _alias(owner, name)) for name in seeds
    }
    results.floors = {name: Measured(name, tuple(seeds[DEFAULT]), found) for name, found in floors.items()}
    return results


def _alias(owner: dict[str, str], name: str) -> str | None:
    return None if owner.get(name, name) == name else owner[name]


def _finished(request: AblationRequest, name: str) -> list[int]:
    """Seeds that have been measured."""
    return [seed for seed in seeds_of(request) if is_measured(request.output, name, seed)]


def _tables(request: AblationRequest, name: str, seeds: Sequence[int], protocol: str) -> list[SampleTable]:
    folders = [evaluation_folder(request.output, name, seed, protocol) for seed in seeds]
    return [table for folder in folders for table in read_predictions(folder)]


def _reranked(request: AblationRequest, seeds: Sequence[int]) -> float | None:
    folders = [evaluation_folder(request.output, DEFAULT, seed, "random") for seed in seeds]
    rows = [row for folder in folders for row in json.loads((folder / METRICS).read_text("utf-8"))["rows"]]
    shares = [row["reranked_share"] for row in rows if row["reranked_share"] is not None]
    return float(np.mean(shares)) if shares else None


def _figures(
    name: str, tables: list[SampleTable], default: list[SampleTable], resamples: Resamples, groups: Groups
) -> Figures:
    values: dict[tuple[str, str], Interval] = {}
    differences: list[Difference] = []
    seeds = {table.model_seed for table in tables}
    against = [table for table in default if table.model_seed in seeds]
    seeds = {table.model_seed for table in against}
    compared = [table for table in tables if table.model_seed in seeds]
    check_pairing(Results(name, compared), Results(DEFAULT, against))
    for metric in metrics_of(tables):
        found = resamples.by_condition(metric, tables)
        defined = {place: numbers for place, numbers in found.items() if not np.isnan(numbers[0])}
        if defined:
            averaged = {AVERAGE: tuple(defined)} | groups
            means = {
                place: average([defined[member] for member in members])
                for place, members in averaged.items()
                if all(member in defined for member in members)
            }
            values |= {(metric.name, place): interval(n) for place, n in (means | defined).items()}
        if tables is not default and compared:
            ours, theirs = (resamples.by_condition(metric, of) for of in (compared, against))
            differences += paired(metric, ours, theirs)
            for group, members in groups.items():
                parts = ({member: of[member] for member in members} for of in (ours, theirs))
                rows = paired(metric, *parts)  # the mean, then each condition
                if len(rows) == 1 + len(members):
                    differences.append(replace(rows[0], condition=group))
    return Figures(values, differences)


def _groups(groups: Mapping[str, Sequence[Sequence[str]]], tables: Sequence[SampleTable]) -> Groups:
    """Name to conditions, of those groups that are there as a whole."""
    named = {frozenset(name.split("+")): name for name in conditions_in_order(tables)}
    return {
        group: tuple(named[frozenset(pattern)] for pattern in patterns)
        for group, patterns in groups.items()
        if all(frozenset(pattern) in named for pattern in patterns)
    }


def _gradients(request: AblationRequest, variants: Sequence[Variant]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for variant in variants:
        for seed in seeds_of(request) if variant.probed else ():
            for fold, file in enumerate(gradient_files(request, variant.name, seed)):
                about = {"seed": seed, "fold": None if request.folds is None else fold}
                if file.is_file():
                    records = [about | record for record in read_gradients(file)]
                    found.setdefault(variant.name, []).extend(records)
    return found


def conflicts(records: Sequence[dict[str, Any]], loss: str) -> tuple[Interval, float] | None:
    """Mean cosine of a semantic loss with the noise loss, and the share of batches in which it is negative.

    Args:
        records: of one variant, over epochs, seeds, folds and batches.
        loss: one of ``SEMANTIC``.

    Returns:
        The mean with the means of the lowest and the highest training (NaN of a single one); None where there
        never was a gradient of both.
    """
    by_training: dict[tuple[Any, Any], list[float]] = {}
    for record in records:
        by_training.setdefault((record["seed"], record["fold"]), []).extend(record[loss])
    trainings = [float(np.mean(found)) for found in by_training.values() if found]
    if not trainings:
        return None
    cosines = np.array([cosine for found in by_training.values() for cosine in found])
    low, high = (min(trainings), max(trainings)) if len(trainings) > 1 else (float("nan"), float("nan"))
    return Interval(float(cosines.mean()), low, high), float((cosines < 0).mean())


def course(records: Sequence[dict[str, Any]], loss: str) -> list[tuple[int, float]]:
    """(epoch, mean cosine over seeds and batches), by epoch."""
    epochs: dict[int, list[float]] = {}
    for record in records:
        epochs.setdefault(record["epoch"], []).extend(record[loss])
    return [(epoch, float(np.mean(epochs[epoch]))) for epoch in sorted(epochs) if epochs[epoch]]


def _measured(found: Measured) -> dict[str, Any]:
    return {
        "name": found.name,
        "seeds": list(found.seeds),
        "same_as": found.same_as,
        "protocols": {
            protocol: {
                "figures": [
                    {"metric": metric, "condition": condition, **figure.as_json()}
                    for (metric, condition), figure in figures.values.items()
                ],
                "differences": [difference.as_json() for difference in figures.differences],
            }
            for protocol, figures in found.figures.items()
        },
    }
