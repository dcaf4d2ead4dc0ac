"""A model as a folder: JSON, safetensors, and the libraries' own formats; whole, or not a model."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from omg_graph.codecs.latents import LatentSpace
from omg_graph.encoders.hidden_states import ThinkerTextEncoder
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.encoders.text import (
    CachedTextEncoder,
    SentenceEncoder,
    TextEncoder,
    file_sha256,
    locate_text_encoder,
)
from omg_graph.errors import KnowledgeBaseError, ModelError
from omg_graph.executor.diffusion import make_scheduler
from omg_graph.executor.executor import Executor
from omg_graph.model.components import DEFAULT_COMPONENTS, Components
from omg_graph.model.config import FORMAT_VERSION, Manifest, ModelConfig
from omg_graph.model.model import Model, components_fingerprint, default_model_folder
from omg_graph.model.planners import load_planner
from omg_graph.model.thinkers import recorded_states
from omg_graph.planner.interface import StoredPlanner
from omg_graph.predictor.label_regression import LabelRegression, WordEncoder
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.query import LiteralQueryProjection, QueryProjection
from omg_graph.telemetry import step

MANIFEST = "manifest.json"
CONFIG = "model.json"
CODECS = "codecs.safetensors"
ENCODER = "observation_encoder.safetensors"
PROJECTION = "query_projection.safetensors"
EXECUTOR = "executor.safetensors"
READER = "label_reader.safetensors"
WORDS = "words.json"
DENOISER = "denoiser"
SCHEDULER = "scheduler"
PLANNER = "planner"
KNOWLEDGE_BASE = "knowledge_base"
TEXT_TABLE = "plan_texts.safetensors"
TEXT_LIST = "plan_texts.json"
TEXT_CENTRE = "text_centre.safetensors"
_log = logging.getLogger(__name__)

REQUIRED = (CONFIG, CODECS, ENCODER, EXECUTOR)


def save_model(model: Model, folder: Path) -> Manifest:
    """Write a model into an empty folder, the manifest last.

    The caller makes the folder appear whole (a rename); the manifest's hashes tell afterwards.
    """
    if not isinstance(model.planner, StoredPlanner):
        raise ModelError(
            f"expected a planner that can be stored with its model, got {model.planner.name}: save the model "
            "with its own planner"
        )
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.model_copy(
        update={"planner": model.planner.name, "components": model.components.names}
    )
    _write_json(folder / CONFIG, config.model_dump(mode="json"))
    _save_weights(model.latent_space.state(), folder / CODECS)
    _save_weights(model.encoder.state_dict(), folder / ENCODER)
    _save_weights(model.projection.state_dict(), folder / PROJECTION)
    model.executor.denoiser.save_pretrained(folder / DENOISER)
    _forget_place(folder / DENOISER / "config.json")
    steps = model.config.executor
    scheduler = make_scheduler(steps.sampler, steps.train_steps, steps.prediction)
    scheduler.save_pretrained(folder / SCHEDULER)
    rest = {k: v for k, v in model.executor.state_dict().items() if not k.startswith("denoiser.")}
    _save_weights(rest, folder / EXECUTOR)
    if model.label_regression is not None:
        _save_weights(model.label_regression.kernel.state_dict(), folder / READER)
        _write_json(folder / WORDS, model.label_regression.words.model_dump(mode="json"))
    model.planner.save(folder / PLANNER)
    model.knowledge_base.save(folder / KNOWLEDGE_BASE)
    texts = sorted(model.text_encoder.table)
    _write_json(folder / TEXT_LIST, texts)
    # half precision: a cosine needs no more, and the table is the largest part of a small model
    rows = model.text_encoder.embed(texts).astype(np.float16)
    save_file({"embeddings": torch.from_numpy(rows)}, folder / TEXT_TABLE)
    if isinstance(model.text_encoder.encoder, ThinkerTextEncoder):
        save_file({"centre": torch.from_numpy(model.text_encoder.encoder.centre)}, folder / TEXT_CENTRE)
    files = {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    manifest = model.manifest.model_copy(
        update={
            "files": files,
            "fingerprint": hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest(),
            "components": components_fingerprint(
                model.latent_space, model.encoder, model.config.text_encoder
            ),
        }
    )
    manifest = manifest.sealed()
    _write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a model folder.

    Raises:
        ModelError: if there is none, or it can't be read; a training that was cut off is named.
    """
    path = folder / MANIFEST
    if not path.is_file():
        unfinished = folder.with_name(folder.name + ".training")
        if unfinished.is_dir():
            raise ModelError(
                f"{folder} isn't a model yet: its training was cut off; "
                f"go on with omg train ... --output {folder} --resume"
            )
        what = "there is no such folder" if not folder.exists() else f"it has no {MANIFEST}"
        raise ModelError(
            f"{folder} isn't a model: {what}; give a folder that omg train wrote, or leave out --model for "
            "the embedded default"
        )
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, ValueError, OSError) as error:
        raise ModelError(f"{path} can't be read: train the model again, or copy the folder whole") from error
    if manifest.format_version != FORMAT_VERSION:
        raise ModelError(
            f"{folder} has format version {manifest.format_version}, this program reads {FORMAT_VERSION}: "
            "train the model again, or use the version that wrote it"
        )
    if manifest.checksum != manifest.expected_checksum():
        raise ModelError(f"{folder} is damaged: {MANIFEST} isn't what was saved; copy the model folder again")
    return manifest


def verify(folder: Path, manifest: Manifest) -> None:
    """Check every file of a model against the manifest.

    Raises:
        ModelError: if a file is missing, changed, or lies outside the folder.
    """
    for name, expected in manifest.files.items():
        path = folder / name
        if ".." in Path(name).parts or Path(name).is_absolute() or not path.is_file():
            raise ModelError(f"{folder} is incomplete: {name} is missing; copy the model folder whole")
        if file_sha256(path) != expected:
            raise ModelError(f"{folder} is damaged: {name} isn't what was saved; copy the model folder again")
    missing = [name for name in REQUIRED if name not in manifest.files]
    if missing:
        raise ModelError(f"{folder} is incomplete: its manifest doesn't name {', '.join(missing)}")


def load_model(
    folder: str | Path | None = None,
    text_encoder: str | Path | None = None,
    components: Components = DEFAULT_COMPONENTS,
) -> Model:
    """Read a model folder, checking every byte.

    Args:
        folder: What ``omg train`` wrote; the embedded default if None.
        text_encoder: Folder of the text encoder's weights, or of the thinker that a model was trained with,
            if they aren't in the default place.
        components: What the model was trained with, where an ablation replaced a part of the method.

    Raises:
        ModelError: if the folder isn't a whole model, or was trained with other components.
        EncoderError: if the text encoder isn't to be found.
    """
    folder = default_model_folder() if folder is None else Path(folder)
    manifest = read_manifest(folder)
    try:
        with step("model", files=len(manifest.files)):
            verify(folder, manifest)
            model = _load(folder, manifest, text_encoder, components)
        _log.info("model %s, fingerprint %s, from %s", model.config.name, manifest.fingerprint[:12], folder)
        return model
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder} can't be loaded ({reason}): train the model again") from error


def _load(folder: Path, manifest: Manifest, text_encoder: str | Path | None, components: Components) -> Model:
    config = ModelConfig.model_validate_json((folder / CONFIG).read_text(encoding="utf-8"))
    if config.components != components.names:
        raise ModelError(
            f"{folder}: expected the components that it was trained with ({_listed(config.components)}), got "
            f"{_listed(components.names)}: give them to load_model, or evaluate it with omg ablate"
        )
    latent_space = LatentSpace.load(config.modalities, load_file(folder / CODECS))
    encoder = ObservationEncoder(config.encoder)
    encoder.load_state_dict(load_file(folder / ENCODER))
    executor = Executor(
        config.executor,
        config.modalities,
        config.latent_widths,
        config.shared_width,
        components.denoiser,
        latent_space.tokens,
    )
    executor.denoiser = components.denoiser.from_folder(folder / DENOISER)
    if config.task is not None:
        executor.add_task(config.task)
    weights = {_placed(name): value for name, value in load_file(folder / EXECUTOR).items()}
    missing, unexpected = executor.load_state_dict(weights, strict=False)
    # version 0.1.0 knew no guidance: its weights stay at 1
    if unexpected or any(name != "guidance_weights" and not name.startswith("denoiser.") for name in missing):
        raise ValueError(f"{EXECUTOR} doesn't fit {CONFIG}")
    label_regression = None
    if config.task is not None and config.task.reading:
        words = WordEncoder.model_validate_json((folder / WORDS).read_text(encoding="utf-8"))
        label_regression = LabelRegression.untrained(config.latent_widths, config.task, words)
        label_regression.kernel.load_state_dict(load_file(folder / READER))
    projection = build_projection(config)
    projection.load_state_dict(load_file(folder / PROJECTION))
    planner = load_planner(config.planner, folder / PLANNER)
    try:
        kb = KnowledgeBase.load(folder / KNOWLEDGE_BASE)
    except KnowledgeBaseError as error:
        raise ModelError(f"{folder}: {error}") from error
    hidden_states = None
    text_encoder_of_model: TextEncoder
    if config.thinker is None:
        encoder_folder = locate_text_encoder(config.text_encoder, text_encoder)
        text_encoder_of_model = SentenceEncoder(encoder_folder, config.text_encoder, config.shared_width)
    else:
        hidden_states = recorded_states(config.thinker, text_encoder)
        centre = load_file(folder / TEXT_CENTRE)["centre"].numpy()
        text_encoder_of_model = ThinkerTextEncoder(hidden_states, centre)
    text = CachedTextEncoder(text_encoder_of_model)
    texts = json.loads((folder / TEXT_LIST).read_text(encoding="utf-8"))
    rows = load_file(folder / TEXT_TABLE)["embeddings"].float()
    text.remember(texts, torch.nn.functional.normalize(rows, dim=-1).numpy())
    for module in (encoder, executor, projection):
        module.eval().requires_grad_(False)
    return Model(
        config=config,
        manifest=manifest,
        latent_space=latent_space,
        text_encoder=text,
        encoder=encoder,
        schema=planner.schema,
        planner=planner,
        projection=projection,
        executor=executor,
        label_regression=label_regression,
        hidden_states=hidden_states,
        knowledge_base=kb,
        components=components,
    )


def _listed(components: dict[str, str]) -> str:
    return ", ".join(f"{part} {name}" for part, name in components.items()) or "the method's own"


def _placed(name: str) -> str:
    """A weight's current name: folders of version 0.1 keep the priors beside the anchor."""
    part, _, rest = name.partition(".")
    places = {"gaussian": "planned.gaussian", "planned": "planned", "kernel": "kernel.regression"}
    return f"anchor.priors.{places[part]}.{rest}" if part in places else name


def build_projection(config: ModelConfig) -> QueryProjection | LiteralQueryProjection:
    """The query projection that a configuration asks for, with its first weights."""
    if config.retrieval.query == "literal":
        return LiteralQueryProjection(config.shared_width, config.shared_width, config.shared_width)
    views = [*config.latent_widths.values(), *[config.shared_width] * config.retrieval.plan_view]
    return QueryProjection(config.shared_width, config.shared_width, views)


def versions() -> dict[str, str]:
    """Versions of what a model's results depend on."""
    packages = ("omg-graph", "torch", "transformers", "diffusers", "chromadb", "langgraph", "numpy")
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """The machine in a few words."""
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    cores = str(os.cpu_count() or "unknown")
    return {"system": platform.system(), "processor": _processor(), "cores": cores, "gpu": gpu}


def _processor() -> str:
    """The CPU's model, where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _save_weights(weights: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}, path)


def _forget_place(path: Path) -> None:
    """Diffusers notes where a network was loaded from: another machine's path, and other bytes."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    _write_json(path, config)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
