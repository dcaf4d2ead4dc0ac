"""What if? A finished run, taken up again at its plan or its evidence with something changed.

Nothing before the fork is computed again: no planner is asked. A fork starts from a trajectory and its arrays
(``fork_run``), or from the checkpoints of a thread (``fork_thread``), where LangGraph keeps the old run too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.pregel.protocol import PregelProtocol

from omg_graph import pipeline
from omg_graph.api import prepare
from omg_graph.batches import OBSERVATION as STATE_OBSERVATION
from omg_graph.batches import load_batch, store_batch
from omg_graph.errors import ConfigError, DataError
from omg_graph.graph import build_graph
from omg_graph.model.model import Model
from omg_graph.record.artifacts import ArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.review.edits import OBSERVATION, forgotten
from omg_graph.state import DEFAULT_SETTINGS, Edit, Reviewing, Settings, checkpoint_serializer

Thread = PregelProtocol[Any, Any, Any, Any]
"""A graph with a checkpointer, here or on a server."""

BEFORE_REVIEW, BEFORE_RETRIEVER = "rerank", "review"
"""Nodes that a fork pretends to have just run."""

_THREAD: RunnableConfig = {"configurable": {"thread_id": "fork"}}


def fork_run(
    model: Model,
    trajectory: Trajectory,
    *,
    artifacts: ArtifactStore,
    constraints: Mapping[str, str] | None = None,
    pick: int | None = None,
    drop_evidence: Sequence[str] = (),
    settings: Settings | None = None,
) -> Trajectory:
    """Run one sample on from its plan or its evidence, with something changed.

    Args:
        model: The model that made the trajectory.
        trajectory: Of a run whose settings had ``keep_path``: its input is then among its arrays.
        artifacts: Where those arrays are; the new ones go there too.
        constraints: Values to put into the plan, by the schema's fields.
        pick: Number of another candidate to take, or to put them into, as the trace shows them: from 1.
        drop_evidence: Ids of entries to leave out. With a new plan: of those found for it.
        settings: Those of the run; the seed is the trajectory's own.

    Returns:
        The trajectory as it would have been.

    Raises:
        ConfigError: if nothing is to be changed.
        DataError: if the trajectory isn't finished, is of another model, or came without its input.
        OmgError: if there is no such field, value, candidate or entry.
    """
    edit = _edit(constraints, pick, drop_evidence)
    saver = InMemorySaver(serde=checkpoint_serializer())
    graph = build_graph(model, artifacts=artifacts, checkpointer=saver)
    graph.update_state(_THREAD, _state(model, trajectory, artifacts, edit), as_node=_entry(edit))
    # the person has chosen already
    changes = {"seed": trajectory.seed, "review_plan": False}
    context = (settings or DEFAULT_SETTINGS).model_copy(update=changes)
    forked: Trajectory = graph.invoke(None, _THREAD, context=context)["trajectories"][0]
    return forked


async def afork_run(
    model: Model,
    trajectory: Trajectory,
    *,
    artifacts: ArtifactStore,
    constraints: Mapping[str, str] | None = None,
    pick: int | None = None,
    drop_evidence: Sequence[str] = (),
    settings: Settings | None = None,
) -> Trajectory:
    """``fork_run`` for async code: the work is done in a thread."""
    return await asyncio.to_thread(
        fork_run,
        model,
        trajectory,
        artifacts=artifacts,
        constraints=constraints,
        pick=pick,
        drop_evidence=drop_evidence,
        settings=settings,
    )


def fork_thread(
    graph: Thread,
    config: RunnableConfig,
    *,
    constraints: Mapping[str, str] | None = None,
    pick: int | None = None,
    drop_evidence: Sequence[str] = (),
    sample: str | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """Run a thread on from its last plan or evidence, with something changed.

    Args:
        graph: What ``build_graph`` made, with a checkpointer, or a RemoteGraph of one.
        config: Which thread, as for ``invoke``.
        constraints: Values to put into the plan, by the schema's fields.
        pick: Number of another candidate to take, or to put them into, as the trace shows them: from 1.
        drop_evidence: Ids of entries to leave out. With a new plan: of those found for it.
        sample: The id of the sample concerned; all samples of the thread if None.
        settings: Of the run; LangGraph keeps none.

    Returns:
        What ``invoke`` returns. The thread's history keeps the old run beside the new one.

    Raises:
        ConfigError: if nothing is to be changed, or the thread holds no run that has come so far.
        OmgError: if there is no such field, value, candidate or entry.
    """
    edit = _edit(constraints, pick, drop_evidence, sample)
    for snapshot in graph.get_state_history(config):
        if snapshot.next == _waiting(edit):
            forked = graph.update_state(snapshot.config, _update(edit), as_node=_entry(edit))
            return dict(graph.invoke(None, forked, context=_context(settings)))
    raise _nowhere(edit, config)


async def afork_thread(
    graph: Thread,
    config: RunnableConfig,
    *,
    constraints: Mapping[str, str] | None = None,
    pick: int | None = None,
    drop_evidence: Sequence[str] = (),
    sample: str | None = None,
    settings: Settings | None = None,
) -> dict[str, Any]:
    """``fork_thread`` for async code."""
    edit = _edit(constraints, pick, drop_evidence, sample)
    async for snapshot in graph.aget_state_history(config):
        if snapshot.next == _waiting(edit):
            forked = await graph.aupdate_state(snapshot.config, _update(edit), as_node=_entry(edit))
            return dict(await graph.ainvoke(None, forked, context=_context(settings)))
    raise _nowhere(edit, config)


def _edit(
    constraints: Mapping[str, str] | None,
    pick: int | None,
    drop_evidence: Sequence[str],
    sample: str | None = None,
) -> Edit:
    edit = Edit(id=sample, pick=pick, set=dict(constraints or {}), drop_evidence=tuple(drop_evidence))
    if not edit.changes_plan and not edit.drop_evidence:
        raise ConfigError("expected a change: set a field of the plan, pick a candidate, or drop an entry")
    return edit


def _entry(edit: Edit) -> str:
    return BEFORE_REVIEW if edit.changes_plan else BEFORE_RETRIEVER


def _waiting(edit: Edit) -> tuple[str]:
    """What comes next at the checkpoint that a fork starts from: it has plan or evidence, and no more."""
    return ("retriever",) if edit.changes_plan else ("executor",)


def _update(edit: Edit) -> dict[str, Any]:
    return {"edits": [edit.model_dump(mode="json")]}


def _context(settings: Settings | None) -> dict[str, Any]:
    """The settings as JSON, which a server takes too; the person has chosen already."""
    return (settings or DEFAULT_SETTINGS).model_dump(
        mode="json", exclude={"review_plan"}, exclude_defaults=True
    )


def _nowhere(edit: Edit, config: RunnableConfig) -> ConfigError:
    what = "a plan" if edit.changes_plan else "evidence"
    thread = config.get("configurable", {}).get("thread_id")
    return ConfigError(
        f"thread {thread!r}: a run that has {what} was expected in its checkpoints, there is none: run it"
    )


def _state(model: Model, trajectory: Trajectory, artifacts: ArtifactStore, edit: Edit) -> dict[str, Any]:
    """The state in which a graph would have been when the trajectory was at the fork."""
    if trajectory.model != model.manifest.fingerprint:
        raise DataError(
            f"sample {trajectory.id!r}: expected a trajectory of model {model.manifest.fingerprint[:12]}, "
            f"it is of {trajectory.model[:12]}: give the model that made it (--model)"
        )
    request = prepare(model, _sample(model, trajectory, artifacts), missing=trajectory.hidden)
    batch = store_batch(request.observed, request.truth, request.hidden, artifacts)
    kept = trajectory.arrays.get(OBSERVATION)
    embedding = (
        pipeline.observe(model, load_batch(batch, artifacts).split).embedding
        if kept is None
        else artifacts.get(kept)[None]
    )
    return {
        "batch": batch,
        "embeddings": {STATE_OBSERVATION: artifacts.put(embedding)},
        "trajectories": [forgotten(trajectory) if edit.changes_plan else trajectory],
        "reviewing": Reviewing(done=1),
        "edits": [edit],
    }


def _sample(model: Model, trajectory: Trajectory, artifacts: ArtifactStore) -> dict[str, Any]:
    """The sample written out as it was read, what was hidden with it.

    Raises:
        DataError: if its arrays weren't kept.
    """
    sample: dict[str, Any] = {
        "id": trajectory.id,
        "group": trajectory.group,
        "raw_text": trajectory.raw_text,
    }
    refs = {f"observed/{name}": name for name in trajectory.observed}
    refs |= {f"truth/{name}": name for name in trajectory.hidden}
    for key, name in refs.items():
        if key not in trajectory.arrays:
            raise DataError(
                f"sample {trajectory.id!r}: what was observed was expected among its arrays and wasn't kept: "
                "run it again with --keep-path all"
            )
        array = artifacts.get(trajectory.arrays[key])
        sample[name] = array
        if name in model.config.median_lengths:
            sample[f"{name}_lengths"] = len(array)
    return sample | {name: None for name in model.names if name not in sample}
