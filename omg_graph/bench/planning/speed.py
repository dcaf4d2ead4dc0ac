"""How long planning takes: psi, candidates, re-ranking, with embeddings of plan texts known or not."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from omg_graph import pipeline
from omg_graph.bench.planning.report import Speed
from omg_graph.data.dataset import Split
from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.model.model import Model
from omg_graph.planner.interface import StoredPlanner
from omg_graph.record.trajectory import CandidatePlan

BATCHES = (1, 64)
REPEATS = 15
OTHER_BATCHES, OTHER_REPEATS = (1,), 3
"""Of a planner that isn't distilled: each of its plans may cost seconds, or money."""
TIMING_SEED = -1
"""No run's: an answer kept from a measurement would be timed as if it took no time."""

Clock = Callable[[], float]
"""Seconds since some moment."""


def speeds(
    model: Model,
    split: Split,
    *,
    batches: tuple[int, ...] | None = None,
    repeats: int | None = None,
    cold: bool = False,
    clock: Clock = time.perf_counter,
) -> tuple[Speed, ...]:
    """Median milliseconds a sample of planning on the machine at hand.

    Args:
        model: Whose planner is timed.
        split: Samples, taken again from the start where a batch is larger.
        batches: Samples at once; 1 and 64 if None, 1 alone for a planner that isn't the model's own.
        repeats: Runs of each, over different samples where there are enough; 15 if None, 3 likewise.
        cold: Whether to time re-ranking once more with no plan text's embedding known.
        clock: What is read before and after; ``time.process_time`` with one thread leaves out what other
            programs took.
    """
    own = isinstance(model.planner, StoredPlanner)
    sizes = batches or (BATCHES if own else OTHER_BATCHES)
    turns = repeats or (REPEATS if own else OTHER_REPEATS)
    return tuple(_speed(model, split, batch, turns, cold, clock) for batch in sizes)


def _speed(model: Model, split: Split, batch: int, repeats: int, cold: bool, clock: Clock) -> Speed:
    count, candidates = len(split), model.config.planning.candidates
    parts = [
        split.take(
            (np.arange(batch) + turn * batch) % count
        )  # the same rows again are fine: ids decide draws
        for turn in range(repeats)
    ]
    seen = [pipeline.observe(model, part) for part in parts]
    drawn: list[list[list[CandidatePlan]]] = []
    if isinstance(model.planner, StoredPlanner):
        pipeline.propose(model, parts[0], seen[0], candidates, TIMING_SEED)  # to warm up: costs little

    def timed(work: Callable[[int], object]) -> float:
        times = []
        for turn in range(repeats):
            started = clock()
            work(turn)
            times.append(clock() - started)
        return 1000.0 * statistics.median(times) / batch

    def forgetful(turn: int) -> object:
        empty = replace(model, text_encoder=CachedTextEncoder(model.text_encoder.encoder))
        return pipeline.rerank(empty, drawn[turn], seen[turn].embedding)

    def draw(turn: int) -> None:
        drawn.append(pipeline.propose(model, parts[turn], seen[turn], candidates, TIMING_SEED))

    proposed = timed(draw)
    for plans, observation in zip(drawn, seen, strict=True):
        pipeline.rerank(model, plans, observation.embedding)  # from here on their texts are known
    if cold:
        forgetful(0)  # loads the encoder
    return Speed(
        batch=batch,
        observe=timed(lambda turn: pipeline.observe(model, parts[turn])),
        propose=proposed,
        rerank=timed(lambda turn: pipeline.rerank(model, drawn[turn], seen[turn].embedding)),
        rerank_cold=timed(forgetful) if cold else None,
    )
