"""What every stage of a training run reads: data, settings, and where finished stages are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from omg_graph.data.dataset import Split
from omg_graph.encoders.hidden_states import HiddenStates
from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.planner.choosing import SchemaChoice
from omg_graph.planner.schema import Plan
from omg_graph.training.config import TrainingConfig
from omg_graph.training.patterns import group_folds, pattern_pool
from omg_graph.training.workspace import Workspace

Progress = Callable[[str, int, int, float | None], None]
"""(what, done, of, loss)."""


def _silent(_what: str, _done: int, _of: int, _loss: float | None) -> None:
    return None


@dataclass
class RunData:
    """The data and settings of a run, which every stage reads.

    Each stage is made once: a stage that the workspace holds is read from there. What depends on
    training rows and is fed back to the executor for those rows is cross-fitted by group.
    """

    train: Split
    valid: Split
    choice: SchemaChoice
    valid_plans: tuple[Plan | None, ...]
    config: TrainingConfig
    seed: int
    text_encoder: CachedTextEncoder
    workspace: Workspace
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    progress: Progress = _silent
    source: str = "data"
    """What the entries' provenance calls the training data."""
    synthetic: bool = False
    """Whether the data are simulated."""
    feature_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    feature_units: dict[str, tuple[str, ...]] = field(default_factory=dict)
    hidden_states: HiddenStates | None = None
    """A large language model's, where psi and g are made of them."""

    def __post_init__(self) -> None:
        self.folds = group_folds(self.train.groups, self.config.planner.folds, self.seed)
        limit = self.config.planner.patterns
        self.train_pool = pattern_pool(self.train.mask(), self.train.ids, limit, self.seed)
        self.valid_pool = pattern_pool(self.valid.mask(), self.valid.ids, limit, self.seed)
        if self.config.missing_rate is not None:
            self.train_pool = self.train_pool.at_rate(self.config.missing_rate)
            self.valid_pool = self.valid_pool.at_rate(self.config.missing_rate)

    def told(self, what: str) -> Callable[[int, int, float], None]:
        """A callback for a fit that reports under one name."""
        return lambda done, of, loss: self.progress(what, done, of, loss)
