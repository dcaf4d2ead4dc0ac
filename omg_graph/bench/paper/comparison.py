"""A model's figures beside the paper's, under the same conditions, and what stands between the two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from omg_graph.bench.paper.tables import (
    METRICS,
    OURS,
    CellKey,
    Dataset,
    Metric,
    PaperTable,
    TableName,
    dataset_named,
    paper_tables,
)
from omg_graph.cli.output import cell, stdout_console
from omg_graph.data.dataset import ModalitySpec, Split
from omg_graph.errors import ConfigError
from omg_graph.evaluation.intervals import Summary
from omg_graph.evaluation.protocols import Condition
from omg_graph.evaluation.report import TITLES, plain, table_head, table_line

LETTERS = {"text": "L", "vision": "V", "audio": "A"}
"""Modality to the paper's letter, in the order of its column heads."""
NAMES: dict[Dataset, str] = {"mosi": "CMU-MOSI", "mosei": "CMU-MOSEI"}
FAMILY = "mosi"
"""The family of metrics that the paper's three belong to."""
MUCH_BETTER = 5.0
"""Points of ACC2: a single modality this far above all the paper's methods isn't the paper's features."""

_TABLE_OF: dict[str, TableName] = {"fixed": "fixed", "random": "random"}


@dataclass(frozen=True)
class Column:
    """A condition measured here that the paper has too."""

    condition: str
    """Its name here."""
    paper: str
    """Its name in the paper's table."""


@dataclass(frozen=True)
class Subject:
    """What was measured here, as far as a comparison with the paper depends on it."""

    modalities: tuple[ModalitySpec, ...]
    split: str
    samples: int
    missing_by_nature: float
    """Share of the slots."""
    models: int
    """Trained with different seeds."""


@dataclass(frozen=True)
class Comparison:
    """Methods measured here and the paper's, condition by condition, in percent."""

    dataset: Dataset
    table: TableName
    columns: tuple[Column, ...]
    methods: tuple[str, ...]
    """Those measured here, the model first."""
    figures: dict[tuple[str, Metric, str], float]
    """(method, metric, condition's name here) to percent; absent where undefined."""
    widths: dict[str, int]
    """Modality to features of one frame, of the model."""
    warnings: tuple[str, ...] = ()
    """Why absolute figures may not be comparable."""

    @property
    def printed(self) -> PaperTable:
        """The paper's table."""
        return paper_tables().tables[self.table]

    @property
    def title(self) -> str:
        """Which table of the paper, on which data set."""
        return f"{self.printed.title}, {NAMES[self.dataset]}"

    @property
    def paper_methods(self) -> tuple[str, ...]:
        """The paper's own first, the others in the printed order."""
        others = (method for method in self.printed.methods(self.dataset) if method != OURS)
        return (OURS, *others)

    def here(self, method: str, metric: Metric, column: Column) -> float | None:
        """A figure measured here; None where undefined."""
        return self.figures.get((method, metric, column.condition))

    def there(self, method: str, metric: Metric, column: Column) -> float:
        """A printed figure."""
        return self.printed.row(self.dataset, method, column.paper).figure(metric)

    def best_of_the_others(self, metric: Metric, column: Column) -> tuple[str, float]:
        """The highest printed figure but the paper's own, and whose it is (the first's, on a tie)."""
        return max(
            ((method, self.there(method, metric, column)) for method in self.paper_methods[1:]),
            key=lambda pair: pair[1],
        )

    def is_doubtful(self, method: str, metric: Metric, column: Column) -> bool:
        """Whether a note speaks of that cell."""
        return self._key(method, metric, column) in paper_tables().doubtful

    def notes(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Notes about cells shown here, each with its (method, paper's condition) pairs."""
        tables, found = paper_tables(), {}
        shown = {
            self._key(method, metric, column): (method, column.paper)
            for method in self.paper_methods
            for column in self.columns
            for metric in METRICS
        }
        for note in tables.notes:
            cells = tables.cells_of(note)
            places = tuple(dict.fromkeys(place for key, place in shown.items() if key in cells))
            if places:
                found[note.text] = places
        return found

    def as_json(self) -> dict[str, Any]:
        """For ``metrics.json``, under ``paper``."""
        return {
            "dataset": self.dataset,
            "table": self.printed.title,
            "about": self.printed.about,
            "unit": "percent",
            "widths": {"here": self.widths, "paper": paper_tables().widths},
            "warnings": list(self.warnings),
            "conditions": [
                {
                    "condition": column.condition,
                    "paper_condition": column.paper,
                    "here": self._of_methods_here(column),
                    "paper": {
                        method: {metric: self.there(method, metric, column) for metric in METRICS}
                        for method in self.paper_methods
                    },
                    "best_of_the_others": {
                        metric: dict(
                            zip(("method", "value"), self.best_of_the_others(metric, column), strict=True)
                        )
                        for metric in METRICS
                    },
                }
                for column in self.columns
            ],
            "notes": [
                {"text": text, "cells": [list(place) for place in places]}
                for text, places in self.notes().items()
            ],
        }

    def markdown(self) -> str:
        """A section of the page of results."""
        return section(self)

    def show(self) -> None:
        """Print the model, its floors, the paper's own method and the best of the paper's others."""
        show(self)

    def _of_methods_here(self, column: Column) -> dict[str, dict[str, float | None]]:
        return {
            method: {metric: self.here(method, metric, column) for metric in METRICS}
            for method in self.methods
        }

    def _key(self, method: str, metric: Metric, column: Column) -> CellKey:
        return (self.table, self.dataset, method, column.paper, metric)


class PaperFigures:
    """The paper's figures of one data set, beside those of an evaluation: ``omg evaluate --beside-paper``.

    Raises:
        ConfigError: if the paper has no data set of that name.
    """

    def __init__(self, dataset: str) -> None:
        self.dataset = dataset_named(dataset)

    def check(self, protocol: str, conditions: Sequence[Condition], split: Split) -> None:
        """Keep the conditions that the paper has too.

        Raises:
            ConfigError: if it has none of them, or other modalities.
        """
        self.protocol, self.columns = protocol, columns_for(self.dataset, protocol, conditions, split)

    def check_family(self, family: str) -> None:
        """Refuse figures that are not ACC2, F1 and ACC7 of a sentiment in [-3, 3].

        Raises:
            ConfigError: if the family of metrics is another.
        """
        if family != FAMILY:
            raise ConfigError(
                f"--beside-paper {self.dataset}: expected metrics of the family {FAMILY}, this model is "
                f"measured by {family}: leave the option out"
            )

    def compare(self, summary: Summary, split: Split, models: int) -> Comparison:
        """What was measured, floors included, beside the paper's table."""
        subject = Subject(
            modalities=split.modalities,
            split=split.name,
            samples=len(split),
            missing_by_nature=float((~split.mask()).mean()),
            models=models,
        )
        return beside_paper(self.dataset, self.protocol, self.columns, summary, subject)


def columns_for(
    dataset: Dataset, protocol: str, conditions: Sequence[Condition], split: Split
) -> tuple[Column, ...]:
    """The conditions that the paper's table of that protocol has too.

    Args:
        dataset: the paper's.
        protocol: ``fixed`` or ``random``.
        conditions: what is measured.
        split: the samples, in the model's modalities.

    Raises:
        ConfigError: if the paper has nothing to put beside it.
    """
    option = f"--beside-paper {dataset}"
    if protocol not in _TABLE_OF:
        raise ConfigError(f"{option}: expected --protocol fixed or random, got {protocol}: take one")
    if set(split.names) != set(LETTERS):
        raise ConfigError(
            f"{option}: expected a model of the modalities {', '.join(LETTERS)}, got one of "
            f"{', '.join(split.names)}: leave the option out"
        )
    lacking = [name for name in LETTERS if not split.observed[name].any()]
    if lacking:
        raise ConfigError(
            f"{option}: expected data with {', '.join(LETTERS)}, nobody has {lacking[0]}: "
            "leave the option out"
        )
    printed = paper_tables().tables[_TABLE_OF[protocol]].conditions(dataset)
    named = {condition.name: _name_in_paper(condition, split.names) for condition in conditions}
    columns = [Column(name, paper) for name, paper in named.items() if paper in printed]
    if not columns:
        raise ConfigError(
            f"{option}: expected one of the paper's missing rates ({', '.join(printed)}), got none: "
            "add one to --missing-rate"
        )
    return tuple(sorted(columns, key=lambda column: printed.index(column.paper)))


def beside_paper(
    dataset: Dataset, protocol: str, columns: tuple[Column, ...], summary: Summary, subject: Subject
) -> Comparison:
    """Put what was measured beside the paper's table.

    Args:
        dataset: the paper's.
        protocol: ``fixed`` or ``random``.
        columns: of :func:`columns_for`.
        summary: what was measured; floors come along.
        subject: on what.
    """
    figures = {
        (method, metric, column.condition): 100 * figure.value
        for method in summary.methods
        for metric in METRICS
        for column in columns
        if (figure := summary.figures.get((method, metric, column.condition))) is not None
    }
    widths = {spec.name: spec.shape[-1] for spec in subject.modalities}
    comparison = Comparison(dataset, _TABLE_OF[protocol], columns, summary.methods, figures, widths)
    warnings = [*_of_features(widths), *_of_samples(dataset, subject), *_of_training(protocol, subject)]
    return replace(comparison, warnings=(*warnings, *_too_good(comparison)))


def _name_in_paper(condition: Condition, names: Sequence[str]) -> str | None:
    """``LV`` for a pattern, ``0.7`` for a rate."""
    if condition.pattern is not None:
        shown = {name for name, visible in zip(names, condition.pattern, strict=True) if visible}
        return "".join(letter for name, letter in LETTERS.items() if name in shown)
    return f"{condition.rate:.1f}" if _is_tenth(condition.rate) else None


def _is_tenth(rate: object) -> bool:
    return isinstance(rate, float) and abs(rate - round(rate, 1)) < 1e-9


def _of_features(here: dict[str, int]) -> list[str]:
    tables = paper_tables()
    same = here == tables.widths
    return [
        f"absolute figures can be compared only for the same features: the paper's are "
        f"{_widths(tables.widths)} wide ({tables.features}), this model's {_widths(here)}: "
        + ("the same widths, which doesn't make them the same features" if same else "not the same"),
        "features that were made with the help of the labels (by a network trained on them, say) lift all "
        "figures in which they are observed: nothing here can tell, so compare methods on this data instead",
    ]


def _of_samples(dataset: Dataset, subject: Subject) -> list[str]:
    wanted, found = paper_tables().test_samples[dataset], []
    if subject.split != "test" or subject.samples != wanted:
        found.append(
            f"other samples: the paper's figures are of the {wanted} of {NAMES[dataset]}'s official test "
            f"split, these of {subject.samples} of '{subject.split}'"
        )
    if subject.missing_by_nature > 0:
        found.append(
            f"{100 * subject.missing_by_nature:.1f} % of all slots are missing by nature, which the paper's "
            "data know nothing of"
        )
    return found


def _of_training(protocol: str, subject: Subject) -> list[str]:
    runs = paper_tables().runs
    models = "one trained model" if subject.models == 1 else f"{subject.models} trained models"
    found = [f"the paper's are means of {runs} trained models, these of {models}"]
    if protocol == "random":
        found.append("the paper trained a model for each missing rate, here the same serves all")
    found.append("the paper doesn't say whether its ACC2 and F1 leave out labels of 0: these do")
    return found


def _too_good(comparison: Comparison) -> list[str]:
    """Single modalities that do far better here than for anyone in the paper."""
    found = []
    for column in comparison.columns:
        values = [comparison.here(method, "acc2", column) for method in comparison.methods]
        known = [value for value in values if value is not None]
        best = max(comparison.there(method, "acc2", column) for method in comparison.paper_methods)
        if comparison.table == "fixed" and len(column.paper) == 1 and known:
            gap = max(known) - best
            if gap > MUCH_BETTER:
                found.append(
                    f"{column.condition} alone reaches {max(known):.1f} ACC2 here, {gap:.1f} above all "
                    "of the paper's methods: other features, or ones that know the labels"
                )
    return found


def _widths(widths: dict[str, int]) -> str:
    return ", ".join(f"{name} {widths[name]}" for name in LETTERS)


DOUBTFUL = "†"


def section(comparison: Comparison) -> str:
    """All methods measured here and all of the paper's, a table for each metric, then notes on cells."""
    lines = [f"## Beside the paper: {comparison.title}", ""]
    lines += [f"- {plain(warning)}" for warning in comparison.warnings]
    letters = ", ".join(f"{letter} {name}" for name, letter in LETTERS.items())
    columns = "missing rates" if comparison.table == "random" else f"observed ({letters})"
    lines += [
        f"- {comparison.printed.about}; in percent, as printed; columns: {columns}; {DOUBTFUL}: a note below",
        "",
    ]
    for metric in METRICS:
        lines += [f"### {TITLES[metric]} beside the paper", "", *_table(comparison, metric), ""]
    if notes := comparison.notes():
        lines += ["### Cells to be careful with", ""]
        lines += [f"- {plain(text.removesuffix('.'))} ({_places(places)})" for text, places in notes.items()]
        lines.append("")
    return "\n".join(lines)


def show(comparison: Comparison) -> None:
    """Print the model, its floors, the paper's own method and the best of the paper's others."""
    from rich.table import Table

    console, columns = stdout_console(), comparison.columns
    what = "missing rate" if comparison.table == "random" else "observed: L text, V vision, A audio"
    table = Table(title=f"beside the paper's {comparison.title}, in percent ({what})")
    table.add_column("")
    table.add_column("method")
    for column in columns:
        table.add_column(column.paper, justify="right")
    for metric in METRICS:
        rows = {
            method: [comparison.here(method, metric, column) for column in columns]
            for method in comparison.methods
        }
        ours: list[float | None] = [comparison.there(OURS, metric, column) for column in columns]
        others: list[float | None] = [comparison.best_of_the_others(metric, column)[1] for column in columns]
        rows |= {f"paper: {OURS}": ours, "paper: best of the others": others}
        names = list(rows)
        for name, values in rows.items():
            first, last = name == names[0], name == names[-1]
            table.add_row(
                TITLES[metric] if first else "",
                cell(name, "bold" if first else ""),
                *map(percent, values),
                end_section=last,
            )
    console.print(table)
    for warning in comparison.warnings:
        console.print(cell(f"warning: {warning}", "yellow"), soft_wrap=True)


def percent(value: float | None) -> str:
    """One digit after the point, as the paper prints."""
    return "–" if value is None else f"{value:.1f}"


def _table(comparison: Comparison, metric: Metric) -> list[str]:
    columns = comparison.columns
    lines = table_head(["method", *(column.paper for column in columns)])
    for method in comparison.methods:
        cells = (percent(comparison.here(method, metric, column)) for column in columns)
        lines.append(table_line([plain(method), *cells]))
    for method in comparison.paper_methods:
        cells = (_printed(comparison, method, metric, column) for column in columns)
        lines.append(table_line([f"paper: {method}", *cells]))
    return lines


def _printed(comparison: Comparison, method: str, metric: Metric, column: Column) -> str:
    mark = f" {DOUBTFUL}" if comparison.is_doubtful(method, metric, column) else ""
    return percent(comparison.there(method, metric, column)) + mark


def _places(places: tuple[tuple[str, str], ...]) -> str:
    """``PMSM: A, V; Ours: LV``."""
    conditions: dict[str, list[str]] = {}
    for method, condition in places:
        conditions.setdefault(method, []).append(condition)
    return "; ".join(f"{method}: {', '.join(dict.fromkeys(found))}" for method, found in conditions.items())
