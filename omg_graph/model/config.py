"""What a trained model is, apart from its weights: shapes, settings and where it came from."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from omg_graph.codecs.autoencoder import AutoencoderKind
from omg_graph.data.dataset import ModalitySpec
from omg_graph.encoders.hidden_states import ThinkerRecord
from omg_graph.encoders.observation import ObservationEncoderConfig
from omg_graph.errors import ModelError
from omg_graph.executor.executor import ExecutorConfig
from omg_graph.metrics.labels import MetricFamily
from omg_graph.planner.interface import Sampling
from omg_graph.predictor.task import TaskHeadConfig
from omg_graph.record.trajectory import UtilityWeights

FORMAT_VERSION = 1
OLD_SWITCHES: dict[str, dict[str, Any]] = {
    "planning": {"condition": "plan", "schema_penalty": None},
    "retrieval": {"query_plan": "plan", "aggregation": "attention", "source": "entries"},
    "executor": {"joint_layers": [], "observation": True},
}
"""What version 0.1.0 wrote of a model of the method itself; None for a number that changed nothing."""
QueryKind = Literal["corrected", "raw", "literal"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PlanningSettings(_Record):
    """How plans are drawn and chosen."""

    candidates: int = 5
    include_greedy: bool = True
    temperature: float = 1.0
    """Of the draws, for planners that follow sampling settings."""
    top_p: float = 1.0
    """Draws are from the likeliest values that together have this share."""
    semantic_weight: float = 0.3
    """lambda_s of Eq. 5."""

    def sampling(self, candidates: int, heat: float = 0.0) -> Sampling:
        """How ``candidates`` plans are drawn; ``heat`` is added to the temperature, with no greedy plan."""
        return Sampling(candidates, self.include_greedy and not heat, self.temperature + heat, self.top_p)


class RetrievalSettings(_Record):
    """How evidence is found and weighed."""

    kind: str = Field(default="chroma", exclude_if=lambda name: name == "chroma")
    """The retriever's name among the entry points ``omg_graph.retrievers``."""
    top_k: int = 10
    temperature: float = 0.07
    query: QueryKind = "corrected"
    plan_view: bool = Field(default=False, exclude_if=lambda on: not on)
    """Whether keys and queries have the plan in words as one more view."""
    query_kept: bool = False
    """Whether the learned correction helped on validation rows, and so is in use."""


class Target(_Record):
    """The label that the model predicts."""

    name: str
    kind: Literal["regression", "classes"]
    class_names: tuple[str, ...] = ()
    """The data's own names, for classes."""


class ModelConfig(_Record):
    """Everything that is needed to rebuild a model before its weights are read."""

    format_version: int = FORMAT_VERSION
    name: str
    synthetic: bool = False
    """Trained on simulated data: said wherever the model is used."""
    feature_names: dict[str, tuple[str, ...]] = {}
    """Of modalities whose features have names, in order; for people, no model reads them."""
    feature_units: dict[str, tuple[str, ...]] = {}
    """Their units, ``1`` where there is none."""
    modalities: tuple[ModalitySpec, ...]
    latent_widths: dict[str, int]
    autoencoder: AutoencoderKind
    text_encoder: str
    shared_width: int
    thinker: ThinkerRecord | None = None
    """The Qwen2.5-Omni thinker that g and psi are made of, if they are."""
    encoder: ObservationEncoderConfig
    executor: ExecutorConfig
    task: TaskHeadConfig | None
    target: Target | None
    metrics: MetricFamily = "none"
    planning: PlanningSettings = PlanningSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    utility: UtilityWeights = UtilityWeights()
    planner: str = Field(default="distilled", exclude_if=lambda name: name == "distilled")
    """The name of the planner that is stored with the model."""
    components: dict[str, str] = Field(default={}, exclude_if=lambda names: not names)
    """The parts that stood in for the method's own when it was trained, by name."""
    median_lengths: dict[str, int] = {}
    """Frames of a padded sequence whose length nothing tells."""

    @model_validator(mode="before")
    @classmethod
    def _of_version_0_1(cls, content: Any) -> Any:
        """Drop what version 0.1.0 wrote: switches for ablations, and the kind of the anchor.

        Raises:
            ModelError: if a switch is on.
        """
        if not isinstance(content, dict):
            return content
        content = dict(content)
        for block, switches in OLD_SWITCHES.items():
            if not isinstance(content.get(block), dict):
                continue
            for name in content[block].keys() & switches.keys():
                if switches[name] not in (None, content[block][name]):
                    raise ModelError(
                        f"expected a model of the method, got one of an ablation by version 0.1.0 "
                        f"({block}.{name}: {content[block][name]}): train it again with omg ablate"
                    )
            content[block] = {key: value for key, value in content[block].items() if key not in switches}
        if isinstance(content.get("executor"), dict):  # whatever its kind, the weights say which priors count
            content["executor"] = {key: part for key, part in content["executor"].items() if key != "anchor"}
        return content


class Manifest(_Record):
    """Written last into a model folder: what it holds and where it came from."""

    format_version: int = FORMAT_VERSION
    checksum: str = ""
    """SHA-256 over everything else in the manifest."""
    fingerprint: str
    """SHA-256 over the hashes of all files: two models with the same one give the same results."""
    components: str
    """SHA-256 over what a knowledge base depends on: codecs, psi and the text encoder's name."""
    files: dict[str, str]
    """Path to SHA-256."""
    data: dict[str, Any] = Field(default={}, description="Source, hash, rows and what was missing.")
    seed: int = 0
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    machine: dict[str, str] = {}
    metrics: dict[str, Any] = {}
    training: dict[str, Any] = {}
    notes: tuple[str, ...] = ()

    def sealed(self) -> Manifest:
        """The same manifest with its checksum."""
        return self.model_copy(update={"checksum": self.expected_checksum()})

    def expected_checksum(self) -> str:
        """What ``checksum`` should be."""
        content = json.dumps(self.model_dump(mode="json", exclude={"checksum"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()
