"""``omg tune``: loss weights chosen one after the other on validation rows (the paper's Appendix A).

Ours, and not Optuna's (5.0, looked at in 2026): the paper's procedure is a grid of some ten values, a weight
at a time, in which all values of lambda_s re-rank one training's candidates; there is nothing for TPE or
pruning to sample. A study in Optuna's journal would replace the dozen lines that keep a file for each trial,
at the price of SQLAlchemy, alembic, Mako and colorlog (37 MB), and its grid doesn't try a value again whose
trial was cut off: of 25 values 24 were left after ``load_if_exists``. Stages that trials share, what is
refused on ``--resume`` and the results, whole or not at all, would be ours all the same.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from omg_graph.data.reader import file_digest
from omg_graph.errors import ConfigError, ModelError, OmgError, first_fault
from omg_graph.files import move_whole, write_atomically
from omg_graph.metrics.labels import MetricFamily, choose_family
from omg_graph.model.folder import machine, versions
from omg_graph.training.cache import StageCache
from omg_graph.training.config import PlanChoiceSettings, TrainingConfig, load_config
from omg_graph.training.observation_encoder import embed_pairs
from omg_graph.training.request import TrainingRequest
from omg_graph.training.seeds_and_folds import discard_unless_begun
from omg_graph.training.student import plan_pairs
from omg_graph.training.targets import usable_labels
from omg_graph.training.train import Training

Criterion = Literal["auto", "nmse", "mae", "nll", "acc2", "acc7", "accuracy"]
LOWER_IS_BETTER = ("nmse", "mae", "nll")
MEASURED: dict[MetricFamily, tuple[str, ...]] = {
    "mosi": ("nmse", "mae", "nll", "acc2", "acc7"),
    "sims": ("nmse", "mae", "nll", "acc2"),
    "number": ("nmse", "mae"),
    "classes": ("nmse", "nll", "accuracy"),
    "none": ("nmse",),
}
"""What a validation report has, by family."""
AGREEMENT = "plan agreement"
"""What lambda_s is chosen by: the share of a validation plan's constraints that are the teacher's."""
TRIALS = "trials"
STAGES_FOLDER = "stages"
STARTED = "started.json"
"""What a tuning was begun with: the first file of its folder."""

EventCallback = Callable[[str, int, int, dict[str, Any]], None]
"""(what is tried, its number from 1, of at most, an event like the training graph's)."""

Changes = dict[str, dict[str, float]]
"""Block of settings to setting to value."""
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Grid(BaseModel):
    """The values that are tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    semantic: tuple[Weight, ...] = Field(default=(0.0, 0.1, 0.3, 1.0, 3.0), min_length=1)
    """lambda_s of Eq. 5."""
    plan: tuple[Weight, ...] = Field(default=(0.0, 0.03, 0.1, 0.3, 1.0), min_length=1)
    """lambda_p of Eq. 15."""
    evidence: tuple[Weight, ...] = Field(default=(0.0, 0.03, 0.1, 0.3, 1.0), min_length=1)
    """lambda_e of Eq. 15."""

    @field_validator("semantic", "plan", "evidence")
    @classmethod
    def _in_order(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(set(values)))


def load_grid(path: Path | None) -> Grid:
    """The grid of a YAML file, e.g. ``plan: [0.1, 1]``; what it leaves out is the default's.

    Raises:
        ConfigError: if the file can't be read, or holds something else.
    """
    if path is None:
        return Grid()
    try:
        return Grid.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--grid {path} can't be read as YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise ConfigError(
            f"--grid {path}: expected lists of numbers from 0 for semantic, plan and evidence, "
            f"{first_fault(error)}"
        ) from error


class TuningRequest(BaseModel):
    """What to tune, by what, and how much each training may cost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training: TrainingRequest
    """One training; ``output`` is the folder of the results, ``config`` and ``overrides`` where it starts."""
    grid: Grid = Grid()
    budget: int | None = Field(default=None, ge=1)
    """Epochs of the executor at most, in each training; the configuration's own if None."""
    criterion: Criterion = "auto"
    """Averaged over missing patterns; ``auto``: ``nll`` for classes, ``mae`` for numbers, else ``nmse``."""
    seeds: int = Field(default=1, ge=1)
    """Trainings of each value; the mean decides."""


@dataclass(frozen=True)
class Step:
    """One weight of the grid."""

    symbol: str
    setting: tuple[str, str]
    values: tuple[float, ...]

    def of(self, config: TrainingConfig) -> float:
        """What a configuration has for it."""
        return float(getattr(getattr(config, self.setting[0]), self.setting[1]))


def tune(request: TuningRequest, on_event: EventCallback | None = None) -> dict[str, Any]:
    """Choose lambda_s by re-ranking alone, then lambda_p, then lambda_e by training the executor.

    Each is chosen with the ones before it as chosen and the ones after it as configured. What a value doesn't
    touch is made once: candidates stay for every lambda_s, and only the executor is trained for the others.
    A run that was cut off goes on with ``training.resume``.

    Args:
        request: what to tune.
        on_event: progress callback, for every event.

    Returns:
        ``tuning.json``.

    Raises:
        OmgError: if the output is taken, or a training fails; what is finished by then stays.
    """
    output = Path(request.training.output)
    work = StageCache.beside(output).folder
    identity = _identity(request)
    if request.training.resume and (done := _finished(output, identity)) is not None:
        return done
    _check_output(output, request.training.overwrite)
    _open(work, identity, request.training.resume)
    try:
        document = _Tuner(request, work, on_event or _silent).run() | {"request": identity}
    except OmgError:
        discard_unless_begun(work)
        raise
    write_atomically(work / TABLE, table(document).encode())
    write_atomically(work / BEST, yaml.safe_dump(document["best"], sort_keys=False).encode())
    write_atomically(work / TUNING, _as_json(document))
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.is_dir() and not any(output.iterdir()):
        output.rmdir()
    move_whole(work, output, replace=request.training.overwrite)
    # nothing needs them now; they go last, so that a kill at any moment leaves what --resume understands
    for folder in (TRIALS, STAGES_FOLDER):
        shutil.rmtree(output / folder, ignore_errors=True)
    (output / STARTED).unlink(missing_ok=True)
    return document


class _Tuner:
    """The three steps, one after the other."""

    def __init__(self, request: TuningRequest, work: Path, on_event: EventCallback) -> None:
        self.request, self.work, self.on_event = request, work, on_event
        training, grid = request.training, request.grid
        self.config = load_config(training.config, training.overrides)
        self.semantic = Step("lambda_s", ("planner", "semantic_weight"), grid.semantic)
        self.trained = (
            Step("lambda_p", ("objective", "plan"), grid.plan),
            Step("lambda_e", ("objective", "evidence"), grid.evidence),
        )
        self.most = 1 + sum(len(step.values) for step in self.trained) * request.seeds
        self.number = 0
        self.notes: list[str] = []

    def run(self) -> dict[str, Any]:
        """The document, but for what asked for it."""
        chosen: Changes = {}
        steps = [self._by_reranking(chosen)]
        criterion: str = self.request.criterion
        for step in self.trained:
            values = []
            for value in step.values:
                found = self._trials(chosen, step, value)
                criterion = _suits(found[0]) if criterion == "auto" else criterion
                score = _mean_score(found, criterion)
                values.append({"value": value, "score": score, "validation": found})
            steps.append(self._chosen(step, values, criterion, chosen))
        best = self._with(chosen).model_copy(update={"name": "tuned"})
        training = self.request.training
        return {
            "data": {"file": Path(training.data).name, "sha256": file_digest(Path(training.data))},
            "config": self.config.name,
            "seeds": list(range(training.seed, training.seed + self.request.seeds)),
            "epochs": self.request.budget or self.config.optimiser.epochs,
            "steps": steps,
            "best": changes_of(best),
            "notes": list(dict.fromkeys(self.notes)),
            "versions": versions(),
            "machine": machine(),
        }

    def _with(self, changed: Changes) -> TrainingConfig:
        """The configuration with some weights set."""
        blocks = {
            block: getattr(self.config, block).model_copy(update=found) for block, found in changed.items()
        }
        return self.config.model_copy(update=blocks)

    def _chosen(
        self, step: Step, values: list[dict[str, Any]], criterion: str, chosen: Changes
    ) -> dict[str, Any]:
        configured = step.of(self.config)
        best = configured
        known = [row for row in values if row["score"] is not None]
        if known:
            sign = 1.0 if criterion in LOWER_IS_BETTER else -1.0
            # of values that are as good, the one that changes least
            best = min(known, key=lambda row: (sign * row["score"], abs(row["value"] - configured)))["value"]
        else:
            self.notes.append(f"{step.symbol} stays at {configured:g}: nothing tells its values apart here")
        chosen.setdefault(step.setting[0], {})[step.setting[1]] = best
        return {
            "weight": step.symbol,
            "setting": ".".join(step.setting),
            "criterion": criterion,
            "lower_is_better": criterion in LOWER_IS_BETTER,
            "configured": configured,
            "chosen": best,
            "values": values,
        }

    def _training(self, name: str, seed: int, changed: Changes) -> Training:
        training = self.request.training
        overrides = {
            block: dict(training.overrides.get(block, {})) | found for block, found in changed.items()
        }
        if self.request.budget is not None:
            optimiser = training.overrides.get("optimiser", {})
            overrides["optimiser"] = dict(optimiser) | {"epochs": self.request.budget}
        request = training.model_copy(
            update={
                "output": str(self.work / TRIALS / name),
                "overrides": training.overrides | overrides,
                "seed": seed,
                "shared_stages": str(self.work / STAGES_FOLDER),
                "resume": True,
                "overwrite": False,
            }
        )
        return Training(request, lambda *event: self._tell(name, *event))

    def _tell(self, name: str, what: str, done: int, of: int, loss: float | None) -> None:
        self.on_event(name, self.number, self.most, {"stage": what, "done": done, "of": of, "loss": loss})

    def _by_reranking(self, chosen: Changes) -> dict[str, Any]:
        """lambda_s: the same candidates, re-ranked for each value."""
        self.number += 1
        (self.work / TRIALS).mkdir(exist_ok=True)
        kept = self.work / TRIALS / "reranking.json"
        values = json.loads(kept.read_bytes()) if kept.is_file() else self._reranked()
        if not kept.is_file():
            write_atomically(kept, _as_json(values))
        return self._chosen(self.semantic, values, AGREEMENT, chosen)

    def _reranked(self) -> list[dict[str, Any]]:
        agreed: dict[float, list[float]] = {value: [] for value in self.semantic.values}
        for seed in self._seeds():
            training = self._training(f"reranking,seed={seed}", seed, {})
            run = training.run
            _check_criterion(self.request.criterion, choose_family(usable_labels(run.data.train)))
            rows = run.student_rows[1].value
            student, pairs, texts = run.student.value, rows.pool.everything, run.texts.value
            observed = embed_pairs(run.encoder.value, rows, pairs)
            self.notes += run.notes
            teacher = [run.data.valid_plans[row] for row in rows.pool.rows.tolist()]
            for number, value in enumerate(self.semantic.values, start=1):
                settings = run.config.planner.only(PlanChoiceSettings)
                settings = settings.model_copy(update={"semantic_weight": value})
                plans = plan_pairs(student, texts, run.data.valid, rows, pairs, observed, settings, run.seed)
                same = [
                    np.mean([ours == theirs for ours, theirs in zip(plan, wanted, strict=True)])
                    for plan, wanted in zip(plans, teacher, strict=True)
                    if wanted is not None
                ]
                agreed[value] += [float(np.mean(same))] if same else []
                self._tell(f"reranking,seed={seed}", "re-ranking", number, len(agreed), None)
            run.cache.remove()
        return [
            {"value": value, "score": float(np.mean(found)) if found else None, "validation": found}
            for value, found in agreed.items()
        ]

    def _seeds(self) -> range:
        return range(self.request.training.seed, self.request.training.seed + self.request.seeds)

    def _trials(self, chosen: Changes, step: Step, value: float) -> list[dict[str, Any]]:
        """Validation metrics of a training for each seed with one more weight set, those made before kept."""
        changed = {block: dict(found) for block, found in chosen.items()}
        changed.setdefault(step.setting[0], {})[step.setting[1]] = value
        weights = [self.semantic, *self.trained]
        return [self._trial(weights, changed, seed) for seed in self._seeds()]

    def _trial(self, weights: Sequence[Step], changed: Changes, seed: int) -> dict[str, Any]:
        self.number += 1
        parts = [
            f"{w.symbol}={changed.get(w.setting[0], {}).get(w.setting[1], w.of(self.config)):g}"
            for w in weights
        ]
        name = ",".join([*parts, f"seed={seed}"])
        kept = self.work / TRIALS / f"{name}.json"
        if kept.is_file():
            found: dict[str, Any] = json.loads(kept.read_bytes())
            return found
        training = self._training(name, seed, changed)
        made = {"seed": seed, **_averaged(training.run.metrics)}  # validated, and never saved
        write_atomically(kept, _as_json(made))
        training.run.cache.remove()
        return made


def _averaged(metrics: dict[str, Any]) -> dict[str, float]:
    """Each metric of a validation report, averaged over its patterns."""
    rows = [
        {**row, "nmse": float(np.mean(list(row["nmse"].values()))) if row["nmse"] else None}
        for row in metrics["rows"]
    ]
    found = {}
    for name in ("nmse", "mae", "nll", "acc2", "acc7", "accuracy"):
        known = [row[name] for row in rows if row.get(name) is not None]
        if known:
            found[name] = float(np.mean(known))
    return found


def _suits(row: dict[str, Any]) -> str:
    """What ``auto`` means, by what there is."""
    return "nll" if "accuracy" in row else "mae" if "mae" in row else "nmse"


def _check_criterion(criterion: Criterion, family: MetricFamily) -> None:
    if criterion not in ("auto", *MEASURED[family]):
        raise ConfigError(
            f"--criterion: one of auto, {', '.join(MEASURED[family])} was expected on these data, "
            f"{criterion!r} came"
        )


def _mean_score(rows: Sequence[dict[str, Any]], criterion: str) -> float | None:
    there = [row[criterion] for row in rows if criterion in row]
    return float(np.mean(there)) if there else None


def _identity(request: TuningRequest) -> dict[str, Any]:
    training = request.training
    left_out = {"data", "output", "resume", "overwrite", "device", "text_encoder", "shared_stages"}
    settings = training.model_dump(mode="json", exclude=left_out | {"config", "overrides"})
    settings["config"] = load_config(training.config, training.overrides).model_dump(mode="json")
    settings |= request.model_dump(mode="json", exclude={"training"})
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return {"data": file_digest(Path(training.data)), "settings": digest}


def _as_json(content: Any) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _finished(output: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    try:
        document: dict[str, Any] = json.loads((output / TUNING).read_bytes())
    except (OSError, ValueError):
        return None
    return document if document.get("request") == identity else None


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / TUNING).is_file():
        raise ModelError(
            f"{output} is there and isn't of omg tune: choose another --output, or remove it yourself"
        )
    if not overwrite:
        raise ModelError(f"{output} holds results already: choose another --output, or pass --overwrite")


def _open(work: Path, identity: dict[str, Any], resume: bool) -> None:
    started = work / STARTED
    ours = started.is_file() or not work.exists()
    if not ours and any(not entry.name.startswith(f".{STARTED}.") for entry in work.iterdir()):
        raise ConfigError(
            f"{work} is where this tuning would keep what it has done, and something else is there: choose "
            "another --output, or move it away yourself"
        )
    if resume and started.is_file():
        if json.loads(started.read_bytes()) != identity:
            raise ConfigError(
                f"--resume goes on with the same data, settings and grid; they differ from what {work} was "
                "started with: leave out --resume to start anew"
            )
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    write_atomically(started, _as_json(identity))


def _silent(_name: str, _number: int, _of: int, _event: dict[str, Any]) -> None:
    """No progress is shown."""


TUNING = "tuning.json"
TABLE = "table.md"
BEST = "best.yaml"


def changes_of(config: TrainingConfig) -> dict[str, Any]:
    """A configuration as changes to the defaults, which ``load_config`` reads back."""
    return _different(config.model_dump(mode="json"), TrainingConfig().model_dump(mode="json"))


def _different(ours: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in ours.items():
        if isinstance(value, dict):
            inner = _different(value, defaults[name])
            if inner:
                found[name] = inner
        elif value != defaults[name]:
            found[name] = value
    return found


def table(document: dict[str, Any]) -> str:
    """A Markdown page of a tuning."""
    data, seeds = document["data"], document["seeds"]
    lines = [
        f"# Weights tuned on {data['file']}",
        "",
        f"- starting from the configuration {document['config']}; {document['epochs']} epochs at most; "
        f"{'seed' if len(seeds) == 1 else 'mean of seeds'} {', '.join(map(str, seeds))}",
        "- each is chosen with the ones before it as chosen and the ones after it as configured",
        "- on validation rows, averaged over missing patterns; small differences may be luck",
        *(f"- {note}" for note in document["notes"]),
        "",
    ]
    for step in document["steps"]:
        better = "lower" if step["lower_is_better"] else "higher"
        lines += [
            f"## {step['weight']} (`{step['setting']}`): {step['chosen']:g}",
            "",
            f"| value | {step['criterion']} ({better} is better) | |",
            "| ---: | ---: | --- |",
        ]
        for row in step["values"]:
            marks = [
                text
                for text, value in (("chosen", step["chosen"]), ("configured", step["configured"]))
                if row["value"] == value
            ]
            score = "–" if row["score"] is None else f"{row['score']:.4f}"
            lines.append(f"| {row['value']:g} | {score} | {', '.join(marks)} |")
        lines.append("")
    return "\n".join(lines)
