"""The trained floors in two sets, found by ``omg evaluate --floors`` as entry points ``omg_graph.floors``."""

from __future__ import annotations

from omg_graph.bench.baselines.completing import (
    autoencoder,
    cascaded_residual_autoencoder,
    masked_mlp,
    modality_dropout,
)
from omg_graph.bench.baselines.correlation import CCAFill, deep_cca, deep_cca_autoencoders
from omg_graph.bench.baselines.fitted import FittedCache, Fitting, OnProgress
from omg_graph.bench.baselines.machines import available
from omg_graph.bench.baselines.networks import NetworkSettings
from omg_graph.bench.baselines.specialist import PatternLogistic, Specialist
from omg_graph.errors import ConfigError
from omg_graph.evaluation.floors import Floor
from omg_graph.evaluation.tables import LabelTarget


class NetworkFloors:
    """``--floors networks``: networks of which one serves every pattern; one cache for a whole evaluation."""

    def __init__(self) -> None:
        self.cache = FittedCache()

    def floors(self, target: LabelTarget, seed: int, on_progress: OnProgress) -> list[Floor]:
        """The floors, each to be trained with ``seed`` where the cache doesn't hold it."""
        return shared_networks(target, Fitting(seed, self.cache, on_progress))

    def note(self) -> str:
        """How many fits were made, and how many read."""
        return self.cache.note


class TrainedFloors(NetworkFloors):
    """``--floors all``: those networks, and fits for each pattern.

    Raises:
        ConfigError: if scikit-learn isn't installed.
    """

    def __init__(self) -> None:
        super().__init__()
        if not available():
            raise ConfigError(
                "--floors all: expected scikit-learn, it isn't installed: pip install 'omg-graph[bench]', or "
                "take --floors networks"
            )

    def floors(self, target: LabelTarget, seed: int, on_progress: OnProgress) -> list[Floor]:
        """As above."""
        return trained_floors(target, Fitting(seed, self.cache, on_progress))


def shared_networks(target: LabelTarget, fitting: Fitting) -> list[Floor]:
    """Networks of which one serves every pattern, so that many patterns cost no more than one."""
    settings, of_labels = NetworkSettings(), NetworkSettings(hidden=256, dropout=0.5)
    of_label = [] if target.family == "none" else [modality_dropout(of_labels, fitting)]
    return [masked_mlp(settings, of_labels, fitting), *of_label]


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
        autoencoder(settings, fitting),
        cascaded_residual_autoencoder(settings, fitting),
        CCAFill(fitting),
        deep_cca(settings, fitting),
        deep_cca_autoencoders(settings, fitting),
    ]
