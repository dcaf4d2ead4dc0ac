"""``omg evaluate`` as a function: from models and a data file to a folder of results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from omg_graph.data.columns import FillNonfinite
from omg_graph.data.dataset import BoolArray, Split
from omg_graph.data.reader import DataFile
from omg_graph.data.splits import choose_split, conform
from omg_graph.errors import ConfigError, ModelError
from omg_graph.evaluation.floor_data import TrainingRows, rows_of_entries, rows_of_split
from omg_graph.evaluation.floors import CLOSED, Floor, FloorSet, floors_for
from omg_graph.evaluation.intervals import Summary, summarise
from omg_graph.evaluation.models import fold_number, held_out_rows, model_folders, rows_held_out
from omg_graph.evaluation.outcomes import Pairs, Part
from omg_graph.evaluation.predictions import FILE as PREDICTIONS
from omg_graph.evaluation.predictions import write_predictions
from omg_graph.evaluation.protocols import Condition, conditions_of
from omg_graph.evaluation.report import HOW_TO_GET, draw_plots, markdown, plots_available
from omg_graph.evaluation.runner import ANCHOR, METHOD, ModelRun, ModelRunner, run_floor
from omg_graph.evaluation.tables import LabelTarget, Results, choose_target
from omg_graph.files import whole_folder
from omg_graph.model.components import DEFAULT_COMPONENTS, Components
from omg_graph.model.folder import load_model, machine, versions
from omg_graph.model.model import Model, choose_device
from omg_graph.model.planners import PlannerOptions, make_planner
from omg_graph.plugins import FLOORS, component, registered
from omg_graph.seeding import derived_seed

METRICS = "metrics.json"
TABLE = "table.md"
MASKS = "masks"
PLOTS = "plots"
OURS = {METRICS, PREDICTIONS, TABLE, MASKS, PLOTS}

Progress = Callable[[str, int, int], None]
"""(what is under way, done, of)."""


class PublishedComparison(Protocol):
    """Published figures next to those measured here."""

    def as_json(self) -> dict[str, Any]:
        """For ``metrics.json``, under ``paper``."""
        ...

    def markdown(self) -> str:
        """A section of ``table.md``."""
        ...

    def show(self) -> None:
        """Print them to the terminal."""
        ...


class PublishedFigures(Protocol):
    """Figures that somebody published of one data set; the checks raise ConfigError where they don't fit."""

    def check(self, protocol: str, conditions: Sequence[Condition], split: Split) -> None:
        """Keep the conditions that were published too; refuse what has none."""
        ...

    def check_family(self, family: str) -> None:
        """Refuse another family of metrics."""
        ...

    def compare(self, summary: Summary, split: Split, models: int) -> PublishedComparison:
        """Put the figures of ``models`` trained models on a split beside the published ones."""
        ...


@dataclass(frozen=True)
class EvaluationRequest:
    """What is to be measured, and how."""

    model: Path
    """A model folder, or a folder of them."""
    data: Path
    output: Path
    split: str | None = None
    """``all`` for every row of the file."""
    unrelated: bool = False
    """The data have nothing to do with the training data: equal ids and groups are chance."""
    protocol: str = "fixed"
    rates: Sequence[float] | Mapping[str, float] | None = None
    patterns: Sequence[Sequence[str]] | None = None
    masks: Sequence[Path] = ()
    seeds: int = 5
    metrics: str = "auto"
    draws: int = 19
    train_data: Path | None = None
    """Where floors are fitted on; the model's knowledge base by default."""
    floors: str = "fast"
    """``fast``: those in closed form; ``none``; or with them a registered set of trained ones."""
    floor_seeds: int = 1
    """How often each trained floor is trained."""
    floor_models: Mapping[str, Path] = field(default_factory=dict)
    """Name to a model folder, or a folder of them, that stands among the floors."""
    label: str | None = None
    fill_nonfinite: FillNonfinite | None = None
    limit: int | None = None
    device: str = "auto"
    planner: str = "distilled"
    """Who plans: the models' own, or a registered planner, made once for each model."""
    planner_options: PlannerOptions = field(default_factory=PlannerOptions)
    """Settings of that planner; a bound on calls is one for each model."""
    text_encoder: Path | None = None
    components: Components = DEFAULT_COMPONENTS
    """What the models were trained with, where an ablation replaced a part of the method."""
    published: PublishedFigures | None = None
    """Figures to compare those measured with."""


@dataclass
class Evaluation:
    """What came out."""

    document: dict[str, Any]
    """``metrics.json``."""
    summary: Summary
    notes: list[str] = field(default_factory=list)
    published: PublishedComparison | None = None
    """The comparison with published figures that was asked for."""


def evaluate(request: EvaluationRequest, progress: Progress | None = None) -> Evaluation:
    """Measure one model or several under a protocol, beside their floors, and write the results.

    Args:
        request: what to measure.
        progress: called with how far it is.

    Raises:
        OmgError: if model, data or settings can't be used, with what to do about it.
    """
    check_output(request.output)
    if request.draws < 0:
        raise ConfigError(f"--draws: expected 0 or more, got {request.draws}")
    folders = model_folders(request.model)
    floor_set = choose_floors(request.floors, request.floor_seeds, request.floor_models)
    on_progress = progress or _silent
    data: DataFile | None = None
    session: _Session | None = None
    for folder in folders:
        on_progress(f"loading {folder.name}", 0, 1)
        model = load_model(folder, request.text_encoder, request.components)
        model = _planning(model.to(choose_device(request.device)), request)
        if data is None:
            data = _read(request, request.data, model)
        if session is None:
            held_out = rows_held_out(folders, data, request.split)
            session = _Session(request, data, model, held_out, floor_set)
        session.measure(model, folder, on_progress)
    assert session is not None  # for the type checker: there is at least one folder
    session.measure_floor_models(on_progress)
    return session.write(on_progress)


def _planning(model: Model, request: EvaluationRequest) -> Model:
    """The model with the planner that is asked for."""
    if (request.planner, request.planner_options.model) == ("distilled", None):
        return model
    return model.with_planner(make_planner(request.planner, model, request.planner_options))


def check_output(output: Path) -> None:
    """Refuse to replace anything that no evaluation wrote.

    Raises:
        ConfigError: if the folder holds something else.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise ConfigError(f"--output {output}: expected a folder, a file is there: name another")
    strange = sorted(path.name for path in output.iterdir() if path.name not in OURS)
    if strange:
        raise ConfigError(
            f"--output {output}: expected a folder for results, it holds {strange[0]!r}: name another"
        )


def choose_floors(choice: str, seeds: int, models: Mapping[str, Path]) -> FloorSet | None:
    """The trained floors of a choice, None of none, checked before anything is computed.

    Raises:
        ConfigError: if the choice is unknown, what it needs isn't installed, or a name is taken.
        ModelError: if one of the models isn't one.
    """
    names = ("fast", *registered(FLOORS), "none")
    if choice not in names:
        raise ConfigError(f"--floors: expected one of {', '.join(names)}, got {choice!r}")
    if seeds < 1:
        raise ConfigError(f"--floor-seeds: expected 1 or more, got {seeds}")
    chosen: FloorSet | None = None if choice in ("fast", "none") else component(FLOORS, choice)()
    trained = () if chosen is None else chosen.floors(LabelTarget("mosi"), 0, _silent)
    taken = {METHOD, ANCHOR, *CLOSED, *(floor.name for floor in trained)}
    for name, folder in models.items():
        if name in taken or name.startswith("constant ("):
            raise ConfigError(f"--floor-model {name}={folder}: another method has that name: take another")
        model_folders(folder)
    return chosen


class _Session:
    """The conditions, shared by all models, and what they made of them."""

    def __init__(
        self,
        request: EvaluationRequest,
        data: DataFile,
        model: Model,
        held_out: tuple[Split, str] | None,
        floor_set: FloorSet | None,
    ) -> None:
        self.request, self.data, self.floor_set = request, data, floor_set
        chosen, note = held_out or choose_split(data, request.split)
        self.of_folds = held_out is not None
        if self.of_folds and request.train_data is not None:
            raise ConfigError(
                "--train-data: floors of folds are fitted on what each trained on: leave it out"
            )
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
        if request.published is not None:
            request.published.check(request.protocol, self.conditions, self.truth)
        self.pairs = Pairs.of(self.conditions)
        self.shown = _renamed(self.truth, self.data) if request.unrelated else self.truth
        self.results = Results(self.truth, self.pairs, self.conditions)
        self.models: list[dict[str, Any]] = []
        self.families: list[str] = []

    def measure(self, model: Model, folder: Path, on_progress: Progress) -> None:
        """One model, and its floors."""
        request, seed, label = self.request, model.manifest.seed, _label(folder, self.request.model)
        target = choose_target(model, self.truth.labels, request.metrics)
        if request.published is not None:
            request.published.check_family(target.family)
        self.families.append(target.family)
        self.models.append(
            {
                "folder": label,
                "name": model.config.name,
                "fingerprint": model.manifest.fingerprint,
                "model_seed": seed,
                "planner": model.planner.name,
                "fold": fold_number(model.manifest),
                "trained_on": {name: model.manifest.data.get(name) for name in ("file", "sha256")},
                "synthetic": model.config.synthetic,
            }
        )
        part = self._part(model, folder)
        if part is not None and not len(part.pairs):
            self._note(f"{label}: none of its rows is among the samples")
            return
        run = self._run(model, target, part, f"{label}: samples under patterns", on_progress)
        self.results.keep(run.outcomes, target, seed, floor=False, part=part)
        if request.floors == "none":
            return
        rows = self._training_rows(model, target)
        for floor, floor_seed in self._floors(model, target, f"{label}: fitting", on_progress):
            outcomes = run_floor(
                floor,
                rows,
                target,
                model=model,
                truth=self.shown,
                pairs=self.pairs if part is None else part.pairs,
                evidence=run.evidence,
                progress=partial(on_progress, f"{label}: {floor.name}"),
            )
            self.results.keep(replace(outcomes, floor_seed=floor_seed), target, seed, floor=True, part=part)
        self.results.keep(run.anchor, target, seed, floor=True, part=part)

    def _floors(
        self, model: Model, target: LabelTarget, what: str, on_progress: Progress
    ) -> Iterator[tuple[Floor, int | None]]:
        """Floors with the number of their training, None for those that nothing random is in."""
        for floor in floors_for(model, target):
            yield floor, None
        for number in range(self.request.floor_seeds if self.floor_set is not None else 0):
            assert self.floor_set is not None  # for the type checker
            seed = derived_seed(model.manifest.seed, "floor", number)
            for floor in self.floor_set.floors(
                target, seed, lambda fitted, done, of: on_progress(f"{what} {fitted}", done, of)
            ):
                yield floor, number

    def measure_floor_models(self, on_progress: Progress) -> None:
        """Other models among the floors, under the same masks."""
        request = self.request
        for name, path in request.floor_models.items():
            for folder in model_folders(path):
                on_progress(f"loading {folder.name}", 0, 1)
                model = load_model(folder, request.text_encoder).to(choose_device(request.device))
                part = self._part(model, folder)
                target = choose_target(model, self.truth.labels, request.metrics)
                if target.family != self.families[0]:
                    raise ModelError(
                        f"{folder}: expected a model measured by {self.families[0]}, got {target.family}"
                    )
                run = self._run(model, target, part, name, on_progress)
                outcomes = replace(run.outcomes, method=name)
                self.results.keep(outcomes, target, model.manifest.seed, floor=True, part=part)

    def _part(self, model: Model, folder: Path) -> Part | None:
        """What a model of a fold is measured on; None for everything."""
        if model.config.modalities != self.specs:
            raise ModelError(f"{folder}: a model of the same modalities as the others was expected")
        held, fold = held_out_rows(model.manifest, self.truth.ids), fold_number(model.manifest)
        if (fold is not None) != self.of_folds:
            raise ModelError(f"{folder}: models of folds stand beside models of folds alone: leave it out")
        self._warn(model, folder, held)
        if held is None or fold is None:
            return None
        return Part.of(self.pairs, self.conditions, held, fold)

    def _run(
        self, model: Model, target: LabelTarget, part: Part | None, what: str, on_progress: Progress
    ) -> ModelRun:
        runner = ModelRunner(model, self.shown, target, draws=self.request.draws)
        return runner.run(self.pairs if part is None else part.pairs, partial(on_progress, what))

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

    def _warn(self, model: Model, folder: Path, held: BoolArray | None) -> None:
        label, kb, same = _label(folder, self.request.model), model.knowledge_base, self._is_of(model)
        rows = range(len(self.truth)) if held is None else np.flatnonzero(held).tolist()
        known = sum(self.shown.ids[row] in kb.row_of for row in rows)
        met = set(kb.groups)
        grouped = sum(self.shown.groups[row] in met for row in rows)
        if known:
            self._note(
                f"{label}: {known} of {len(rows)} samples are entries of its knowledge base: "
                "the model was trained on them"
                + ("" if same else ", unless equal ids are chance: --unrelated")
            )
        elif grouped and not same:
            self._note(
                f"{label}: {grouped} of {len(rows)} samples are of groups that its knowledge base has too: "
                "these are left out of their evidence; where equal names are chance, pass --unrelated"
            )
        if same and self.truth.name == "valid":
            self._note(f"{label}: choices of its training were made on 'valid': figures are flattered")
        if model.config.synthetic:
            self._note(f"{label}: trained on synthetic data")

    def _is_of(self, model: Model) -> bool:
        """Whether a model was trained on this very file."""
        return bool(model.manifest.data.get("sha256") == self.data.sha256)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def write(self, on_progress: Progress) -> Evaluation:
        """Intervals over everything, and the folder, whole or not at all."""
        request = self.request
        if self.floor_set is not None:
            self._note(self.floor_set.note())
        on_progress("intervals", 0, 1)
        self.results.finish()
        tables = [*self.results.tables, *self.results.floor_tables]
        summary = summarise(tables)
        published = (
            None
            if request.published is None
            else request.published.compare(summary, self.truth, len(self.models))
        )
        on_progress("intervals", 1, 1)
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
            if published is not None:
                document["paper"] = published.as_json()
            text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
            (folder / METRICS).write_text(text + "\n", encoding="utf-8")
            page = markdown(summary, heading=self._heading(), facts=self._facts())
            if published is not None:
                page += "\n" + published.markdown()
            (folder / TABLE).write_text(page, encoding="utf-8")
        return Evaluation(document, summary, self.notes, published)

    def _document(self, summary: Summary, masks: list[str], plots: list[str]) -> dict[str, Any]:
        request = self.request
        return {
            "protocol": request.protocol,
            "family": self.families[0],
            "rows": self.results.rows,
            "floors": self.results.floor_rows,
            "folds": self.results.fold_rows,
            "mask_files": masks,
            "plots": plots,
            "model": {"folder": request.model.name, "models": self.models},
            "data": {
                "file": request.data.name,
                "sha256": self.data.sha256,
                "unrelated": request.unrelated,
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
        planners = ", ".join(dict.fromkeys(entry["planner"] for entry in self.models))
        facts = [
            f"{len(self.truth)} samples in {groups} groups; metrics: {self.families[0]}; planner: {planners}"
        ]
        facts += [
            f"{condition.name}: realised missing rate {condition.realised_rate:.3f}"
            + ("" if condition.mask_seed is None else f" (mask seed {condition.mask_seed})")
            for condition in self.conditions
        ]
        return [*facts, *self.notes]


def _read(request: EvaluationRequest, path: Path, model: Model) -> DataFile:
    """The file with the label that the model predicts, where the file has several."""
    read, target = partial(model.read, path, fill_nonfinite=request.fill_nonfinite), model.config.target
    data = read(label=request.label)
    names = {split.labels.name for split in data.splits.values() if split.labels is not None}
    if request.label is None and target is not None and names and target.name not in names:
        return read(label=target.name)
    return data


def _label(folder: Path, asked: Path) -> str:
    """A model's place in the folder that was named, else its own name."""
    inside = folder.is_relative_to(asked) and folder != asked
    return folder.relative_to(asked).as_posix() if inside else folder.name


def _renamed(split: Split, data: DataFile) -> Split:
    """The same samples under ids and groups that no other file has."""
    mark = data.sha256[:12]
    return replace(
        split,
        ids=tuple(f"{mark}/{sample}" for sample in split.ids),
        groups=tuple(f"{mark}/{group}" for group in split.groups),
    )


def _scalar_rates(conditions: Sequence[Condition]) -> dict[str, float]:
    """Condition to rate, where rates are what tells conditions apart."""
    return {c.name: c.rate for c in conditions if c.protocol == "random" and isinstance(c.rate, float)}


def _silent(_what: str, _done: int, _of: int) -> None:
    """No progress is shown."""
