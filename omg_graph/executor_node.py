"""encode -> denoise -> decode -> predict: the executor node as a graph of its own (Eqs. 10-13, 16, 17)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from langgraph.config import get_config, get_stream_writer
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from omg_graph import outcomes, pipeline, records
from omg_graph.batches import load_split
from omg_graph.data.dataset import Split
from omg_graph.executor.executor import ExecutorInput
from omg_graph.executor.sampling import DenoisingPath
from omg_graph.gaps import with_filled_frames
from omg_graph.model.model import Model
from omg_graph.pipeline import Execution, Observation
from omg_graph.record.artifacts import ArrayRef, ArtifactStore
from omg_graph.record.trajectory import Trajectory
from omg_graph.state import Batch, Settings, settings_of

Update = dict[str, Any]
ExecutorGraph = CompiledStateGraph[Any, Settings, Any, Any]

STEPS = ("encode", "denoise", "decode", "predict")
TELL = "omg_tell"
"""Where a run's configuration holds the stream writer of the graph around this one."""


class PathRef(BaseModel):
    """A denoising path of a whole batch, by reference."""

    model_config = ConfigDict(frozen=True)

    timesteps: tuple[int, ...]
    states: ArrayRef = Field(description="z_T ... z_0 of draw 0: (steps + 1, samples, latent).")
    clean: ArrayRef = Field(description="The clean estimate at each step: (steps, samples, latent).")


class ExecutorRequest(BaseModel):
    """What the nodes before have made."""

    batch: Batch
    embeddings: dict[str, ArrayRef] = Field(description="u_X and c_S.")
    evidence_vectors: dict[str, ArrayRef] = Field(description="E for each missing modality.")
    trajectories: list[Trajectory]


class ExecutorResult(BaseModel):
    """Trajectories with reconstruction, path and prediction."""

    trajectories: list[Trajectory] = []


class ExecutorState(ExecutorRequest):
    """Between the steps: everything in latent units and by reference."""

    latents: dict[str, ArrayRef] = Field(default={}, description="Encoded if observed, else zeros.")
    estimates: dict[str, ArrayRef] = Field(default={}, description="The point estimate of the latents.")
    draws: dict[str, ArrayRef] = Field(default={}, description="(draws, samples, latent).")
    anchors: dict[str, ArrayRef] = Field(default={}, description="What the residuals are added to.")
    paths: dict[str, PathRef] = {}
    path_costs: ArrayRef | None = Field(
        default=None, description="C_path, (draws, samples), where trajectories are ranked by utility."
    )


@dataclass(frozen=True)
class ExecutorSteps:
    """The steps of the executor, closed over a model and an artifact store."""

    model: Model
    store: ArtifactStore

    def encode(self, state: ExecutorState) -> Update:
        """Latents of what is observed."""
        started = time.perf_counter()
        latents, _ = pipeline.encode(self.model, load_split(state.batch, self.store))
        return {"latents": self._put(latents), "trajectories": _timed(state, started)}

    def denoise(self, state: ExecutorState, runtime: Runtime[Settings]) -> Update:
        """From noise to latents, step by step, under plan and evidence."""
        started, settings = time.perf_counter(), settings_of(runtime)
        tell: Callable[[Any], None] = get_config()["configurable"].get(TELL) or get_stream_writer()
        split = load_split(state.batch, self.store)
        missing = {name: torch.from_numpy(~rows) for name, rows in split.observed.items() if not rows.all()}
        made = pipeline.denoise(
            self.model,
            self._input(state, split),
            seed=settings.seed,
            draws=settings.draws,
            steps=settings.steps,
            rank=settings.select == "utility",
            on_step=lambda draw, step, of, paths: tell(
                {"node": "executor", "draw": draw, "step": step, "of": of} | _norms(paths, missing)
            ),
        )
        return {
            "estimates": self._put(made.estimates),
            "draws": self._put(made.draws),
            "anchors": self._put(made.anchors),
            "path_costs": None if made.path_costs is None else self.store.put(made.path_costs.numpy()),
            "paths": {
                name: PathRef(
                    timesteps=tuple(path.timesteps),
                    states=self.store.put(torch.stack(path.states).numpy()),
                    clean=self.store.put(torch.stack(path.clean).numpy()),
                )
                for name, path in made.paths.items()
            },
            "trajectories": _timed(state, started),
        }

    def decode(self, state: ExecutorState, runtime: Runtime[Settings]) -> Update:
        """From latents to features in the input's units."""
        started, settings = time.perf_counter(), settings_of(runtime)
        split = load_split(state.batch, self.store)
        trajectories = outcomes.reconstructed(
            self.model, self.store, state.trajectories, state.batch, split, self._execution(state), settings
        )
        trajectories = with_filled_frames(self.model, self.store, trajectories, split)
        if state.path_costs is not None:
            costs = self.store.get(state.path_costs)
            trajectories = [
                one.model_copy(update={"arrays": one.arrays | {"path_costs": self.store.put(costs[:, row])}})
                for row, one in enumerate(trajectories)
            ]
        return {"trajectories": records.timed(trajectories, "executor", started)}

    def predict(self, state: ExecutorState) -> Update:
        """The label, from what is observed and what was estimated."""
        started = time.perf_counter()
        split = load_split(state.batch, self.store)
        executed = pipeline.predict(self.model, split, self._input(state, split), self._execution(state))
        trajectories = outcomes.predicted(self.model, state.trajectories, executed)
        return {"trajectories": records.timed(trajectories, "executor", started)}

    def _input(self, state: ExecutorState, split: Split) -> ExecutorInput:
        observed = torch.from_numpy(split.mask()).to(self.model.device)
        embedding = self.store.get(state.embeddings["observation"])
        return pipeline.executor_input(
            self.model,
            split,
            Observation(self._get(state.latents), observed, embedding),
            self.store.get(state.embeddings["plan"]),
            {name: self.store.get(ref) for name, ref in state.evidence_vectors.items()},
        )

    def _execution(self, state: ExecutorState) -> Execution:
        paths = {
            name: DenoisingPath(
                list(path.timesteps),
                list(_tensor(self.store, path.states)),
                list(_tensor(self.store, path.clean)),
            )
            for name, path in state.paths.items()
        }
        return Execution(self._get(state.estimates), self._get(state.draws), paths, self._get(state.anchors))

    def _put(self, tensors: Mapping[str, Tensor]) -> dict[str, ArrayRef]:
        return {name: self.store.put(tensor.cpu().numpy()) for name, tensor in tensors.items()}

    def _get(self, refs: Mapping[str, ArrayRef]) -> dict[str, Tensor]:
        return {name: _tensor(self.store, ref).to(self.model.device) for name, ref in refs.items()}


def build_executor_graph(model: Model, store: ArtifactStore) -> ExecutorGraph:
    """Compile the executor.

    It leaves nothing in a checkpointer: a run that was cut off starts again at the executor, whose result
    depends on the state before it alone.
    """
    parts = ExecutorSteps(model, store)
    graph = StateGraph(
        ExecutorState,
        context_schema=Settings,
        input_schema=ExecutorRequest,
        output_schema=ExecutorResult,
    )
    graph.add_node("encode", parts.encode)
    graph.add_node("denoise", parts.denoise)
    graph.add_node("decode", parts.decode)
    graph.add_node("predict", parts.predict)
    graph.add_edge(START, "encode")
    graph.add_edge("encode", "denoise")
    graph.add_edge("denoise", "decode")
    graph.add_edge("decode", "predict")
    graph.add_edge("predict", END)
    return graph.compile(checkpointer=False, name="executor")


def _timed(state: ExecutorState, started: float) -> list[Trajectory]:
    return records.timed(state.trajectories, "executor", started)


def _tensor(store: ArtifactStore, ref: ArrayRef) -> Tensor:
    return torch.tensor(store.get(ref))  # a copy: what the store holds is read-only


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
