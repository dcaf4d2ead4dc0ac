"""Hidden states of a Qwen2.5-Omni thinker: what g and psi are made of where a model is trained with one."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field

from omg_graph.data.dataset import FloatArray, Split
from omg_graph.encoders.observation import RawStates
from omg_graph.encoders.raw_parts import Content, raw_parts
from omg_graph.files import KeyedFiles
from omg_graph.telemetry import step

if TYPE_CHECKING:
    from omg_graph.omni.thinker import Thinker

LAYOUT = 1
"""Version of the cache and of how contents are read: after a change nothing kept before is used."""

BATCH = 4
"""Observations in one forward pass."""

Progress = Callable[[int, int], None]
"""(observations read, of)."""


class ThinkerRecord(BaseModel):
    """Which thinker, and how it is read: everything that its hidden states depend on but their content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """As it was named: a folder, or a name on the Hugging Face hub."""
    fingerprint: str
    """SHA-256 of configuration and weights."""
    width: int
    depth: float = Field(default=0.75, gt=0, le=1)
    """How deep the layer lies that is read, as a share of all: the last tell of the next token alone."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    four_bit: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 over all of it but the name, which is another one wherever the weights are copied to."""
        facts = {"layout": LAYOUT, **self.model_dump(mode="json", exclude={"name"})}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


class HiddenStates:
    """One vector for each content, on disk by what it holds; the thinker is loaded when one isn't there.

    It is the mean over the content's parts of the mean over each part's tokens in one layer: a recording of
    a thousand tokens counts as much as a transcript of ten.
    """

    def __init__(self, record: ThinkerRecord, folder: Path, cache: Path, *, device: str = "auto") -> None:
        """Nothing is loaded yet.

        Args:
            record: Which thinker it is, and how it is read.
            folder: Where it lies.
            cache: The folder that vectors are kept in.
            device: Where the thinker runs: auto, cpu or cuda.

        Raises:
            ConfigError: if the cache can't be written.
        """
        self.record, self.folder, self.device = record, folder, device
        self._cache = cache
        self.passes = 0
        """Contents that went through the thinker so far: all others came from the disk."""
        self._files = KeyedFiles(
            cache, ".npy", what="hidden states", remedy="point OMG_CACHE at one that can be written"
        )
        self._busy = threading.Lock()
        self._thinker: Thinker | None = None

    @property
    def width(self) -> int:
        """Of each vector."""
        return self.record.width

    def on(self, device: torch.device) -> HiddenStates:
        """The same, the thinker on the CPU or on the GPUs that there are; this one's stays where it is."""
        placed = "cpu" if device.type == "cpu" else "auto"
        if placed == self.device:
            return self
        return HiddenStates(self.record, self.folder, self._cache, device=placed)

    def read(self, contents: Sequence[Content], on_progress: Progress | None = None) -> FloatArray:
        """(contents, width), not normalised.

        Args:
            contents: Each with at least one part.
            on_progress: Called with how many are there, where some aren't at the start.

        Raises:
            OmgError: if the thinker can't be loaded, or a recording can't be read.
        """
        keys = [self._key(content) for content in contents]
        found = {key: self._kept(key) for key in dict.fromkeys(keys)}
        places = dict(zip(keys, contents, strict=True))
        new = [key for key, vector in found.items() if vector is None]
        if new:
            with self._busy, step("thinker.call", contents=len(found), read_anew=len(new)):
                for start in range(0, len(new), BATCH):
                    some = new[start : start + BATCH]
                    for key, vector in zip(some, self._pass([places[key] for key in some]), strict=True):
                        found[key] = vector
                        self._keep(key, vector)
                    if on_progress is not None:
                        on_progress(len(found) - len(new) + start + len(some), len(found))
        rows = [vector for key in keys if (vector := found[key]) is not None]
        return np.stack(rows) if rows else np.zeros((0, self.width), np.float32)

    def _pass(self, contents: Sequence[Content]) -> FloatArray:
        from omg_graph.omni.thinker import Message, load_thinker

        record = self.record
        if self._thinker is None:
            self._thinker = load_thinker(
                str(self.folder), device=self.device, dtype=record.dtype, four_bit=record.four_bit
            )
        thinker = self._thinker
        inputs = thinker.inputs([[Message("user", content)] for content in contents], answer=False)
        with torch.inference_mode():
            # without the head: its logits over the vocabulary would be the largest part of the memory
            read = thinker.model.model(**inputs, use_cache=False, output_hidden_states=True)
        layers = len(read.hidden_states) - 1  # the embeddings come first
        states = read.hidden_states[max(1, round(record.depth * layers))].float().cpu()
        self.passes += len(contents)
        tokens = inputs["input_ids"].cpu().numpy()
        rows = [
            torch.stack([row[places].mean(dim=0) for places in _token_places(thinker, content, line)])
            for content, row, line in zip(contents, states, tokens, strict=True)
        ]
        return np.stack([parts.mean(dim=0).numpy() for parts in rows]).astype(np.float32)

    def _key(self, content: Content) -> str:
        parts = [
            ["text", hashlib.sha256(part.encode()).hexdigest()]
            if isinstance(part, str)
            else [part.kind, part.sha256]
            for part in content
        ]
        return hashlib.sha256(json.dumps([self.record.digest, parts]).encode()).hexdigest()

    def _kept(self, key: str) -> FloatArray | None:
        content = self._files.read(key)
        if content is None:
            return None
        try:
            vector = np.load(io.BytesIO(content), allow_pickle=False)
        except (ValueError, EOFError, OSError):
            return None
        whole = vector.dtype == np.float32 and vector.shape == (self.width,) and np.isfinite(vector).all()
        return vector if whole else None

    def _keep(self, key: str, vector: FloatArray) -> None:
        file = io.BytesIO()
        np.save(file, vector, allow_pickle=False)
        self._files.write(key, file.getvalue())


def raw_states(states: HiddenStates, split: Split) -> RawStates:
    """What psi reads of the raw parts of a split's samples, as far as they are observed."""
    contents = [tuple(part.content for part in parts) for parts in raw_parts(split)]
    there = np.array([bool(content) for content in contents], dtype=np.bool_)
    vectors = np.zeros((len(split), states.width), dtype=np.float32)
    vectors[there] = states.read([content for content in contents if content])
    return RawStates(torch.from_numpy(vectors), torch.from_numpy(there))


def _token_places(thinker: Thinker, content: Content, tokens: npt.NDArray[np.int64]) -> list[list[int]]:
    """Where the tokens of each part stand, in a message of them that is padded on the left."""
    config = thinker.model.config
    media = {config.audio_token_id, config.image_token_id, config.video_token_id}
    behind = 1 + len(thinker.encode("\n"))  # what closes the message
    runs: list[list[int]] = []
    for place in np.flatnonzero(np.isin(tokens, list(media))).tolist():
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    texts = [part for part in content if isinstance(part, str)]
    end = len(tokens) - behind
    return runs + [list(range(end - len(thinker.encode(text)), end)) for text in texts]


class ThinkerTextEncoder:
    """g from a thinker: its states of a text, from the centre of the training plans', unit length.

    Without that centre all texts lie in one narrow cone, and no cosine tells them apart.
    """

    def __init__(self, states: HiddenStates, centre: FloatArray) -> None:
        """Take a centre.

        Args:
            states: The thinker's.
            centre: (width,).
        """
        self.states, self.centre = states, centre
        digest = hashlib.sha256(states.record.digest.encode() + np.ascontiguousarray(centre).tobytes())
        self.name = f"qwen-omni {digest.hexdigest()[:24]}"
        self.width = states.width

    @classmethod
    def centred_on(
        cls, states: HiddenStates, texts: Sequence[str], on_progress: Progress | None = None
    ) -> ThinkerTextEncoder:
        """With the mean of these texts' states for its centre."""
        rows = states.read([(text,) for text in texts], on_progress)
        return cls(states, rows.mean(axis=0) if texts else np.zeros(states.width, np.float32))

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(texts, width), unit length."""
        rows = self.states.read([(text,) for text in texts]) - self.centre
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.maximum(norms, 1e-12), dtype=np.float32)
