"""A trained model in memory: the live objects that the graph's nodes close over."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn

from omg_graph.codecs.latents import LatentSpace
from omg_graph.data.reader import DataFile, ReadOptions, read_data_file
from omg_graph.encoders.hidden_states import HiddenStates, ThinkerTextEncoder
from omg_graph.encoders.observation import ObservationEncoder
from omg_graph.encoders.text import CachedTextEncoder
from omg_graph.errors import DeviceError
from omg_graph.executor.executor import Executor
from omg_graph.model.components import DEFAULT_COMPONENTS, Components
from omg_graph.model.config import Manifest, ModelConfig
from omg_graph.planner.interface import Planner
from omg_graph.planner.schema import Schema
from omg_graph.predictor.label_regression import LabelRegression
from omg_graph.retriever.entries import KnowledgeBase
from omg_graph.retriever.keys import View, side_by_side
from omg_graph.retriever.retriever import Retriever, retriever_class

PSI_VIEW = "psi"

_OPENING = threading.Lock()
"""Lets one thread open the index; from Python 3.12 on cached properties don't lock."""


@dataclass(frozen=True)
class Model:
    """Everything that reconstruction needs."""

    config: ModelConfig
    manifest: Manifest
    latent_space: LatentSpace
    text_encoder: CachedTextEncoder
    encoder: ObservationEncoder
    schema: Schema
    planner: Planner
    projection: nn.Module
    executor: Executor
    knowledge_base: KnowledgeBase
    label_regression: LabelRegression | None = None
    """Closed-form estimates of the label, which planner and task head take as input."""
    hidden_states: HiddenStates | None = None
    """A large language model's hidden states, if psi uses them."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    components: Components = DEFAULT_COMPONENTS
    """What it was trained with."""
    custom_retriever: Retriever | None = None
    trained: tuple[Executor, frozenset[str]] | None = None
    """The executor as trained and the ids of the entries it came with, once it has been given others."""

    @property
    def retriever(self) -> Retriever:
        """The retriever given, or the model's own over the knowledge base, opened at first use."""
        if self.custom_retriever is not None:
            return self.custom_retriever
        with _OPENING:
            return self._own_retriever

    @cached_property
    def _own_retriever(self) -> Retriever:
        settings = self.config.retrieval
        retriever: Retriever = retriever_class(settings.kind).open(
            self.knowledge_base, settings.temperature, self.components.attention
        )
        return retriever

    @property
    def names(self) -> tuple[str, ...]:
        """The modalities' names, in order."""
        return self.latent_space.names

    @property
    def views(self) -> tuple[View, ...]:
        """What keys and queries are made of."""
        if self.config.retrieval.query == "literal":
            return side_by_side({PSI_VIEW: self.config.shared_width})
        return side_by_side(self.latent_space.widths)

    def read(self, path: Path, **options: Unpack[ReadOptions]) -> DataFile:
        """A data file as this model reads it: its modalities, and its training means for ``mean``.

        Raises:
            DataError: if the file can't be used.
        """
        own = ReadOptions(specs=self.config.modalities, feature_means=self.latent_space.feature_means)
        return read_data_file(path, **(own | options))

    def with_knowledge_base(self, kb: KnowledgeBase) -> Model:
        """The same model over other entries.

        Entries that it wasn't trained on serve as evidence, and as rows of the anchor's kernel regression.

        Raises:
            KnowledgeBaseError: if another model made them.
        """
        kb.require(self.manifest.components, self.views, self.latent_space.widths, self.config.shared_width)
        trained, own = self.trained or (self.executor, frozenset(self.knowledge_base.ids))
        executor, later = trained, np.array([entry_id not in own for entry_id in kb.ids], dtype=np.bool_)
        if later.any():
            entries = kb.take(np.flatnonzero(later))
            names, device = executor.names, self.device
            latents = {name: torch.from_numpy(entries.values[name]).to(device) for name in names}
            known = torch.stack([torch.from_numpy(entries.has_value[name]) for name in names], dim=1)
            executor = trained.with_rows(latents, known.to(device), entries.ids, entries.groups)
        return replace(
            self, knowledge_base=kb, custom_retriever=None, executor=executor, trained=(trained, own)
        )

    def with_planning(self, **changes: Any) -> Model:
        """The same model with other planning settings.

        Args:
            changes: Fields of ``PlanningSettings`` and their values.
        """
        planning = self.config.planning.model_copy(update=changes)
        return replace(self, config=self.config.model_copy(update={"planning": planning}))

    def with_planner(self, planner: Planner) -> Model:
        """The same model with another planner."""
        return replace(self, planner=planner)

    def with_retriever(self, retriever: Retriever) -> Model:
        """The same model with another retriever."""
        return replace(self, custom_retriever=retriever)

    def to(self, device: torch.device) -> Model:
        """The same model with its networks on a device, its thinker too; this one's stay where they are."""
        if self.hidden_states is not None and (states := self.hidden_states.on(device)) != self.hidden_states:
            text_encoder = self.text_encoder
            if isinstance(text_encoder.encoder, ThinkerTextEncoder):  # psi and g read through one thinker
                text_encoder = replace(
                    text_encoder, encoder=ThinkerTextEncoder(states, text_encoder.encoder.centre)
                )
            return replace(self, hidden_states=states, text_encoder=text_encoder).to(device)
        if device == self.device:
            return self
        encoder, projection, executor = deepcopy((self.encoder, self.projection, self.executor))
        label_regression = self.label_regression
        if label_regression is not None:
            kernel = deepcopy(label_regression.kernel).to(device)
            label_regression = replace(label_regression, kernel=kernel)
        for module in (encoder, projection, executor):
            module.to(device)
        trained = self.trained and (deepcopy(self.trained[0]).to(device), self.trained[1])
        return replace(
            self,
            encoder=encoder,
            projection=projection,
            executor=executor,
            label_regression=label_regression,
            device=device,
            trained=trained,
        )


def components_fingerprint(latent_space: LatentSpace, encoder: nn.Module, text_encoder: str) -> str:
    """SHA-256 over what the entries of a knowledge base are made with."""
    digest = hashlib.sha256(text_encoder.encode())
    for name, codec in latent_space.codecs.items():
        digest.update(codec.spec.model_dump_json().encode())
        _add_tensors(digest, name, codec.state())
    _add_tensors(digest, "psi", encoder.state_dict())
    return digest.hexdigest()


def _add_tensors(digest: hashlib._Hash, name: str, tensors: Mapping[str, Tensor]) -> None:
    for key, value in sorted(tensors.items()):
        tensor: Tensor = value.detach().cpu().contiguous()
        digest.update(f"{name}.{key}{tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())


def choose_device(name: str) -> torch.device:
    """``auto`` takes CUDA where it is there.

    Raises:
        DeviceError: if the device asked for isn't there.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "cuda" and available:
        return torch.device("cuda")
    if name == "cuda":
        raise DeviceError("a CUDA device was asked for, torch sees none: use --device cpu, or --device auto")
    raise DeviceError(f"a device is auto, cpu or cuda, {name!r} came")


def default_model_folder() -> Path:
    """Where the embedded default lies."""
    from importlib.resources import files

    return Path(str(files("omg_graph.embedded"))) / "model"
