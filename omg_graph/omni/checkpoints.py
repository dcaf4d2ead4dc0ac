"""Checkpoints of Qwen2.5-Omni: where one lies, whether it is whole, and what tells it from others."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from omg_graph.errors import ModelError

THINKER, WHOLE = "qwen2_5_omni_thinker", "qwen2_5_omni"
"""Model types in ``config.json``: a thinker by itself, and the whole model with its talker."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json")

_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
_WANTED = ["*.json", "*.safetensors", "merges.txt", "*.jinja"]
"""What is fetched from the hub: no pickled weights, no code."""

WHOLE_BYTES = 64 * 2**20
"""A larger file is fingerprinted by samples of it."""

_SAMPLES, _SAMPLE_BYTES = 256, 2**14


def locate_checkpoint(name: str) -> Path:
    """The folder of a checkpoint, by its path or its name on the Hugging Face hub.

    A name is looked up in the Hugging Face cache first, then on the hub.

    Raises:
        ModelError: if it isn't there, is no Qwen2.5-Omni, or lacks a tokenizer or safetensors weights.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _from_hub(name)
    config = _config(folder)
    kind = config.get("model_type")
    if kind not in (THINKER, WHOLE):
        raise ModelError(
            f"{folder}: expected a Qwen2.5-Omni (model_type {WHOLE} or {THINKER}), got {kind!r}: name "
            "another folder"
        )
    if not _has_tokenizer(folder):
        raise ModelError(
            f"{folder}: expected a checkpoint with a tokenizer, tokenizer.json isn't there: copy the "
            "checkpoint whole"
        )
    if not _has_weights(folder):
        raise ModelError(
            f"{folder}: expected weights in safetensors, they aren't there, or not all of them: copy "
            "the checkpoint whole; pickled weights are not read"
        )
    return folder


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZER_FILES)


def _has_weights(folder: Path) -> bool:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return all((folder / str(name)).is_file() for name in named)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{path}: expected the configuration of a Qwen2.5-Omni checkpoint, it can't be read "
            f"({type(error).__name__}): name a folder that transformers wrote"
        ) from error
    return config if isinstance(config, dict) else {}


def _from_hub(name: str) -> Path:
    if not _HUB_NAME.fullmatch(name):
        raise ModelError(
            f"{name}: expected a folder with a Qwen2.5-Omni checkpoint, or a name on the Hugging Face hub "
            "such as Qwen/Qwen2.5-Omni-3B: there is no such folder"
        )
    from huggingface_hub import snapshot_download

    try:
        cached = Path(snapshot_download(name, allow_patterns=_WANTED, local_files_only=True))
    except Exception:  # not in the cache is the usual case
        cached = None
    # another program may have fetched a part of it only, say the tokenizer
    if cached is not None and _has_tokenizer(cached) and _has_weights(cached):
        return cached
    try:
        return Path(snapshot_download(name, allow_patterns=_WANTED, etag_timeout=5))
    except Exception as error:
        raise ModelError(
            f"{name}: no such folder, not in the Hugging Face cache, and the hub gave none "
            f"({type(error).__name__}): fetch it with `hf download {name}` where there is a network, or name "
            "a folder"
        ) from error


def checkpoint_fingerprint(folder: Path) -> str:
    """SHA-256 over configuration, tokenizer and weights.

    Of a weight file beyond 64 MiB it reads the header, the size and 256 stretches spread over the file:
    training changes all of them, and reading tens of gigabytes takes minutes.
    """
    digest = hashlib.sha256()
    for path in sorted((*folder.glob("*.json"), *folder.glob("*.txt"), *folder.glob("*.safetensors"))):
        digest.update(path.name.encode())
        _add(digest, path)
    return digest.hexdigest()


def _add(digest: Any, path: Path) -> None:
    size = path.stat().st_size
    digest.update(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE_BYTES:
            digest.update(file.read())
            return
        length = min(int.from_bytes(file.read(8), "little"), WHOLE_BYTES)
        digest.update(file.read(length))
        for place in range(_SAMPLES):
            file.seek(place * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
