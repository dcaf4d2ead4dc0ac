"""Which floors an evaluation measures, and how often each of them is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

from omg_graph.bench.baselines.autoencoders import cascaded_residual_autoencoder, plain_autoencoder
from omg_graph.bench.baselines.correlation import CCAFill, deep_cca, deep_cca_autoencoders
from omg_graph.bench.baselines.fitted import Fitting
from omg_graph.bench.baselines.library import available
from omg_graph.bench.baselines.masked import MaskedMLP, modality_dropout
from omg_graph.bench.baselines.networks import NetworkSettings
from omg_graph.bench.baselines.specialist import PatternLogistic, Specialist
from omg_graph.errors import ConfigError
from omg_graph.evaluation.floors import (
    EvidenceFill,
    Floor,
    GaussianFill,
    MeanFill,
    Neighbours,
    PatternRidge,
    floors_for,
)
from omg_graph.evaluation.models import model_folders
from omg_graph.evaluation.runner import ANCHOR, METHOD
from omg_graph.evaluation.targets import LabelTarget
from omg_graph.model.model import Model
from omg_graph.seeding import derived_seed

Choice = Literal["fast", "networks", "all", "none"]
"""In closed form; beside them networks that serve every pattern; everything, fits for each pattern too."""
CHOICES: tuple[str, ...] = get_args(Choice)


def check_floors(choice: str, seeds: int, models: Mapping[str, Path]) -> None:
    """Refuse a choice that makes no sense, before anything is computed.

    Raises:
        ConfigError: if the choice is unknown, an extra is missing, or a name is taken.
        ModelError: if one of the models isn't one.
    """
    if choice not in CHOICES:
        raise ConfigError(f"--floors: one of {', '.join(CHOICES)} was expected, {choice!r} came")
    if choice == "all" and not available():
        raise ConfigError(
            "--floors all: scikit-learn was expected: pip install 'omg-graph[baselines]', or --floors fast"
        )
    if seeds < 1:
        raise ConfigError(f"--floor-seeds: 1 or more was expected, {seeds} came")
    for name, folder in models.items():
        if name in _taken() or name.startswith("constant ("):
            raise ConfigError(f"--floor-model {name}={folder}: another method has that name: take another")
        model_folders(folder)


def chosen_floors(
    model: Model, target: LabelTarget, choice: str, seeds: int, fitting: Fitting
) -> Iterator[tuple[Floor, int | None]]:
    """Floors with the number of their training, None for those that nothing random is in.

    Args:
        model: whose latent space they live in.
        target: what labels mean.
        choice: ``fast``, ``networks``, ``all`` or ``none``.
        seeds: how often each trained floor is trained.
        fitting: the model's seed, the cache, and who is told.
    """
    if choice == "none":
        return
    for floor in floors_for(model, target):
        yield floor, None
    if choice == "fast":
        return
    for number in range(seeds):
        seeded = replace(fitting, seed=derived_seed(fitting.seed, "floor", number))
        for floor in (shared_networks if choice == "networks" else trained_floors)(target, seeded):
            yield floor, number


def shared_networks(target: LabelTarget, fitting: Fitting) -> list[Floor]:
    """Networks of which one serves every pattern, so that many patterns cost no more than one."""
    settings, of_labels = NetworkSettings(), NetworkSettings(hidden=256, dropout=0.5)
    of_label = [] if target.family == "none" else [modality_dropout(of_labels, fitting)]
    return [MaskedMLP(settings, of_labels, fitting), *of_label]


def trained_floors(target: LabelTarget, fitting: Fitting) -> list[Floor]:
    """Networks for all patterns, specialists, and the cheap methods of the paper's list."""
    settings = NetworkSettings()
    of_label: list[Floor] = []
    if target.family not in ("none", "number"):  # a number whose sign says nothing has no classes
        of_label.append(PatternLogistic(fitting))
    return [
        *shared_networks(target, fitting),
        *of_label,
        Specialist(fitting),
        plain_autoencoder(settings, fitting),
        cascaded_residual_autoencoder(settings, fitting),
        CCAFill(fitting),
        deep_cca(settings, fitting),
        deep_cca_autoencoders(settings, fitting),
    ]


def _taken() -> set[str]:
    """Names of the model and of all floors but constants."""
    closed = (MeanFill, Neighbours, PatternRidge, GaussianFill, EvidenceFill)
    trained = trained_floors(LabelTarget("mosi"), Fitting())
    return {METHOD, ANCHOR} | {kind.name for kind in closed} | {floor.name for floor in trained}
