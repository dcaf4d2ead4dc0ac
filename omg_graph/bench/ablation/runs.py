"""The runs of an ablation: a variant trained with one seed, in every fold, then measured; each once."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from omg_graph.bench.ablation.gradients import GradientProbe
from omg_graph.bench.ablation.variants import DEFAULT, Swap, Variant
from omg_graph.bench.paper.tables import DATASETS, Dataset
from omg_graph.data.columns import FillNonfinite
from omg_graph.evaluation.evaluate import METRICS, EvaluationRequest, evaluate
from omg_graph.evaluation.models import model_folders
from omg_graph.model.components import DEFAULT_COMPONENTS, Components
from omg_graph.model.folder import load_model, save_model
from omg_graph.training.config import TrainingConfig, load_config
from omg_graph.training.request import TrainingRequest
from omg_graph.training.train import Training

MODELS, EVALUATIONS, GRADIENTS, STAGE_FOLDER = "models", "evaluations", "gradients", "stages"
PROTOCOLS = ("random", "fixed")

Progress = Callable[[str, int, int], None]
"""(what is under way, done, of)."""


@dataclass(frozen=True)
class AblationRequest:
    """What to ablate on, and how much of it."""

    data: Path
    output: Path
    only: Sequence[str] = ()
    """Names of variants and swaps; all of them if empty."""
    seeds: int = 1
    first_seed: int = 0
    folds: int | None = None
    """Cross-validate by group over the training and validation rows."""
    missing_rate: float = 0.7
    mask_seeds: int = 5
    config: str | None = None
    epochs: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Settings that all variants share, nested as in a configuration file."""
    split: str | None = None
    patterns: Sequence[Sequence[str]] | None = None
    """What is observed under the fixed protocol; its own choice if None."""
    groups: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    """Name to fixed patterns that are averaged by themselves, beside the average of all."""
    metrics: str = "auto"
    draws: int = 0
    floors: str = "fast"
    """Which floors stand beside, measured once with the method itself."""
    drawn_floors: str | None = None
    """Which of them where masks are drawn, the same if None. Drawn masks of many modalities have hundreds of
    patterns, and a specialist each."""
    device: str = "auto"
    label: str | None = None
    fill_nonfinite: FillNonfinite | None = None
    text_encoder: Path | None = None
    keep_models: bool = True
    beside_paper: Dataset | None = None
    """The paper's data set whose figures stand beside; that of the recipe if None, and none without one."""

    @property
    def paper(self) -> Dataset | None:
        """Whose printed figures to show: data of other people are no CMU-MOSI, whatever they look like."""
        return self.beside_paper or next((name for name in DATASETS if name == self.config), None)

    def base(self) -> TrainingConfig:
        """The settings of the method itself."""
        return load_config(self.config, self._shared())

    def overrides_of(self, variant: Variant) -> dict[str, Any]:
        """The variant's settings, as changes to the named configuration."""
        merged = self._shared()
        for block, values in variant.changes(self.base()).items():
            merged[block] = {**merged.get(block, {}), **values}
        return merged | {"name": variant.name}

    def _shared(self) -> dict[str, Any]:
        shared = dict(self.overrides)
        if self.epochs is not None:
            shared["optimiser"] = {**shared.get("optimiser", {}), "epochs": self.epochs}
        return shared

    def digest_of(self, variant: Variant) -> str:
        """Equal for variants that come to the same settings, as ``top-k-10`` and the method itself."""
        settings = load_config(self.config, self.overrides_of(variant)).model_dump(mode="json")
        settings["name"] = ""
        settings["components"] = variant.components.names
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    def identity(self) -> dict[str, Any]:
        """What results of one folder must have in common."""
        digest = hashlib.sha256()
        with self.data.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return {
            "data": {"file": self.data.name, "sha256": digest.hexdigest()},
            "config": self.base().model_dump(mode="json"),
            "folds": self.folds,
            "missing_rate": self.missing_rate,
            "mask_seeds": self.mask_seeds,
            "split": self.split,
            "patterns": None if self.patterns is None else [list(shown) for shown in self.patterns],
            "metrics": self.metrics,
            "draws": self.draws,
            "label": self.label,
            "fill_nonfinite": self.fill_nonfinite,
        }


def seeds_of(request: AblationRequest) -> range:
    """The seeds that are asked for."""
    return range(request.first_seed, request.first_seed + request.seeds)


def model_folder(output: Path, name: str, seed: int) -> Path:
    """Where a variant's model lies, or its folds."""
    return output / MODELS / name / f"seed-{seed}"


def evaluation_folder(output: Path, name: str, seed: int, protocol: str) -> Path:
    """Where the results of a variant or swap lie."""
    return output / EVALUATIONS / name / f"seed-{seed}" / protocol


def gradient_files(request: AblationRequest, name: str, seed: int) -> list[Path]:
    """Where the cosines of a variant lie, a file for each fold."""
    return [request.output / GRADIENTS / name / f"{_run_name(seed, fold)}.json" for fold in _folds(request)]


def is_measured(output: Path, name: str, seed: int) -> bool:
    """Whether a variant or swap is finished for a seed."""
    return all(
        (evaluation_folder(output, name, seed, protocol) / METRICS).is_file() for protocol in PROTOCOLS
    )


def run_variant(
    request: AblationRequest, variant: Variant, seed: int, on_progress: Progress, swaps: Sequence[Swap] = ()
) -> bool:
    """Train and measure a variant with one seed, and its swaps; what is finished isn't touched.

    Args:
        request: what is ablated on.
        variant: what is trained.
        seed: its seed.
        on_progress: progress callback.
        swaps: what is swapped in it afterwards.

    Returns:
        Whether anything was left to do.
    """
    output = request.output
    waiting = [swap for swap in swaps if not is_measured(output, swap.name, seed)]
    if is_measured(output, variant.name, seed) and not waiting:
        return False
    folder = train_variant(request, variant, seed, on_progress)
    if not is_measured(output, variant.name, seed):
        floors = variant.name == DEFAULT
        _measure(request, folder, variant.name, seed, on_progress, variant.components, floors=floors)
    for swap in waiting:
        with _swapped(folder, swap, request.text_encoder) as changed:
            _measure(request, changed, swap.name, seed, on_progress, swap.components)
    if not request.keep_models:
        shutil.rmtree(folder)
    return True


def train_variant(request: AblationRequest, variant: Variant, seed: int, on_progress: Progress) -> Path:
    """Train a variant with one seed, in every fold; stages that others have made already are shared.

    A model that is there already isn't touched, and a training that was cut off goes on.

    Returns:
        The model's folder, or the one that holds its folds.
    """
    folder = model_folder(request.output, variant.name, seed)
    for fold, file in zip(_folds(request), gradient_files(request, variant.name, seed), strict=True):
        probe = GradientProbe(file) if variant.probed else None
        target = folder if fold is None else folder / f"fold-{fold}"
        what = f"{variant.name} {_run_name(seed, fold)}"
        training = Training(
            _training_request(request, variant, seed, fold, target),
            partial(_without_loss, on_progress, what),
            variant.components,
        )
        if training.finished is None and probe is not None:
            training.run.after_epoch = probe.after_epoch
        training.complete()
    return folder


def _training_request(
    request: AblationRequest, variant: Variant, seed: int, fold: int | None, folder: Path
) -> TrainingRequest:
    return TrainingRequest(
        data=str(request.data),
        output=str(folder),
        config=request.config,
        overrides=request.overrides_of(variant),
        seed=seed,
        device=request.device,
        label=request.label,
        fill_nonfinite=request.fill_nonfinite,
        text_encoder=None if request.text_encoder is None else str(request.text_encoder),
        folds=request.folds,
        fold=fold or 0,
        shared_stages=str(request.output / STAGE_FOLDER),
        resume=True,
    )


def _measure(
    request: AblationRequest,
    folder: Path,
    name: str,
    seed: int,
    on_progress: Progress,
    components: Components = DEFAULT_COMPONENTS,
    *,
    floors: bool = False,
) -> None:
    drawn = request.floors if request.drawn_floors is None else request.drawn_floors
    chosen = {"random": drawn, "fixed": request.floors}
    for protocol in PROTOCOLS:
        target = evaluation_folder(request.output, name, seed, protocol)
        if (target / METRICS).is_file():
            continue
        evaluate(
            EvaluationRequest(
                model=folder,
                data=request.data,
                output=target,
                split=request.split,
                protocol=protocol,
                rates=(request.missing_rate,) if protocol == "random" else None,
                patterns=request.patterns if protocol == "fixed" else None,
                seeds=request.mask_seeds,
                metrics=request.metrics,
                draws=request.draws,
                floors=chosen[protocol] if floors else "none",
                label=request.label,
                fill_nonfinite=request.fill_nonfinite,
                device=request.device,
                text_encoder=request.text_encoder,
                components=components,
            ),
            partial(_with_name, on_progress, f"{name} seed-{seed}: {protocol}"),
        )


@contextmanager
def _swapped(folder: Path, swap: Swap, text_encoder: Path | None) -> Iterator[Path]:
    """The trained method, or folds of it, with other components, in a folder for the time being."""
    with tempfile.TemporaryDirectory(prefix="omg-swap-") as temporary:
        changed = Path(temporary) / folder.name
        for part in model_folders(folder):
            model = load_model(part, text_encoder)
            config = model.config.model_copy(
                update={
                    "name": swap.name,
                    "planning": model.config.planning.model_copy(update=dict(swap.planning)),
                    "retrieval": model.config.retrieval.model_copy(update=dict(swap.retrieval)),
                }
            )
            save_model(
                replace(model, config=config, components=swap.components), changed / part.relative_to(folder)
            )
        yield changed


def _folds(request: AblationRequest) -> list[int | None]:
    return [None] if request.folds is None else list(range(request.folds))


def _run_name(seed: int, fold: int | None) -> str:
    return f"seed-{seed}" if fold is None else f"seed-{seed}-fold-{fold}"


def _without_loss(
    on_progress: Progress, name: str, what: str, done: int, of: int, _loss: float | None
) -> None:
    on_progress(f"{name}: {what}", done, of)


def _with_name(on_progress: Progress, name: str, what: str, done: int, of: int) -> None:
    on_progress(f"{name}: {what}", done, of)
