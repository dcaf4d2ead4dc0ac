"""The settings: three in which something else than what is observed decides, and the embedded default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from omg_graph.data.dataset import BoolArray
from omg_graph.errors import ConfigError
from omg_graph.simulator import ChannelGains, Content, SimulatorConfig

TARGET = "vision"
"""The modality that is reconstructed: a mixture of Gaussians given whatever is observed."""

Unseen = Callable[[Content], bool]


def _never(_content: Content) -> bool:
    return False


@dataclass(frozen=True)
class StudySetting:
    """A world, the contents that the training split lacks, and the modalities observed in the test."""

    name: str
    question: str
    """What it is there to find out, one sentence."""
    simulator: SimulatorConfig
    patterns: tuple[tuple[str, ...], ...]
    """What is observed; ``TARGET`` is in none of them."""
    unseen: Unseen = _never
    """Contents that no training clip has."""
    learned_later: bool = False
    """Whether the knowledge base is given clips of unseen contents after training."""
    composed: bool = False
    """Whether training clips have every part of an unseen content: a posterior that knows no more of the
    prior than these parts then stands beside."""
    taught: bool = False
    """Whether a variant that is trained on true plans is trained too: where plans are what matters."""
    speakers: dict[str, int] = field(
        default_factory=lambda: {"train": 120, "valid": 20, "later": 40, "test": 80}
    )
    """Split to how many; ``later`` are the clips for the knowledge base alone. Without ``train`` nothing is
    trained: the embedded default is measured."""
    first_speaker: int = 0
    clips: int = 10
    """Of each speaker."""

    def unseen_contents(self, contents: tuple[Content, ...]) -> BoolArray:
        """(contents,): which of them no training clip has."""
        return np.array([self.unseen(content) for content in contents], dtype=np.bool_)

    def smaller(self, speakers: dict[str, int], clips: int) -> StudySetting:
        """The same world with other numbers of clips."""
        return replace(self, speakers=speakers, clips=clips)


TRAINING: dict[str, Any] = {
    "name": "study",
    "autoencoder": {"variance": 0.99, "max_width": 48},
    "encoder": {"hidden": 128, "dropout": 0.1},
    "planner": {"folds": 2},
    "retriever": {"epochs": 4},
    "executor": {"width": 64, "dropout": 0.05, "sample_steps": 12},
    "optimiser": {
        "epochs": 40,
        "batch_size": 128,
        "learning_rate": 2e-3,
        "patience": 15,
    },
}
"""Changes to the defaults of ``omg train``: sizes, and the executor's epochs, for some 1,200 clips and one
core. psi and the planner train as long as they do there."""


def _gains(**changes: float) -> ChannelGains:
    """A channel that shows nothing but its own noise, with changes."""
    quiet = dict.fromkeys(ChannelGains.model_fields, 0.0) | {"own": 0.3, "noise": 0.5}
    return ChannelGains(**(quiet | changes))


def _meaning_decides() -> StudySetting:
    """The voice tells how strong the sentiment is and never its sign: the face has a mode for each."""
    return StudySetting(
        name="modes",
        question="The content selects one of the modes of the missing modality: does a plan choose the mode?",
        simulator=SimulatorConfig(
            entities=("story", "acting", "music"),
            audio_features=12,
            vision_features=12,
            audio=_gains(strength=1.5, strength_habit=0.3, common=0.5),
            vision=_gains(polarity=2.5, strength=1.0, polarity_habit=0.2, entity=0.5, common=0.5),
        ),
        patterns=(("audio",), ("text", "audio")),
        taught=True,
    )


DETAILS = 120
LATER_DETAILS = 40
"""So many of them come up after training only, in the knowledge base."""


def _rare_details() -> StudySetting:
    """Every detail has a sound and a look of its own, and nothing connects the two but having met them."""
    return StudySetting(
        name="rare-details",
        question="Rare details exist only in the knowledge base: does evidence bring them into the result?",
        simulator=SimulatorConfig(
            entities=("story", "music"),
            actions=("praises", "criticises"),
            details=DETAILS,
            audio_features=12,
            vision_features=12,
            common_factors=0,
            common_habit=0.0,
            audio=_gains(polarity=0.4, detail=1.2),
            vision=_gains(polarity=0.8, detail=1.2),
        ),
        patterns=(("audio",), ("text", "audio")),
        unseen=lambda content: (content.detail or 0) >= DETAILS - LATER_DETAILS,
        learned_later=True,
    )


ENTITIES = ("whole", "story", "acting", "characters", "dialogue", "ending", "visuals", "music")
ACTIONS = ("praises", "criticises", "compares", "describes")


def _new_combination(content: Content) -> bool:
    """One entity in four for each action, others each time: all parts are met, these wholes never."""
    return (ENTITIES.index(content.entity) + ACTIONS.index(content.action)) % 4 == 0


def _compositions() -> StudySetting:
    """Entity, action and sentiment each add a pattern of their own to the face."""
    return StudySetting(
        name="compositions",
        question="Parts are known, their combination isn't: does the model combine them or copy an entry?",
        simulator=SimulatorConfig(
            entities=ENTITIES,
            actions=ACTIONS,
            audio_features=12,
            vision_features=12,
            audio=_gains(polarity=0.5, entity=0.3, common=0.3),
            vision=_gains(polarity=0.8, entity=1.0, action=1.0, common=0.3),
        ),
        patterns=(("text",), ("text", "audio")),
        unseen=_new_combination,
        composed=True,
    )


def _embedded() -> StudySetting:
    """The world that the embedded default was trained in, and speakers whom it never met."""
    return StudySetting(
        name="embedded",
        question="How far is the embedded default model from the best possible result?",
        simulator=SimulatorConfig(),
        patterns=(("audio",), ("text",), ("text", "audio")),
        speakers={"test": 40},
        first_speaker=10_000,
    )


SETTINGS: dict[str, StudySetting] = {
    setting.name: setting for setting in (_meaning_decides(), _rare_details(), _compositions(), _embedded())
}


def settings_named(names: tuple[str, ...]) -> list[StudySetting]:
    """The settings asked for, all of them when none is named.

    Raises:
        ConfigError: if there is none of that name.
    """
    for name in names:
        if name not in SETTINGS:
            raise ConfigError(f"--only takes {', '.join(SETTINGS)}; {name!r} came")
    return [setting for name, setting in SETTINGS.items() if not names or name in names]
