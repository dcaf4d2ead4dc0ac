"""Where a model's Qwen2.5-Omni thinker lies, and whether it is the one that the model was trained with."""

from __future__ import annotations

import os
from pathlib import Path

from omg_graph.encoders.hidden_states import HiddenStates, ThinkerRecord
from omg_graph.errors import EncoderError, ModelError
from omg_graph.omni.checkpoints import checkpoint_fingerprint, locate_checkpoint
from omg_graph.retriever.index import cache_folder

THINKER_VARIABLE = "OMG_ENCODER_MODEL"
OPTION = "--encoder-model"


def thinker_named(given: str | Path | None) -> str | None:
    """What names the thinker: what is given, else the environment variable ``OMG_ENCODER_MODEL``."""
    return str(given or os.environ.get(THINKER_VARIABLE) or "") or None


def recorded_states(record: ThinkerRecord, given: str | Path | None) -> HiddenStates:
    """The hidden states of a trained model's thinker, which is looked for and not loaded yet.

    Args:
        record: Of the model.
        given: Folder or hub name of the thinker, if it isn't where the model was trained with it.

    Raises:
        EncoderError: if it isn't there, or is another one.
    """
    name = thinker_named(given) or record.name
    try:
        folder = locate_checkpoint(name)
    except ModelError as error:
        raise EncoderError(
            f"the model reads through a Qwen2.5-Omni thinker ({record.name} when it was trained): {error}; "
            f"say where it is now with {OPTION} or {THINKER_VARIABLE}"
        ) from error
    found = checkpoint_fingerprint(folder)
    if found != record.fingerprint:
        raise EncoderError(
            f"{folder}: the Qwen2.5-Omni thinker that the model was trained with was expected (fingerprint "
            f"{record.fingerprint[:12]}), another one is there ({found[:12]}): name the first with {OPTION}, "
            "or train the model again"
        )
    return HiddenStates(record, folder, _cache())


def new_states(name: str | None, *, depth: float, four_bit: bool, cuda: bool) -> HiddenStates:
    """The hidden states of a thinker to train with.

    Args:
        name: Its folder or hub name.
        depth: How deep the layer lies that is read.
        four_bit: Load its weights in four bits.
        cuda: Whether it runs on a GPU, in bfloat16; else on the CPU, in single precision.

    Raises:
        EncoderError: if none is named, or none is there.
    """
    if name is None:
        raise EncoderError(
            f"--encoder qwen-omni needs the checkpoint that encodes: name a folder, or Qwen/Qwen2.5-Omni-3B, "
            f"with {OPTION} or {THINKER_VARIABLE}"
        )
    try:
        folder = locate_checkpoint(name)
    except ModelError as error:
        raise EncoderError(f"{OPTION} {error}") from error
    record = ThinkerRecord(
        # a relative path would mean another place wherever the model is used
        name=str(folder.resolve()) if Path(name).expanduser().is_dir() else name,
        fingerprint=checkpoint_fingerprint(folder),
        width=_width(folder),
        depth=depth,
        dtype="bfloat16" if cuda else "float32",
        four_bit=four_bit,
    )
    return HiddenStates(record, folder, _cache(), device="auto" if cuda else "cpu")


def _width(folder: Path) -> int:
    from transformers import Qwen2_5OmniThinkerConfig

    try:
        config = Qwen2_5OmniThinkerConfig.from_pretrained(folder, local_files_only=True)
        return int(config.text_config.hidden_size)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EncoderError(
            f"{folder}: the width of a Qwen2.5-Omni thinker was expected in config.json, it can't be read: "
            "copy the checkpoint whole"
        ) from error


def _cache() -> Path:
    return cache_folder() / "hidden_states"
