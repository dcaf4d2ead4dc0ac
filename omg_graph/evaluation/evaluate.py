"""``omg evaluate`` as a function: from models and a data file to a folder of results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from omg_graph.errors import ConfigError, ModelError
from omg_graph.evaluation.floor_data import TrainingRows, rows_of_entries, rows_of_split
from omg_graph.evaluation.floor_runs import run_floor
from omg_graph.evaluation.floors import floors_for
from omg_graph.evaluation.outcomes import Outcomes, Pairs
from omg_graph.evaluation.paper.beside import Comparison, Subject, beside_paper, columns_for, require_family
from omg_graph.evaluation.paper.page import section
from omg_graph.evaluation.paper.tables import Dataset
from omg_graph.evaluation.plots import HOW_TO_GET, draw_plots, plots_available
from omg_graph.evaluation.predictions import FILE as PREDICTIONS
from omg_graph.evaluation.predictions import write_predictions
from omg_graph.evaluation.protocols import Condition, conditions_of
from omg_graph.evaluation.report import markdown
from omg_graph.evaluation.runner import ModelRunner
from omg_graph.evaluation.summary import Summary, summarise
from omg_graph.evaluation.tables import SampleTable, result_row, sample_table
from omg_graph.evaluation.targets import LabelTarget, choose_target
from omg_graph.files import whole_folder
from omg_graph.model.folder import MANIFEST, load_model, machine, read_manifest, versions
from omg_graph.model.model import Model, choose_device
from omg_graph.samples.columns import FillNonfinite
from omg_graph.samples.conforming import conform
from omg_graph.samples.reading import DataFile, read_data_file
from omg_graph.samples.splitting import choose_split

METRICS = "metrics.json"
TABLE = "table.md"
MASKS = "masks"
PLOTS = "plots"
OURS = {METRICS, PREDICTIONS, TABLE, MASKS, PLOTS}

Progress = Callable[[str, int, int], None]
"""(what is under way, done, of)."""


@dataclass(frozen=True)
class EvaluationRequest:
    """What is to be measured, and how."""

    model: Path
    """A model folder, or a folder of them."""
    data: Path
    output: Path
    split: str | None = None
    protocol: str = "fixed"
    rates: Sequence[float] | Mapping[str, float] | None = None
    patterns: Sequence[Sequence[str]] | None = None
    masks: Sequence[Path] = ()
    seeds: int = 5
    metrics: str = "auto"
    draws: int = 19
    train_data: Path | None = None
    """Where floors are fitted on; the model's knowledge base by default."""
    floors: bool = True
    label: str | None = None
    fill_nonfinite: FillNonfinite | None = None
    limit: int | None = None
    device: str = "auto"
    text_encoder: Path | None = None
    beside_paper: Dataset | None = None
    """The paper's data set whose figures are put beside."""


@dataclass
class Evaluation:
    """What came out."""

    document: dict[str, Any]
    """``metrics.json``."""
    summary: Summary
    notes: list[str] = field(default_factory=list)
    paper: Comparison | None = None
    """The paper's figures beside, where they were asked for."""


def evaluate(request: EvaluationRequest, progress: Progress | None = None) -> Evaluation:
    """Measure one model or several under a protocol, beside their floors, and write the results.

    Args:
        request: what to measure.
        progress: told how far it is.

    Raises:
        OmgError: if model, data or settings can't be used, with what to do about it.
    """
    check_output(request.output)
    if request.draws < 0:
        raise ConfigError(f"--draws: 0 or more was expected, {request.draws} came")
    folders = model_folders(request.model)
    told = progress or _silent
    data: DataFile | None = None
    session: _Session | None = None
    for folder in folders:
        told(f"loading {folder.name}", 0, 1)
        model = load_model(folder, request.text_encoder).to(choose_device(request.device))
        if data is None:
            data = _read(request, request.data, model)
        if session is None:
            session = _Session(request, data, model)
        session.measure(model, folder, told)
    assert session is not None  # for the type checker: there is at least one folder
    return session.write(told)


def model_folders(folder: Path) -> list[Path]:
    """The folder itself if it is a model, else the models in it, by name.

    Raises:
        ModelError: if there is none, or two were trained with the same seed.
    """
    if (folder / MANIFEST).is_file() or not folder.is_dir():
        read_manifest(folder)
        return [folder]
    found = sorted(path.parent for path in folder.glob(f"*/{MANIFEST}"))
    if not found:
        read_manifest(folder)  # says what is wrong
    seeds = [read_manifest(path).seed for path in found]
    twice = [seed for seed in seeds if seeds.count(seed) > 1]
    if twice:
        raise ModelError(
            f"{folder}: models of different seeds were expected, seed {twice[0]} comes twice: "
            "evaluate one model after the other"
        )
    return found


def check_output(output: Path) -> None:
    """Refuse to replace anything that no evaluation wrote.

    Raises:
        ConfigError: if the folder holds something else.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise ConfigError(f"--output {output}: a folder was expected, a file is there: name another")
    strange = sorted(path.name for path in output.iterdir() if path.name not in OURS)
    if strange:
        raise ConfigError(
            f"--output {output}: a folder for results was expected, it holds {strange[0]!r}: name another"
        )


class _Session:
    """The conditions, shared by all models, and what they made of them."""

    def __init__(self, request: EvaluationRequest, data: DataFile, model: Model) -> None:
        self.request, self.data = request, data
        chosen, note = choose_split(data, request.split)
        if request.limit is not None:
            chosen = chosen.take(np.arange(min(request.limit, len(chosen))))
        self.specs = model.config.modalities
        self.truth, remarks = conform(chosen, self.specs, str(request.data), empty_rows="drop")
        self.notes = [*data.notes, note, *remarks]
        self.conditions = conditions_of(
            self.truth,
            request.protocol,
            rates=request.rates,
            patterns=request.patterns,
            masks=request.masks,
            seeds=request.seeds,
        )
        self.columns = (
            None
            if request.beside_paper is None
            else columns_for(request.beside_paper, request.protocol, self.conditions, self.truth)
        )
        self.pairs = Pairs.of(self.conditions)
        self.rows: list[dict[str, Any]] = []
        self.floor_rows: list[dict[str, Any]] = []
        self.tables: list[SampleTable] = []
        self.floor_tables: list[SampleTable] = []
        self.models: list[dict[str, Any]] = []
        self.families: list[str] = []

    def measure(self, model: Model, folder: Path, told: Progress) -> None:
        """One model, and its floors."""
        if model.config.modalities != self.specs:
            raise ModelError(f"{folder}: a model of the same modalities as the others was expected")
        request, seed = self.request, model.manifest.seed
        target = choose_target(model, self.truth.labels, request.metrics)
        if request.beside_paper is not None:
            require_family(request.beside_paper, target.family)
        self.families.append(target.family)
        self.models.append(
            {
                "folder": folder.name,
                "name": model.config.name,
                "fingerprint": model.manifest.fingerprint,
                "model_seed": seed,
                "synthetic": model.config.synthetic,
            }
        )
        self._warn(model, folder)
        runner = ModelRunner(model, self.truth, target, draws=request.draws)
        run = runner.run(
            self.pairs, lambda done, of: told(f"{folder.name}: samples under patterns", done, of)
        )
        self._keep(run.outcomes, target, seed, floor=False)
        if not request.floors:
            return
        rows = self._training_rows(model, target)
        for floor in floors_for(model, target):
            what = f"{folder.name}: {floor.name}"
            outcomes = run_floor(
                floor,
                rows,
                target,
                model=model,
                truth=self.truth,
                pairs=self.pairs,
                evidence=run.evidence,
                progress=lambda done, of, what=what: told(what, done, of),  # type: ignore[misc]
            )
            self._keep(outcomes, target, seed, floor=True)
        self._keep(run.anchor, target, seed, floor=True)

    def _keep(self, outcomes: Outcomes, target: LabelTarget, seed: int, *, floor: bool) -> None:
        for condition in self.conditions:
            arguments = (outcomes, self.pairs, condition, self.truth, target, seed)
            (self.floor_rows if floor else self.rows).append(result_row(*arguments))
            (self.floor_tables if floor else self.tables).append(sample_table(*arguments))

    def _training_rows(self, model: Model, target: LabelTarget) -> TrainingRows:
        path = self.request.train_data
        if path is None:
            rows = rows_of_entries(model.knowledge_base, model.names, target)
        else:
            data = _read(self.request, path, model)
            name = "train" if "train" in data.splits else None
            split, note = choose_split(data, name)
            split, _ = conform(split, self.specs, str(path), empty_rows="drop")
            rows = rows_of_split(split, model.latent_space, target, f"{path.name}: {note}")
        self._note(f"floors were fitted on {rows.source}")
        return rows

    def _warn(self, model: Model, folder: Path) -> None:
        known = sum(sample in model.knowledge_base.row_of for sample in self.truth.ids)
        if known:
            self._note(
                f"{folder.name}: {known} of {len(self.truth)} samples are entries of its knowledge base: "
                "the model was trained on them"
            )
        trained = model.manifest.data.get("sha256") == self.data.sha256
        if trained and self.truth.name == "valid":
            self._note(f"{folder.name}: choices of its training were made on 'valid': figures are flattered")
        if model.config.synthetic:
            self._note(f"{folder.name}: trained on synthetic data")

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def write(self, told: Progress) -> Evaluation:
        """Intervals over everything, and the folder, whole or not at all."""
        request = self.request
        told("intervals", 0, 1)
        tables = [*self.tables, *self.floor_tables]
        summary = summarise(tables)
        paper = self._beside_paper(summary)
        told("intervals", 1, 1)
        with whole_folder(request.output, replace=True) as folder:
            files = []
            (folder / MASKS).mkdir()
            for condition in self.conditions:
                files.append(f"{MASKS}/{condition.file_name}")
                condition.mask.write(folder / files[-1])
            with (folder / PREDICTIONS).open("w", encoding="utf-8") as file:
                write_predictions(tables, file)
            plots: list[str] = []
            if plots_available():
                made = draw_plots(summary, _scalar_rates(self.conditions), folder / PLOTS)
                plots = [f"{PLOTS}/{path.name}" for path in made]
            else:
                self._note(HOW_TO_GET)
            document = self._document(summary, files, plots)
            if paper is not None:
                document["paper"] = paper.as_json()
            text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
            (folder / METRICS).write_text(text + "\n", encoding="utf-8")
            page = markdown(summary, heading=self._heading(), facts=self._facts())
            if paper is not None:
                page += "\n" + section(paper)
            (folder / TABLE).write_text(page, encoding="utf-8")
        return Evaluation(document, summary, self.notes, paper)

    def _beside_paper(self, summary: Summary) -> Comparison | None:
        request = self.request
        if request.beside_paper is None or self.columns is None:
            return None
        subject = Subject(
            modalities=self.specs,
            split=self.truth.name,
            samples=len(self.truth),
            missing_by_nature=float((~self.truth.mask()).mean()),
            models=len(self.models),
        )
        return beside_paper(request.beside_paper, request.protocol, self.columns, summary, subject)

    def _document(self, summary: Summary, masks: list[str], plots: list[str]) -> dict[str, Any]:
        request = self.request
        return {
            "protocol": request.protocol,
            "family": self.families[0],
            "rows": self.rows,
            "floors": self.floor_rows,
            "mask_files": masks,
            "plots": plots,
            "model": {"folder": request.model.name, "models": self.models},
            "data": {
                "file": request.data.name,
                "sha256": self.data.sha256,
                "split": self.truth.name,
                "samples": len(self.truth),
                "groups": len(set(self.truth.groups)),
                "missing_by_nature": float((~self.truth.mask()).mean()),
            },
            "draws": request.draws,
            "intervals": summary.as_json(),
            "versions": versions(),
            "machine": machine(),
            "notes": self.notes,
        }

    def _heading(self) -> str:
        names = ", ".join(dict.fromkeys(entry["name"] for entry in self.models))
        return f"{names} on {self.request.data.name}, {self.truth.name}: {self.request.protocol}"

    def _facts(self) -> list[str]:
        groups = len(set(self.truth.groups))
        facts = [f"{len(self.truth)} samples in {groups} groups; metrics: {self.families[0]}"]
        facts += [
            f"{condition.name}: realised missing rate {condition.realised_rate:.3f}"
            + ("" if condition.mask_seed is None else f" (mask seed {condition.mask_seed})")
            for condition in self.conditions
        ]
        return [*facts, *self.notes]


def _read(request: EvaluationRequest, path: Path, model: Model) -> DataFile:
    """The file with the label that the model predicts, where the file has several."""
    specs, target = model.config.modalities, model.config.target
    data = read_data_file(path, label=request.label, fill_nonfinite=request.fill_nonfinite, specs=specs)
    names = {split.labels.name for split in data.splits.values() if split.labels is not None}
    if request.label is None and target is not None and names and target.name not in names:
        return read_data_file(path, label=target.name, fill_nonfinite=request.fill_nonfinite, specs=specs)
    return data


def _scalar_rates(conditions: Sequence[Condition]) -> dict[str, float]:
    """Condition to rate, where rates are what tells conditions apart."""
    return {c.name: c.rate for c in conditions if c.protocol == "random" and isinstance(c.rate, float)}


def _silent(_what: str, _done: int, _of: int) -> None:
    """Nobody is told."""
