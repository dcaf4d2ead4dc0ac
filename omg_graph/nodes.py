"""The graph's nodes: each reads the state, calls the pipeline's next steps, and writes the trajectories."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from langgraph.config import get_stream_writer
from langgraph.runtime import Runtime
from torch import Tensor

from omg_graph import pipeline
from omg_graph.batches import load_batch, load_observation, load_recordings, read_batch, store_observation
from omg_graph.data.dataset import Split
from omg_graph.errors import ConfigError, DataError
from omg_graph.executor.diffusion import DenoisingPath
from omg_graph.files import DataFolder
from omg_graph.model.model import Model
from omg_graph.outcomes import executed
from omg_graph.pipeline import Observation
from omg_graph.planner.interface import Planner, sampling_note
from omg_graph.record import markdown
from omg_graph.record.artifacts import ArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.review import review
from omg_graph.review.edits import OBSERVATION, check_edits, dropped_evidence, without_evidence
from omg_graph.selection import Work, select
from omg_graph.state import Batch, ReconstructionState, Reviewing, Settings, settings_of
from omg_graph.telemetry import Step, step
from omg_graph.trajectories import evidence_vectors, ground, opened, planned, plans_of, timed

Update = dict[str, Any]


@dataclass(frozen=True)
class Nodes:
    """The nodes of one graph, closed over its model and its artifact store."""

    model: Model
    store: ArtifactStore
    data_folder: DataFolder | None = None
    planners: Mapping[str, Planner] = field(default_factory=dict)

    def planner(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Observe, and reason from what is observed to candidate plans (section 3.3)."""
        started, settings = time.perf_counter(), settings_of(runtime)
        model = self._planning(settings)
        batch = state.batch or read_batch(state, self.model, self.store, self.data_folder)
        split = load_recordings(batch, self.store, self.data_folder)
        if state.reviewing.redraw:
            observation = self._observation(state)
            return review.redrawn(model, split, observation, state, settings)
        observation = pipeline.observe(self.model, split)
        count = settings.candidates or self.model.config.planning.candidates
        candidates = pipeline.propose(model, split, observation, count, settings.seed)
        get_stream_writer()({"node": "planner", "candidates": count, "samples": len(split)})
        ignored = sampling_note(model.planner, settings.planning)
        notes = batch.notes if ignored is None else (*batch.notes, ignored)
        trajectories = opened(model, batch, split, candidates, settings.seed, notes)
        if split.recordings:
            trajectories = [
                one.model_copy(update={"arrays": one.arrays | {OBSERVATION: self.store.put(row)}})
                for one, row in zip(trajectories, observation.embedding, strict=True)
            ]
        # what the state holds already needn't be kept once more
        read = {} if batch is state.batch else {"batch": batch, "samples": None}
        return read | {
            "embeddings": store_observation(observation, self.store),
            "trajectories": timed(trajectories, "planner", started),
            "in_words": markdown.candidates(trajectories),
            "reviewing": Reviewing(asked=settings.review_plan),
            "edits": [],
        }

    def rerank(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Choose the candidate with the best log-probability less its inconsistency (Eqs. 5 and 6)."""
        started, model = time.perf_counter(), self._planning(settings_of(runtime))
        # where a person asked for new candidates of one sample, the others have their plans
        rows = [row for row, trajectory in enumerate(state.trajectories) if trajectory.plan is None]
        waiting = [state.trajectories[row] for row in rows]
        candidates = [one.candidates for one in waiting]
        ranked = pipeline.rerank(self.model, candidates, self._observation(state).embedding[rows])
        trajectories = list(state.trajectories)
        for row, trajectory in zip(rows, planned(model, waiting, ranked), strict=True):
            trajectories[row] = trajectory
        plans = [plan.text for one in trajectories if (plan := one.plan) is not None]
        get_stream_writer()({"node": "rerank", "plans": plans})
        return {
            "trajectories": timed(trajectories, "rerank", started),
            "in_words": markdown.plans(trajectories),
        }

    def review(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Let a person pick or edit a plan, or apply what a fork changes."""
        model = self._planning(settings_of(runtime))

        def sample(row: int) -> tuple[Split, Observation]:
            split = load_recordings(_batch(state), self.store, self.data_folder)
            return split.take([row]), self._observation(state).take([row])

        return review.reviewed(model, sample, state)

    def retriever(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Ground the plan in entries of the knowledge base (Eqs. 7-9)."""
        started, settings = time.perf_counter(), settings_of(runtime)
        check_edits(state.edits, state.trajectories)
        observation, plans = self._observation(state), plans_of(state.trajectories)
        plan_embeddings = pipeline.embed_plans(self.model, plans, observation.ids)
        trajectories = ground(
            self.model, self.store, observation, state.trajectories, plan_embeddings, settings
        )
        for row, trajectory in enumerate(trajectories):
            dropped = dropped_evidence(state.edits, trajectory.id)
            if dropped:
                trajectories[row] = without_evidence(
                    self.model, self.store, trajectory, plan_embeddings[row], dropped
                )
        evidence = evidence_vectors(self.model, self.store, observation, trajectories)
        found = {name: sum(len(t.evidence.get(name, ())) for t in trajectories) for name in evidence}
        get_stream_writer()({"node": "retriever", "entries": found})
        return {
            "embeddings": state.embeddings | {"plan": self.store.put(plan_embeddings)},
            "evidence_vectors": {name: self.store.put(rows) for name, rows in evidence.items()},
            "trajectories": timed(trajectories, "retriever", started),
            "in_words": markdown.evidence(trajectories),
            "edits": [],
        }

    def executor(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Denoise what is missing under plan and evidence, and predict the label (Eqs. 10-13, 16, 17)."""
        settings = settings_of(runtime)
        work = Work(
            load_batch(_batch(state), self.store),
            self._observation(state),
            self.store.get(state.embeddings["plan"]),
            {name: self.store.get(ref) for name, ref in state.evidence_vectors.items()},
            state.trajectories,
        )
        if settings.select == "utility":
            trajectories = select(self.model, self.store, work, settings, self._execute)
        else:
            trajectories = self._execute(work, settings)
        return {"trajectories": trajectories, "in_words": markdown.results(trajectories)}

    def _execute(self, work: Work, settings: Settings) -> list[Trajectory]:
        started, write = time.perf_counter(), get_stream_writer()
        observed = work.batch.split.observed
        missing = {name: torch.from_numpy(~rows) for name, rows in observed.items() if not rows.all()}
        execution = pipeline.execute(
            self.model,
            work.observation,
            work.plan_embeddings,
            work.evidence,
            seed=settings.seed,
            draws=settings.draws,
            steps=settings.steps,
            trusted=np.array([some.plan is not None and some.plan.trusted for some in work.trajectories]),
            guidance=settings.guidance(self.model.executor.guidance),
            estimate=settings.estimate,
            rank=settings.select == "utility",
            on_step=lambda draw, number, of, paths: write(
                {"node": "executor", "draw": draw, "step": number, "of": of} | _norms(paths, missing)
            ),
        )
        trajectories = executed(self.model, self.store, work.trajectories, work.batch, execution, settings)
        return timed(trajectories, "executor", started)

    def _observation(self, state: ReconstructionState) -> Observation:
        return load_observation(_batch(state), state.embeddings, self.model, self.store)

    def _planning(self, settings: Settings) -> Model:
        """The model, with the planner that a run asks for, drawing as it asks."""
        model = self.model.with_planning(**settings.planning) if settings.planning else self.model
        name = settings.planner
        if name is None or name == model.planner.name:
            return model
        if name not in self.planners:
            known = ", ".join(dict.fromkeys((self.model.planner.name, *self.planners)))
            raise ConfigError(f"planner: expected one of {known}, got {name!r}: take one, or leave it out")
        return model.with_planner(self.planners[name])


def _batch(state: ReconstructionState) -> Batch:
    if state.batch is None:
        raise DataError("the graph was entered after its planner, with no batch: start it at the planner")
    return state.batch


def watched(node: Callable[..., Update]) -> Callable[..., Update]:
    """A node with a span and a line in the log around it, which say how much came out, never what."""

    @functools.wraps(node)
    def run(*arguments: Any, **options: Any) -> Update:
        with step(node.__name__) as span:
            update = node(*arguments, **options)
            trajectories: list[Trajectory] = update.get("trajectories", [])
            if trajectories:  # the review node has none where nobody is asked
                _note(span, node.__name__, trajectories)
        return update

    return run


def _note(span: Step, node: str, trajectories: list[Trajectory]) -> None:
    span.count(samples=len(trajectories))
    span.content(ids=[one.id for one in trajectories])
    plans = [one.plan for one in trajectories if one.plan is not None]
    if node == "planner":
        span.count(candidates=sum(each.times for one in trajectories for each in one.candidates))
        span.content(texts=[one.raw_text or "" for one in trajectories])
    if node in ("rerank", "review"):
        span.count(changed=sum(not plan.candidates[plan.chosen].greedy for plan in plans))
        span.content(plans=[plan.text for plan in plans])
    if node == "retriever":
        span.count(
            entries=sum(len(found) for one in trajectories for found in one.evidence.values()),
            left_out=sum(sum(one.left_out.values()) for one in trajectories),
        )
    if node == "executor":
        span.count(
            reconstructed=sum(len(one.reconstruction) for one in trajectories),
            notes=sum(len(one.notes) for one in trajectories),
        )


def _norms(paths: Mapping[str, DenoisingPath], missing: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """|z| and the clean estimate's change over the rows that miss a modality, per root dimension."""
    norms, changes = {}, {}
    for name, rows in missing.items():
        path = paths[name]
        norms[name] = _root_mean_square(path.states[-1][rows])
        changes[name] = _root_mean_square((path.clean[-1] - path.clean[-2])[rows]) if path.clean[1:] else 0.0
    return {"norm": norms, "change": changes}


def _root_mean_square(values: Tensor) -> float:
    return float(values.square().mean().sqrt())
