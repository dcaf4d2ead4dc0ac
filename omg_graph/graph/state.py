"""What flows through the reconstruction graph: numbers, strings and references to arrays."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from omg_graph.samples.dataset import ModalitySpec
from omg_graph.trajectory.artifacts import ArrayRef
from omg_graph.trajectory.trajectory import Trajectory


class Batch(BaseModel):
    """Samples under way, their arrays by reference."""

    model_config = ConfigDict(frozen=True)

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    modalities: tuple[ModalitySpec, ...]
    arrays: dict[str, ArrayRef] = Field(description="What is observed; zeros where it isn't.")
    observed: dict[str, tuple[bool, ...]]
    lengths: dict[str, tuple[int, ...]] = {}
    raw_text: tuple[str | None, ...] | None = None
    truth: dict[str, ArrayRef] = Field(default={}, description="What was hidden and is really there.")
    hidden: dict[str, tuple[bool, ...]] = {}


class ReconstructionInput(BaseModel):
    """What a caller gives: a file, or samples written out."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = Field(
        default=None,
        title="File",
        description="A pickle or .npz of samples on the machine that runs the graph.",
        examples=["examples/sample.pkl"],
    )
    split: str | None = Field(default=None, description="Which split of the file; the usual one if empty.")
    samples: list[dict[str, Any]] | None = Field(
        default=None,
        description="Samples written out instead of a file: modalities as lists of numbers, null if missing.",
        examples=[[{"id": "clip-1", "text": None, "audio": [0.1, 0.2]}]],
    )
    missing: list[str] = Field(default=[], description="Modalities to hide although they are there.")
    limit: int | None = Field(default=None, ge=1, description="Only the first so many samples.")
    batch: Batch | None = Field(
        default=None, description="Samples that a program has put into the graph's artifact store already."
    )


class ReconstructionOutput(BaseModel):
    """What the graph gives back."""

    trajectories: list[Trajectory] = Field(default=[], description="One for each sample, in order.")


class ReconstructionState(ReconstructionInput, ReconstructionOutput):
    """Everything between input and output."""

    model_config = ConfigDict(extra="forbid")

    embeddings: dict[str, ArrayRef] = Field(default={}, description="u_X and c_S of the batch, by reference.")
    evidence_vectors: dict[str, ArrayRef] = Field(
        default={}, description="E for each missing modality, by reference."
    )


class Settings(BaseModel):
    """Runtime context: small settings of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: int | None = Field(
        default=None, ge=1, description="Entries of evidence; the model's own if empty."
    )
    candidates: int | None = Field(default=None, ge=1, description="Plans drawn; the model's own if empty.")
    steps: int | None = Field(default=None, ge=1, description="Denoising steps; the model's own if empty.")
    draws: int = Field(default=1, ge=1, description="Samples of what a missing modality may have been.")
    seed: int = Field(default=0, description="With the id it decides everything random.")
    keep_path: bool = Field(default=True, description="Whether to keep the whole denoising path.")
    allow_own_group: bool = Field(
        default=False, description="Whether entries of a sample's own group may serve; itself never does."
    )


DEFAULT_SETTINGS = Settings()
