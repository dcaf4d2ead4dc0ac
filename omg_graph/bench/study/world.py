"""The clips of one setting and seed: training splits on file, and test clips whose posterior is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from omg_graph.bench.study.settings import StudySetting
from omg_graph.data.dataset import BoolArray, IntArray, Split
from omg_graph.simulator import AffectSimulator, SimulatedSplit
from omg_graph.simulator.content import Float64Array

Embed = Callable[[list[str]], "np.ndarray[tuple[int, ...], np.dtype[np.floating]]"]


@dataclass(frozen=True)
class World:
    """A simulator with the clips of one seed."""

    setting: StudySetting
    simulator: AffectSimulator
    train: Split | None
    """None where the embedded default is measured."""
    valid: Split | None
    later: Split | None
    """Clips of unseen contents that the knowledge base is given after training."""
    test: Split
    contents: IntArray
    """(test clips,): what each of them really says, a row of ``simulator.contents``."""
    unseen: BoolArray
    """(test clips,): whether no training clip says it."""
    trained: IntArray
    """(training clips,): what each of them really says."""
    entries: tuple[SimulatedSplit, ...]
    """The clips that end up in the knowledge base, with what each of them really says."""


def make_world(setting: StudySetting, simulator: AffectSimulator, seed: int) -> World:
    """Draws all splits, each of speakers of its own.

    Training and validation clips say nothing that is unseen, those that come later nothing else. Test clips
    are drawn from the world's own prior, whatever of it is unseen.
    """
    prior = simulator.contents.prior
    unseen = setting.unseen_contents(simulator.contents.items)
    known = _within(prior, ~unseen)
    first = setting.first_speaker
    drawn: dict[str, SimulatedSplit] = {}
    priors = {"train": known, "valid": known, "test": prior}
    if setting.learned_later:
        priors["later"] = _within(prior, unseen)
    for name, count in setting.speakers.items():
        if name in priors:
            drawn[name] = simulator.sample(
                count, setting.clips, seed, name=name, first_group=first, prior=priors[name]
            )
        first += count
    test = drawn["test"]
    train, valid, later = (
        drawn[name].split if name in drawn else None for name in ("train", "valid", "later")
    )
    return World(
        setting,
        simulator,
        train,
        valid,
        later,
        test.split,
        test.contents,
        unseen[test.contents],
        drawn["train"].contents if "train" in drawn else test.contents[:0],
        tuple(drawn[name] for name in ("train", "later") if name in drawn),
    )


def _within(prior: Float64Array, allowed: BoolArray) -> Float64Array:
    kept = np.where(allowed, prior, 0.0)
    return np.asarray(kept / kept.sum())
