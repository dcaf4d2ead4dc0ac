"""The paper's tables as they are printed, with notes on the cells that don't add up."""

from __future__ import annotations

import csv
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict

from omg_graph.errors import ConfigError

Dataset = Literal["mosi", "mosei"]
Metric = Literal["acc2", "f1", "acc7"]
TableName = Literal["fixed", "cross_dataset", "ablation", "random", "retrieval", "injection"]

DATASETS: tuple[Dataset, ...] = get_args(Dataset)
METRICS: tuple[Metric, ...] = get_args(Metric)
TABLES: tuple[TableName, ...] = get_args(TableName)
OURS = "Ours"
"""What the tables call the paper's own method."""

CellKey = tuple[TableName, Dataset, str, str, Metric]
"""(table, data set, method, condition, metric)."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PaperRow(_Record):
    """One method under one condition, in percent."""

    dataset: Dataset
    """The one that was tested on."""
    method: str
    """As spelt in that table."""
    condition: str
    """Letters of the observed modalities (``LV``), or the missing rate (``0.7``)."""
    acc2: float
    f1: float
    acc7: float

    def figure(self, metric: Metric) -> float:
        """In percent."""
        return {"acc2": self.acc2, "f1": self.f1, "acc7": self.acc7}[metric]


class PaperTable(_Record):
    """One of the paper's tables."""

    title: str
    about: str
    rows: tuple[PaperRow, ...]

    def methods(self, dataset: Dataset) -> tuple[str, ...]:
        """In the printed order."""
        return tuple(dict.fromkeys(row.method for row in self.rows if row.dataset == dataset))

    def conditions(self, dataset: Dataset) -> tuple[str, ...]:
        """In the printed order."""
        return tuple(dict.fromkeys(row.condition for row in self.rows if row.dataset == dataset))

    def row(self, dataset: Dataset, method: str, condition: str) -> PaperRow:
        """The printed row.

        Raises:
            KeyError: if there is none.
        """
        for row in self.rows:
            if (row.dataset, row.method, row.condition) == (dataset, method, condition):
                return row
        raise KeyError((dataset, method, condition))


class Place(_Record):
    """Cells of a table: all of them, but for what is named."""

    table: TableName
    dataset: Dataset | None = None
    methods: tuple[str, ...] | None = None
    conditions: tuple[str, ...] | None = None
    metrics: tuple[Metric, ...] = METRICS

    def holds(self, row: PaperRow) -> bool:
        """Whether the row, of this table, is meant."""
        return (
            self.dataset in (None, row.dataset)
            and (self.methods is None or row.method in self.methods)
            and (self.conditions is None or row.condition in self.conditions)
        )


class Note(_Record):
    """Something about cells that a reader should know before leaning on them."""

    text: str
    cells: tuple[Place, ...]


class Latency(_Record):
    """Time a sample, end to end."""

    milliseconds: float
    planning_share: float
    retrieval_and_execution_share: float
    machine: str


class PaperTables(_Record):
    """Everything that the paper reports in numbers, as printed."""

    paper: str
    features: str
    widths: dict[str, int]
    """Modality to features of one frame."""
    runs: int
    """Seeds that each figure averages."""
    test_samples: dict[Dataset, int]
    tables: dict[TableName, PaperTable]
    acc2_drops: dict[str, dict[Dataset, float]]
    """Variant of Figure 4 to points of ACC2 lost at missing rate 0.7, from the text."""
    latency: Latency
    spellings: dict[str, tuple[str, ...]]
    """A method's name in Table 1 to how other tables spell it."""
    notes: tuple[Note, ...]

    def known_as(self, method: str) -> str:
        """A method's name in Table 1, however it is spelt."""
        return next((name for name, others in self.spellings.items() if method in others), method)

    def cells_of(self, note: Note) -> frozenset[CellKey]:
        """The cells that a note is about."""
        return frozenset(
            (place.table, row.dataset, row.method, row.condition, metric)
            for place in note.cells
            for row in self.tables[place.table].rows
            if place.holds(row)
            for metric in place.metrics
        )

    @cached_property
    def doubtful(self) -> dict[CellKey, tuple[int, ...]]:
        """Cell to the positions in ``notes`` of those about it."""
        found: dict[CellKey, tuple[int, ...]] = {}
        for number, note in enumerate(self.notes):
            for key in self.cells_of(note):
                found[key] = (*found.get(key, ()), number)
        return found


@lru_cache(maxsize=1)
def paper_tables() -> PaperTables:
    """The paper's tables 1 to 3, those of its appendix 2 to 4, and what its text adds in numbers."""
    folder = files("omg_graph.bench.paper")
    content = yaml.safe_load(folder.joinpath("tables.yaml").read_text("utf-8"))
    for name, table in content["tables"].items():
        lines = folder.joinpath(f"{name}.csv").read_text("utf-8").splitlines()
        table["rows"] = list(csv.DictReader(lines))
    return PaperTables.model_validate(content)


def dataset_named(name: str) -> Dataset:
    """The paper's data set of that name.

    Raises:
        ConfigError: if it has no such.
    """
    for dataset in DATASETS:
        if dataset == name:
            return dataset
    raise ConfigError(f"--beside-paper: expected {' or '.join(DATASETS)}, got {name!r}")
