"""What flows through the reconstruction graph: numbers, strings and references to arrays."""

from __future__ import annotations

import zlib
from typing import Annotated, Any, Literal

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.runtime import Runtime
from pydantic import BaseModel, ConfigDict, Field

from omg_graph.data.dataset import ModalitySpec
from omg_graph.data.recordings import RecordingKind
from omg_graph.executor.diffusion import Guidance
from omg_graph.record.artifacts import ArrayRef
from omg_graph.record.trajectory import Trajectory


class RecordingRef(BaseModel):
    """A recording, by where it lies."""

    model_config = ConfigDict(frozen=True)

    kind: RecordingKind
    path: str | None = Field(default=None, description="A file; on a server, relative to its data folder.")
    array: ArrayRef | None = Field(
        default=None, description="Sound, pixels, or the paths of a video's images."
    )
    rate: float | None = None


class Batch(BaseModel):
    """Samples under way, their arrays by reference."""

    model_config = ConfigDict(frozen=True)

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    modalities: tuple[ModalitySpec, ...]
    arrays: dict[str, ArrayRef] = Field(description="What is observed; zeros where it isn't.")
    observed: dict[str, tuple[bool, ...]]
    lengths: dict[str, tuple[int, ...]] = {}
    lost: dict[str, ArrayRef] = Field(
        default={}, description="Lost frames of sequences, hidden ones too: (samples, frames)."
    )
    raw_text: tuple[str | None, ...] | None = None
    recordings: dict[str, tuple[RecordingRef | None, ...]] = {}
    truth: dict[str, ArrayRef] = Field(default={}, description="What was hidden and is really there.")
    hidden: dict[str, tuple[bool, ...]] = {}
    notes: tuple[str, ...] = Field(default=(), description="What was decided while the samples were read.")


class ReconstructionInput(BaseModel):
    """What a caller gives: a file, or samples written out."""

    model_config = ConfigDict(extra="forbid")

    path: Annotated[
        str | None,
        Field(
            title="File",
            description="A pickle or .npz of samples on the machine that runs the graph; on a server, in its "
            "data folder.",
            examples=["sample.pkl"],
        ),
    ] = None
    split: Annotated[
        str | None,
        Field(
            title="Split", description="Which split of the file; the usual one if empty.", examples=["test"]
        ),
    ] = None
    samples: Annotated[
        list[dict[str, Any]] | None,
        Field(
            title="Samples written out",
            description="Instead of a file: modalities as lists of numbers, null if missing.",
            examples=[[{"id": "clip-1", "text": None, "audio": [0.1, 0.2]}]],
        ),
    ] = None
    missing: Annotated[
        list[str],
        Field(
            title="Hide",
            description="Modalities to hide although they are there; what isn't there is missing anyway.",
            examples=[["vision"]],
        ),
    ] = []
    limit: Annotated[
        int | None, Field(ge=1, title="Limit", description="Only the first so many samples.", examples=[5])
    ] = None
    batch: Annotated[
        Batch | None,
        Field(
            title="Batch", description="For programs: samples that are in the graph's artifact store already."
        ),
    ] = None


class ReconstructionOutput(BaseModel):
    """What the graph gives back."""

    trajectories: Annotated[
        list[Trajectory],
        Field(
            title="Trajectories",
            description="One for each sample, in order: plan, evidence, denoising, reconstruction, "
            "prediction.",
        ),
    ] = []


class Edit(BaseModel):
    """A change of one sample's run, or of every sample's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = Field(default=None, description="Whose run is changed; every sample's if null.")
    pick: int | None = Field(
        default=None,
        ge=1,
        description="Number of the candidate to take, as the trace shows them; the chosen one if null.",
    )
    set: dict[str, str] = Field(
        default={},
        description="Values to put into that plan, by the schema's fields.",
        examples=[{"Sentiment": "strongly negative"}],
    )
    drop_evidence: tuple[str, ...] = Field(default=(), description="Ids of entries to leave out.")

    @property
    def changes_plan(self) -> bool:
        """Whether it says anything of the plan."""
        return self.pick is not None or bool(self.set)

    def concerns(self, sample_id: str) -> bool:
        """Whether it is about this sample."""
        return self.id is None or self.id == sample_id


class Reviewing(BaseModel):
    """How far a person's review of the plans has come."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asked: bool = Field(default=False, description="Whether a person is asked at all.")
    done: int = Field(default=0, ge=0, description="Samples whose plans are settled.")
    redraw: bool = Field(default=False, description="Whether the next one is to get new candidates.")
    rounds: int = Field(default=0, ge=0, description="How often new ones were drawn for it.")


class ReconstructionState(ReconstructionInput, ReconstructionOutput):
    """Everything between input and output."""

    model_config = ConfigDict(extra="forbid")

    in_words: Annotated[
        str,
        Field(
            title="In words",
            description="What the last node made, to be read: the first samples, in Markdown.",
        ),
    ] = ""
    embeddings: Annotated[
        dict[str, ArrayRef],
        Field(
            title="Embeddings",
            description="u_X, latents, label estimates and c_S of the batch, by reference.",
        ),
    ] = {}
    evidence_vectors: Annotated[
        dict[str, ArrayRef],
        Field(title="Evidence vectors", description="E for each missing modality, by reference."),
    ] = {}
    reviewing: Annotated[
        Reviewing, Field(title="Review", description="How far a person's review has come.")
    ] = Reviewing()
    edits: Annotated[
        list[Edit],
        Field(
            title="Edits", description="What a fork changes; the nodes after it carry it out, and clear it."
        ),
    ] = []


class Settings(BaseModel):
    """Runtime context: small settings of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    top_k: int | None = Field(
        default=None,
        ge=1,
        title="Entries of evidence",
        description="How many entries of the knowledge base serve as evidence; the model's own if empty.",
        examples=[10],
    )
    candidates: int | None = Field(
        default=None,
        ge=1,
        title="Candidate plans",
        description="How many plans are drawn for each sample; the model's own if empty.",
        examples=[5],
    )
    greedy: bool | None = Field(
        default=None,
        title="Greedy plan",
        description="Whether the distilled planner's greedy plan is a candidate; the model's own if empty.",
        examples=[True],
    )
    temperature: float | None = Field(
        default=None,
        gt=0,
        title="Temperature",
        description="Of the plans that the distilled planner draws; the model's own if empty.",
        examples=[1.0],
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        title="Top-p",
        description="The distilled planner draws from the likeliest values that together have this share.",
        examples=[0.9],
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        title="Denoising steps",
        description="From noise to reconstruction; the model's own if empty.",
        examples=[20],
    )
    draws: int = Field(
        default=1,
        ge=0,
        title="Draws",
        description="Samples of what a missing modality may have been; with 0 every estimate is a mean.",
        examples=[19],
    )
    plan_guidance: float | None = Field(
        default=None,
        ge=0,
        title="Plan guidance",
        description="How strongly the plan steers draws, 1 being as trained; the model's own if empty.",
        examples=[1.5],
    )
    evidence_guidance: float | None = Field(
        default=None,
        ge=0,
        title="Evidence guidance",
        description="How strongly the evidence steers draws, 1 being as trained; the model's own if empty.",
        examples=[1.5],
    )
    estimate: Literal["mean", "sample"] | None = Field(
        default=None,
        title="Estimate",
        description="The conditional mean, or the first draw; what suits each modality's kind if empty.",
    )
    select: Literal["rerank", "utility"] = Field(
        default="rerank",
        title="Select by",
        description="rerank: the plan by Eq. 5; utility: of all plans and draws the trajectory of the "
        "greatest utility (Eq. 2).",
    )
    seed: int = Field(
        default=0,
        title="Seed",
        description="Random seed; draws also depend on the sample id.",
        examples=[0],
    )
    planner: str | None = Field(
        default=None,
        title="Planner",
        description="One of the planners that the graph was built with, by name; the model's own if empty.",
        examples=["distilled"],
    )
    keep_path: bool = Field(
        default=True, title="Keep the path", description="Whether to keep the whole denoising path."
    )
    pictures: bool = Field(
        default=True,
        title="Keep the pictures",
        description="Whether to keep, beside the path, what only a picture of it needs: the clean estimate "
        "step by step, and the nearest entry.",
    )
    allow_own_group: bool = Field(
        default=False,
        title="Allow the own group",
        description="Whether entries of a sample's own group may serve as evidence; itself never does.",
    )
    review_plan: bool = Field(
        default=False,
        title="Review the plan",
        description="Whether to stop after re-ranking, for a person to pick or edit the plan.",
    )

    def guidance(self, own: Guidance) -> Guidance:
        """How strongly plan and evidence steer draws.

        Args:
            own: The model's own weights, for what isn't set.
        """
        return Guidance(
            own.plan if self.plan_guidance is None else self.plan_guidance,
            own.evidence if self.evidence_guidance is None else self.evidence_guidance,
        )

    @property
    def keeps_pictures(self) -> bool:
        """Whether what only pictures need is made at all."""
        return self.keep_path and self.pictures

    @property
    def planning(self) -> dict[str, bool | float]:
        """How plans are to be drawn, as changes of the model's own settings; without what is left to it."""
        asked = {"include_greedy": self.greedy, "temperature": self.temperature, "top_p": self.top_p}
        return {name: value for name, value in asked.items() if value is not None}


DEFAULT_SETTINGS = Settings()


def settings_of(runtime: Runtime[Settings]) -> Settings:
    """The run's settings; a graph that has this one for a node hands down a context of its own kind."""
    given: object = runtime.context
    return given if isinstance(given, Settings) else DEFAULT_SETTINGS


TYPES = (ArrayRef, Batch, Edit, ModalitySpec, RecordingRef, Reviewing, Trajectory)

SMALL = 512
"""Bytes from which on compressing pays."""

_COMPRESSED = "+zlib"


def checkpoint_serializer() -> JsonPlusSerializer:
    """For a checkpointer of your own: ``SqliteSaver(connection, serde=checkpoint_serializer())``.

    LangGraph's default reads back any type whatever, with a warning for each, and takes three times the
    room. What the default wrote can be read.
    """
    return _Compressing(allowed_msgpack_modules=[(kind.__module__, kind.__name__) for kind in TYPES])


class _Compressing(JsonPlusSerializer):
    """SQLite keeps the whole state once for each node, and most of it is the names of fields."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        kind, data = super().dumps_typed(obj)
        return (kind, data) if len(data) < SMALL else (kind + _COMPRESSED, zlib.compress(data))

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        kind, content = data
        if kind.endswith(_COMPRESSED):
            kind, content = kind.removesuffix(_COMPRESSED), zlib.decompress(content)
        return super().loads_typed((kind, content))
