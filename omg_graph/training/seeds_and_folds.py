"""Several models in one go: one for each seed, for each fold, or for each seed in each fold."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omg_graph.data.reader import file_digest
from omg_graph.errors import ConfigError, ModelError, OmgError
from omg_graph.files import move_whole
from omg_graph.model.collection import MODELS, ModelCollection, NamedModel, read_collection
from omg_graph.model.folder import MANIFEST, read_manifest
from omg_graph.training.cache import StageCache
from omg_graph.training.config import load_config
from omg_graph.training.graph import build_training_graph
from omg_graph.training.request import TrainingRequest
from omg_graph.training.teaching import plans_digest

STAGES_FOLDER = "stages"
"""Where the runs of one go share what doesn't depend on seeds."""

EventCallback = Callable[[str, int, int, dict[str, Any]], None]
"""(folder of the model under way, its number from 1, of, an event of the training graph)."""


@dataclass(frozen=True)
class TrainedModel:
    """One of the models that came out."""

    named: NamedModel
    metrics: dict[str, Any]
    notes: tuple[str, ...]
    seconds: dict[str, float]


def planned_models(seed: int, seeds: int | None, folds: int | None) -> tuple[NamedModel, ...]:
    """The models that ``seeds`` and ``folds`` ask for, fold by fold.

    Raises:
        ConfigError: if there are fewer than one seed or two folds.
    """
    if seeds is not None and seeds < 1:
        raise ConfigError(f"--seeds: expected 1 or more, got {seeds}")
    if folds is not None and folds < 2:
        raise ConfigError(f"--folds: expected 2 or more, got {folds}")
    found = []
    for fold in [None] if folds is None else range(folds):
        for number in range(seed, seed + (seeds or 1)):
            parts = ([] if fold is None else [f"fold-{fold}"]) + ([] if seeds is None else [f"seed-{number}"])
            found.append(NamedModel(folder="/".join(parts), seed=number, fold=fold))
    return tuple(found)


def train_collection(
    request: TrainingRequest,
    *,
    seeds: int | None = None,
    folds: int | None = None,
    on_event: EventCallback | None = None,
) -> list[TrainedModel]:
    """Train a model for each seed from ``request.seed`` on, in each fold, into one folder.

    All happens beside the output, in ``OUTPUT.training``; the folder appears whole at the end. With
    ``request.resume`` models that are finished are left alone, the one that was cut off goes on, and a whole
    that is there already is a success.

    Args:
        request: what one model is asked to be; ``output`` is the folder of all.
        seeds: how many.
        folds: cross-validate in so many folds.
        on_event: progress callback, for every event of every run.

    Raises:
        OmgError: if the output is taken, or a training fails; what is finished by then stays.
    """
    wanted = ModelCollection(
        request=_identity(request), folds=folds, models=planned_models(request.seed, seeds, folds)
    )
    output, work = Path(request.output), StageCache.beside(Path(request.output)).folder
    if request.resume and (there := read_collection(output)) is not None and _same(there, wanted):
        if work.is_dir() and (left := read_collection(work)) is not None and _same(left, wanted):
            shutil.rmtree(work)
        return [_trained(output, model) for model in there.models]
    _check_output(output, request.overwrite)
    state = _opened(work, wanted, request.resume)
    for number, model in enumerate(state.models, start=1):
        if model.fingerprint:
            continue
        single = request.model_copy(
            update={
                "output": str(work / model.folder),
                "seed": model.seed,
                "folds": folds,
                "fold": model.fold or 0,
                "shared_stages": str(work / STAGES_FOLDER),
                "resume": True,
                "overwrite": False,
            }
        )
        fingerprint = ""
        try:
            for event, result in _events(single):
                if event is not None and on_event is not None:
                    on_event(model.folder, number, len(state.models), event)
                fingerprint = result.get("fingerprint", fingerprint)
        except OmgError:
            discard_unless_begun(work)
            raise
        state = state.with_fingerprint(model.folder, fingerprint)
        state.write(work)
        _keep_codecs(work / STAGES_FOLDER)
    shutil.rmtree(work / STAGES_FOLDER, ignore_errors=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.is_dir() and not any(output.iterdir()):
        output.rmdir()
    move_whole(work, output, replace=request.overwrite)
    return [_trained(output, model) for model in state.models]


def _events(request: TrainingRequest) -> Iterator[tuple[dict[str, Any] | None, dict[str, Any]]]:
    """The events of a run as they come, and the state in between."""
    stream: Iterator[Any] = build_training_graph().stream(
        request.model_dump(), stream_mode=["custom", "values"]
    )
    for mode, chunk in stream:
        if mode == "custom":
            yield chunk, {}
        else:
            yield None, chunk


def _identity(request: TrainingRequest) -> dict[str, Any]:
    left_out = {"data", "output", "resume", "overwrite", "device", "text_encoder", "shared_stages", "config"}
    settings = request.model_dump(mode="json", exclude=left_out | {"overrides", "schema_file", "plans"})
    settings["config"] = load_config(request.config, request.overrides).model_dump(mode="json")
    if request.schema_file is not None:
        settings["schema"] = file_digest(Path(request.schema_file))
    if request.plans is not None:
        settings["plans"] = plans_digest(Path(request.plans))
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return {"data": file_digest(Path(request.data)), "settings": digest}


def _same(one: ModelCollection, other: ModelCollection) -> bool:
    """Whether both ask for the same models, trained or not."""
    places = [
        [(model.folder, model.seed, model.fold) for model in collection.models] for collection in (one, other)
    ]
    return one.request == other.request and one.folds == other.folds and places[0] == places[1]


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not (output / MODELS).is_file() and not (output / MANIFEST).is_file():
        raise ModelError(
            f"{output} is there and holds no models: choose another --output, or remove it yourself"
        )
    if not overwrite:
        raise ModelError(f"{output} holds models already: choose another --output, or pass --overwrite")


def _opened(work: Path, wanted: ModelCollection, resume: bool) -> ModelCollection:
    """The state to go on from, in a folder that is ours."""
    single = StageCache(work)
    started = read_collection(work) if work.is_dir() else None
    begun = work.is_dir() and all(entry.name.startswith(f".{MODELS}.") for entry in work.iterdir())
    if started is None and not begun and single.is_foreign():
        raise ConfigError(
            f"{work} is where this training would keep what it has done, and something else is there: "
            "choose another --output, or move it away yourself"
        )
    if resume and (single.request() is not None or (started is not None and not _same(started, wanted))):
        raise ConfigError(
            "--resume goes on with the same data, settings, seeds and folds; they differ from what "
            f"{work} was started with: leave out --resume to start anew"
        )
    if resume and started is not None:
        return started
    if work.is_dir():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    wanted.write(work)
    return wanted


def discard_unless_begun(work: Path) -> None:
    """Remove the folder of a request that was refused before any stage was made."""
    if not any(work.rglob("*.safetensors")):
        shutil.rmtree(work)


def _keep_codecs(stages: Path) -> None:
    """Let go of stages that no other seed or fold can use."""
    for stage in stages.glob("*"):
        if not stage.name.startswith("codecs-"):
            stage.unlink(missing_ok=True)


def _trained(output: Path, model: NamedModel) -> TrainedModel:
    manifest = read_manifest(output / model.folder)
    return TrainedModel(model, manifest.metrics, manifest.notes, dict(manifest.training.get("seconds", {})))
