"""The one-line form: samples in, trajectories out, a whole data set in micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from omg_graph.batches import store_batch
from omg_graph.data.columns import FillNonfinite
from omg_graph.data.dataset import Split
from omg_graph.data.request import Request, Samples, read_request
from omg_graph.errors import ConfigError
from omg_graph.graph import build_graph
from omg_graph.model.model import Model
from omg_graph.record.artifacts import ArtifactStore, MemoryArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.review.review import Reviewer, ReviewRequest
from omg_graph.state import ReconstructionInput, Settings, checkpoint_serializer

MICRO_BATCH = 64
FULL_PATHS = 100
"""Samples whose whole denoising path is kept by default."""

EventCallback = Callable[[dict[str, Any]], None]


def prepare(
    model: Model,
    source: str | Path | Split | Samples,
    *,
    split: str | None = None,
    missing: Sequence[str] = (),
    limit: int | None = None,
    fill_nonfinite: FillNonfinite | None = None,
) -> Request:
    """Read and check what is to be reconstructed.

    Args:
        model: The model that will do it.
        source: A file, a split in memory, one sample or several as mappings.
        split: Which split of a file.
        missing: Modalities to hide although they are there.
        limit: Only the first so many samples.
        fill_nonfinite: What takes the place of single non-finite numbers, which are refused otherwise:
            zero, or the mean over the rows that the model was trained on.

    Raises:
        DataError: if the input can't be used.
    """
    return read_request(
        source,
        model.latent_space.specs,
        split=split,
        missing=missing,
        limit=limit,
        fill_nonfinite=fill_nonfinite,
        feature_means=model.latent_space.feature_means,
    )


def reconstruct(
    model: Model,
    source: str | Path | Split | Samples,
    *,
    split: str | None = None,
    missing: Sequence[str] = (),
    limit: int | None = None,
    settings: Settings | None = None,
    artifacts: ArtifactStore | None = None,
    on_event: EventCallback | None = None,
    review: Reviewer | None = None,
) -> list[Trajectory]:
    """Reconstruct what is missing, through the graph.

    Args:
        model: What ``load_model`` read.
        source: A file, a split in memory, one sample or several as mappings.
        split: Which split of a file; the only one, else test, else valid by default.
        missing: Modalities to hide although they are there (then errors are reported).
        limit: Only the first so many samples.
        settings: top_k, candidates, steps, draws, seed.
        artifacts: Where the trajectories' arrays are kept; give a store of your own to read them.
        on_event: Told what the nodes report while they run.
        review: Asked about each sample's plan after re-ranking.

    Returns:
        One trajectory for each sample, in order.

    Raises:
        OmgError: if the input can't be used, with what to do about it.
    """
    request = prepare(model, source, split=split, missing=missing, limit=limit)
    store = artifacts or MemoryArtifactStore()
    return list(stream(model, request, settings or Settings(), store, on_event, review=review))


def stream(
    model: Model,
    request: Request,
    settings: Settings,
    store: ArtifactStore,
    on_event: EventCallback | None = None,
    *,
    full_paths: int = FULL_PATHS,
    review: Reviewer | None = None,
) -> Iterator[Trajectory]:
    """Trajectories as they are made, micro-batch by micro-batch.

    Raises:
        ConfigError: if the settings ask for a review, and nobody is there to answer.
    """
    if settings.review_plan and review is None:
        raise ConfigError(
            "review_plan: expected somebody to answer: give review=..., or run the graph of build_graph "
            "with a checkpointer, and resume it"
        )
    # False: called inside a node of another graph, it leaves nothing in that graph's checkpoints
    saver = InMemorySaver(serde=checkpoint_serializer()) if review else False
    graph = build_graph(model, artifacts=store, checkpointer=saver)
    count = len(request.observed)
    # a batch keeps all of its paths or none, so one begins where the kept ones end
    starts = sorted({*range(0, count, MICRO_BATCH), full_paths} & set(range(count)))
    for number, (start, end) in enumerate(pairwise([*starts, count])):
        rows = np.arange(start, end)
        batch = store_batch(
            request.observed.take(rows), request.truth.take(rows), request.hidden[rows], store
        )
        context = settings.model_copy(
            update={
                "keep_path": settings.keep_path and start < full_paths,
                "review_plan": review is not None,
            }
        )
        result: list[Trajectory] = []
        given: ReconstructionInput | Command[Any] | None = ReconstructionInput(batch=batch)
        while given is not None:
            chunks: Iterator[Any] = graph.stream(
                given,
                {"configurable": {"thread_id": str(number)}} if review else None,
                context=context,
                stream_mode=["custom", "values"],
            )
            given = None
            for mode, chunk in chunks:
                if mode == "custom" and on_event is not None:
                    on_event({"batch": number, **chunk})
                if mode == "values":
                    result = chunk.get("trajectories", result)
                    if review is not None and "__interrupt__" in chunk:
                        asked = ReviewRequest.model_validate(chunk["__interrupt__"][0].value)
                        given = Command(resume=review(asked).model_dump())
        for trajectory in result:
            notes = (*request.notes, *trajectory.notes)
            yield trajectory.model_copy(update={"notes": notes})
