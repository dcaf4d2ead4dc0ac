"""The four nodes: each reads the state, calls one step of the workflow, and writes the trajectories."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langgraph.config import get_stream_writer
from langgraph.runtime import Runtime

from omg_graph.errors import DataError
from omg_graph.graph import records
from omg_graph.graph.batches import load_split, read_input, store_batch
from omg_graph.graph.state import DEFAULT_SETTINGS, Batch, ReconstructionState, Settings
from omg_graph.model import steps
from omg_graph.model.model import Model
from omg_graph.planner.interface import CandidatePlan
from omg_graph.trajectory.artifacts import ArtifactStore

Update = dict[str, Any]
Node = Callable[[ReconstructionState, Runtime[Settings]], Update]


@dataclass(frozen=True)
class Nodes:
    """The nodes of one graph, closed over its model and its artifact store."""

    model: Model
    store: ArtifactStore

    def planner(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Reason from what is observed to candidate plans (section 3.3)."""
        started, settings = time.perf_counter(), _settings(runtime)
        batch, notes = self._batch(state)
        split = load_split(batch, self.store)
        embedding = steps.observe(self.model, split).embedding
        count = settings.candidates or self.model.config.planning.candidates
        candidates = steps.propose(self.model, split, embedding, count, settings.seed)
        _tell({"node": "planner", "candidates": count, "samples": len(split)})
        trajectories = records.opened(self.model, batch, split, candidates, settings.seed, notes)
        return {
            "batch": batch,
            "samples": None,
            "embeddings": {"observation": self.store.put(embedding)},
            "trajectories": records.timed(trajectories, "planner", started),
        }

    def rerank(self, state: ReconstructionState) -> Update:
        """Choose the candidate with the best log-probability less its inconsistency (Eqs. 5 and 6)."""
        started = time.perf_counter()
        embedding = self.store.get(state.embeddings["observation"])
        proposed = [
            [
                CandidatePlan(
                    tuple(c.value for c in candidate.constraints),
                    tuple(c.log_probability for c in candidate.constraints),
                    tuple(c.tokens for c in candidate.constraints),
                    candidate.greedy,
                )
                for candidate in trajectory.candidates
            ]
            for trajectory in state.trajectories
        ]
        ranked = steps.rerank(self.model, proposed, embedding)
        trajectories = records.planned(self.model, state.trajectories, ranked)
        plans = [trajectory.plan for trajectory in trajectories]
        _tell({"node": "rerank", "plans": [plan.text for plan in plans if plan is not None]})
        return {"trajectories": records.timed(trajectories, "rerank", started)}

    def retriever(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Ground the plan in entries of the knowledge base (Eqs. 7-9)."""
        started, settings = time.perf_counter(), _settings(runtime)
        split = load_split(_present(state.batch), self.store)
        plans = records.plans_of(state.trajectories)
        plan_embeddings = steps.embed_plans(self.model, plans)
        evidence = steps.retrieve(
            self.model,
            split,
            steps.observe(self.model, split),
            plans,
            plan_embeddings,
            top_k=settings.top_k or self.model.config.retrieval.top_k,
            allow_own_group=settings.allow_own_group,
        )
        found = {name: sum(len(row) for row in rows.entries) for name, rows in evidence.items()}
        _tell({"node": "retriever", "entries": found})
        trajectories = records.grounded(
            state.trajectories, evidence, plan_embeddings, self.model.retriever, self.store
        )
        return {
            "embeddings": state.embeddings | {"plan": self.store.put(plan_embeddings)},
            "evidence_vectors": {name: self.store.put(rows.aggregated) for name, rows in evidence.items()},
            "trajectories": records.timed(trajectories, "retriever", started),
        }

    def executor(self, state: ReconstructionState, runtime: Runtime[Settings]) -> Update:
        """Denoise what is missing under plan and evidence, and predict the label (Eqs. 10-13, 16, 17)."""
        started, settings = time.perf_counter(), _settings(runtime)
        batch = _present(state.batch)
        split = load_split(batch, self.store)
        executed = steps.execute(
            self.model,
            split,
            steps.observe(self.model, split),
            self.store.get(state.embeddings["plan"]),
            {name: self.store.get(ref) for name, ref in state.evidence_vectors.items()},
            seed=settings.seed,
            draws=settings.draws,
            steps=settings.steps,
            on_step=lambda draw, step, of: _tell({"node": "executor", "draw": draw, "step": step, "of": of}),
        )
        trajectories = records.executed(
            self.model, self.store, state.trajectories, batch, split, executed, settings
        )
        return {"trajectories": records.timed(trajectories, "executor", started)}

    def _batch(self, state: ReconstructionState) -> tuple[Batch, tuple[str, ...]]:
        if state.batch is not None:
            return state.batch, ()
        observed, truth, hidden, notes = read_input(state, self.model.latent_space.specs)
        return store_batch(observed, truth, hidden, self.store), notes


def _settings(runtime: Runtime[Settings]) -> Settings:
    """The run's settings; a graph that has this one for a node hands down a context of its own kind."""
    given: object = runtime.context
    return given if isinstance(given, Settings) else DEFAULT_SETTINGS


def _present(batch: Batch | None) -> Batch:
    if batch is None:
        raise DataError("the graph was entered after its planner, with no batch: start it at the planner")
    return batch


def _tell(event: dict[str, Any]) -> None:
    get_stream_writer()(event)
