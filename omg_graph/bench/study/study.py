"""A study: every setting and seed, kept as it goes, then the figures, tables and pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from omg_graph.bench.study.figures import SettingFigures, figures
from omg_graph.bench.study.pictures import draw_setting
from omg_graph.bench.study.report import markdown
from omg_graph.bench.study.runs import RunResult, RunSettings, run_setting
from omg_graph.bench.study.settings import TRAINING, StudySetting
from omg_graph.encoders.text import SentenceEncoder, locate_text_encoder
from omg_graph.errors import ConfigError, DataError
from omg_graph.evaluation.intervals import Interval
from omg_graph.evaluation.report import HOW_TO_GET, plots_available
from omg_graph.files import write_atomically
from omg_graph.model.folder import machine, read_manifest, versions
from omg_graph.model.model import default_model_folder
from omg_graph.simulator import AffectSimulator
from omg_graph.training.config import load_config

RUNS = "runs"
RESULT = "study.json"
TABLES = "study.md"

FORMAT = 3
"""Of the runs that are kept: raised when what is measured, or how, changes and settings don't tell."""

Progress = Callable[[str, str, int, int], None]
"""(which run, what of it, done, of)."""


@dataclass(frozen=True)
class StudyRequest:
    """What is studied, and how often."""

    output: Path
    settings: tuple[StudySetting, ...]
    seeds: int = 3
    text_encoder: Path | None = None
    training: Mapping[str, Any] | None = None
    """Changes to the training configuration's defaults; the study's own if None."""
    draws: int = 19
    """Samples of what is missing."""


@dataclass(frozen=True)
class Study:
    """What came out."""

    document: dict[str, Any]
    """As in ``study.json``."""
    settings: list[SettingFigures]
    notes: tuple[str, ...]


def run_study(request: StudyRequest, on_progress: Progress) -> Study:
    """Runs what is missing in the output folder, and rewrites the results.

    Raises:
        ConfigError: if there is no seed, or the training settings make no sense.
        DataError: if the output is a file, or can't be written.
        EncoderError: if the text encoder isn't to be found.
    """
    if request.seeds < 1:
        raise ConfigError(f"expected at least one seed, got {request.seeds}: give --seeds 3, say")
    training = dict(TRAINING if request.training is None else request.training)
    encoder_name = load_config(None, training).encoder.text_encoder
    folder = request.output / RUNS
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{request.output}: a folder can't be made there ({error.strerror}): choose another --output"
        ) from None
    text = None if request.text_encoder is None else str(request.text_encoder)
    made, notes = [], []
    for setting in request.settings:
        simulator: AffectSimulator | None = None
        runs = []
        for seed in range(request.seeds):
            identity = _identity(setting, seed, training, request.draws)
            path = folder / f"{setting.name}-{seed}.json"
            run = _kept(path, identity)
            if run is None:
                if path.exists():
                    notes.append(
                        f"{setting.name}, seed {seed}: what was kept there is of other settings or another "
                        "version; it was made anew"
                    )
                if simulator is None:
                    encoder = SentenceEncoder(locate_text_encoder(encoder_name, text), encoder_name)
                    simulator = AffectSimulator(setting.simulator, encoder.embed)
                run = run_setting(
                    setting,
                    simulator,
                    seed,
                    RunSettings(training, request.draws, text),
                    identity,
                    _under(on_progress, f"{setting.name}, seed {seed}"),
                )
                write_atomically(path, run.model_dump_json().encode())
            runs.append(run)
        made.append(figures(runs))
    return _written(request, made, notes)


def _under(on_progress: Progress, name: str) -> Callable[[str, int, int, float | None], None]:
    return lambda what, done, of, _loss: on_progress(name, what, done, of)


def _identity(setting: StudySetting, seed: int, training: Mapping[str, Any], draws: int) -> str:
    """SHA-256 of everything that decides a run, the versions of the libraries included."""
    unseen = [
        item
        for item in AffectSimulator(setting.simulator, _no_embedding).contents.items
        if setting.unseen(item)
    ]
    decided = {
        "format": FORMAT,
        "simulator": setting.simulator.model_dump(mode="json"),
        "unseen": hashlib.sha256(repr(unseen).encode()).hexdigest(),
        "setting": [
            setting.patterns,
            setting.learned_later,
            setting.composed,
            setting.taught,
            setting.speakers,
            setting.first_speaker,
            setting.clips,
        ],
        "training": load_config(None, dict(training)).model_dump(mode="json"),
        "seed": seed,
        "draws": draws,
        "versions": versions(),
        "embedded": None
        if "train" in setting.speakers
        else read_manifest(default_model_folder()).fingerprint,
    }
    return hashlib.sha256(json.dumps(decided, sort_keys=True).encode()).hexdigest()


def _no_embedding(_texts: list[str]) -> Any:
    raise AssertionError("contents need no embeddings")


def _kept(path: Path, identity: str) -> RunResult | None:
    """The saved run if it matches the request; otherwise None is returned and it runs again."""
    try:
        run = RunResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return run if run.identity == identity else None


def _written(request: StudyRequest, made: list[SettingFigures], remarks: list[str]) -> Study:
    notes = ["simulated clips: nothing here says how the method does on people"]
    document = {
        "synthetic": True,
        "settings": {item.name: _plain(asdict(item)) for item in made},
        "questions": {setting.name: setting.question for setting in request.settings},
        "versions": versions(),
        "machine": machine(),
    }
    if plots_available():
        for item in made:
            draw_setting(item, request.output / "plots")
    else:
        notes.append(HOW_TO_GET)
    document["notes"] = notes
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(request.output / RESULT, text.encode())
    questions = {setting.name: setting.question for setting in request.settings}
    write_atomically(request.output / TABLES, markdown(made, questions).encode())
    return Study(document, made, (*notes, *remarks))


def _plain(value: Any) -> Any:
    """The same as JSON holds it: intervals as objects, None for what is undefined."""
    if isinstance(value, dict):
        if set(value) == {"value", "low", "high"}:
            return Interval(**value).as_json()
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
