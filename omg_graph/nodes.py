"""The graph's nodes: each reads the state, calls one step of the workflow, and writes the trajectories."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.runtime import Runtime

from omg_graph import pipeline, records
from omg_graph.batches import load_observation, load_split, store_batch
from omg_graph.data.dataset import Split
from omg_graph.data.request import read_request
from omg_graph.errors import ConfigError, DataError
from omg_graph.executor_node import TELL, ExecutorGraph, ExecutorRequest
from omg_graph.files import DataFolder
from omg_graph.grounding import ground
from omg_graph.model.model import Model
from omg_graph.planner.interface import Planner
from omg_graph.record import markdown as reading
from omg_graph.record.artifacts import ArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.review import review
from omg_graph.review.edits import OBSERVATION, check_edits
from omg_graph.selection import select
from omg_graph.state import (
    Batch,
    ReconstructionInput,
    ReconstructionState,
    Reviewing,
    Settings,
    settings_of,
)
from omg_graph.strict import checked_input

Update = dict[str, Any]

DURABILITY = "__pregel_durability"
"""What a graph inside inherits; with "sync" LangGraph fails in one that keeps no checkpoints."""


@dataclass(frozen=True)
class Nodes:
    """The nodes of one graph, closed over its model and its artifact store."""

    model: Model
    store: ArtifactStore
    data_folder: DataFolder | None = None
    planners: Mapping[str, Planner] = field(default_factory=dict)

    def intake(self, given: Any, another_graphs: bool) -> Any:
        """Input with its samples put into the store, if they are written out in it.

        Raises:
            OmgError: if the input has an unknown key, or its samples can't be used.
        """
        samples = given.get("samples") if isinstance(given, dict) else getattr(given, "samples", None)
        if samples is None or not isinstance(given, (dict, ReconstructionInput)):
            return given
        if isinstance(given, ReconstructionInput):
            return given.model_copy(update={"samples": None, "batch": self._read(given)})
        own = {key: given[key] for key in given if key in ReconstructionInput.model_fields}
        request = checked_input(own if another_graphs else given, ReconstructionInput)
        return given | {"samples": None, "batch": self._read(request)}

    def planner(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Reason from what is observed to candidate plans (section 3.3)."""
        started, settings = time.perf_counter(), settings_of(runtime)
        model = self._planning(settings)
        batch = state.batch or self._read(state)
        split = load_observation(batch, self.store, self.data_folder)
        if state.reviewing.redraw:
            return review.redrawn(model, self.store, split, state, settings)
        embedding = pipeline.observe(self.model, split).embedding
        count = settings.candidates or self.model.config.planning.candidates
        candidates = pipeline.propose(model, split, embedding, count, settings.seed)
        _tell({"node": "planner", "candidates": count, "samples": len(split)})
        idle = pipeline.drawing_note(model, settings.drawing)
        notes = batch.notes if idle is None else (*batch.notes, idle)
        trajectories = records.opened(model, batch, split, candidates, settings.seed, notes)
        if split.recordings:
            trajectories = [
                one.model_copy(update={"arrays": one.arrays | {OBSERVATION: self.store.put(row)}})
                for one, row in zip(trajectories, embedding, strict=True)
            ]
        # what is there already needn't be kept once more
        taken = {} if batch is state.batch else {"batch": batch, "samples": None}
        return taken | {
            "embeddings": {"observation": self.store.put(embedding)},
            "trajectories": records.timed(trajectories, "planner", started),
            "reading": reading.candidates(trajectories),
            "reviewing": Reviewing(asked=settings.review_plan),
            "edits": [],
        }

    def rerank(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Choose the candidate with the best log-probability less its inconsistency (Eqs. 5 and 6)."""
        started, model = time.perf_counter(), self._planning(settings_of(runtime))
        # where a person asked for new candidates of one sample, the others have their plans
        rows = [row for row, trajectory in enumerate(state.trajectories) if trajectory.plan is None]
        waiting = [state.trajectories[row] for row in rows]
        embedding = self.store.get(state.embeddings["observation"])[rows]
        ranked = pipeline.rerank(self.model, [one.candidates for one in waiting], embedding)
        trajectories = list(state.trajectories)
        for row, trajectory in zip(rows, records.planned(model, waiting, ranked), strict=True):
            trajectories[row] = trajectory
        plans = [trajectory.plan for trajectory in trajectories]
        _tell({"node": "rerank", "plans": [plan.text for plan in plans if plan is not None]})
        return {
            "trajectories": records.timed(trajectories, "rerank", started),
            "reading": reading.plans(trajectories),
        }

    def review(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Let a person pick or edit a plan, or apply what a fork changes."""
        model = self._planning(settings_of(runtime))

        def sample(row: int) -> Split:
            return load_observation(present(state.batch), self.store, self.data_folder).take([row])

        return review.reviewed(model, self.store, sample, state)

    def retriever(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Ground the plan in entries of the knowledge base (Eqs. 7-9)."""
        started, settings = time.perf_counter(), settings_of(runtime)
        check_edits(state.edits, state.trajectories)
        split = load_split(present(state.batch), self.store)
        plan_embeddings = pipeline.embed_plans(self.model, records.plans_of(state.trajectories), split.ids)
        seen = self.store.get(state.embeddings["observation"])
        trajectories, evidence = ground(
            self.model, self.store, split, state.trajectories, seen, plan_embeddings, settings, state.edits
        )
        found = {name: sum(len(t.evidence.get(name, ())) for t in trajectories) for name in evidence}
        _tell({"node": "retriever", "entries": found})
        return {
            "embeddings": state.embeddings | {"plan": self.store.put(plan_embeddings)},
            "evidence_vectors": {name: self.store.put(rows) for name, rows in evidence.items()},
            "trajectories": records.timed(trajectories, "retriever", started),
            "reading": reading.evidence(trajectories),
            "edits": [],
        }

    def _planning(self, settings: Settings) -> Model:
        """The model, with the planner that a run asks for, drawing as it asks."""
        fields = {"greedy": "include_greedy"}
        changes = {
            fields.get(name, name): value for name, value in settings.drawing.items() if value is not None
        }
        model = self.model.with_planning(**changes) if changes else self.model
        name = settings.planner
        if name is None or name == model.planner.name:
            return model
        if name not in self.planners:
            known = ", ".join(dict.fromkeys((self.model.planner.name, *self.planners)))
            raise ConfigError(
                f"planner: one of {known} was expected, {name!r} came: take one, or leave it out"
            )
        return model.with_planner(self.planners[name])

    def _read(self, request: ReconstructionInput) -> Batch:
        if (request.path is None) == (request.samples is None):
            raise DataError("either a path or samples were expected as input, and not both: give one of them")
        asked = read_request(
            request.samples or [] if request.path is None else request.path,
            self.model.latent_space.specs,
            split=request.split,
            missing=request.missing,
            limit=request.limit,
            folder=self.data_folder,
        )
        batch = store_batch(asked.observed, asked.truth, asked.hidden, self.store, self.data_folder)
        return batch.model_copy(update={"notes": asked.notes})


def executor_node(parts: ExecutorGraph, model: Model, store: ArtifactStore) -> Callable[..., Update]:
    """The node that runs the executor's own graph."""

    def executor(state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Denoise what is missing under plan and evidence, and predict the label (Eqs. 10-13, 16, 17)."""
        request = ExecutorRequest(
            batch=present(state.batch),
            embeddings=state.embeddings,
            evidence_vectors=state.evidence_vectors,
            trajectories=state.trajectories,
        )
        # its steps report through this graph's writer, or their events would stay inside
        inside: RunnableConfig = {"configurable": {TELL: runtime.stream_writer, DURABILITY: "async"}}
        settings = settings_of(runtime)

        def execute(given: ExecutorRequest) -> list[Trajectory]:
            made: list[Trajectory] = parts.invoke(given, inside, context=settings)["trajectories"]
            return made

        if settings.select == "utility":
            trajectories = select(model, store, request, settings, execute)
        else:
            trajectories = execute(request)
        return {"trajectories": trajectories, "reading": reading.results(trajectories)}

    return executor


def present(batch: Batch | None) -> Batch:
    """The batch that the planner left.

    Raises:
        DataError: if there is none.
    """
    if batch is None:
        raise DataError("the graph was entered after its planner, with no batch: start it at the planner")
    return batch


def _tell(event: dict[str, Any]) -> None:
    get_stream_writer()(event)
