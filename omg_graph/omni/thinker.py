"""A Qwen2.5-Omni thinker: the part of the model that reads text, sound and images, and writes text."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast
from weakref import WeakValueDictionary

import torch
from safetensors import SafetensorError
from torch import Tensor

from omg_graph.data.recordings import Recording
from omg_graph.errors import ConfigError, DeviceError, ModelError
from omg_graph.omni.checkpoints import locate_checkpoint
from omg_graph.omni.media import MediaReader, Picture, Sound, stacked_pictures, stacked_sounds

Role = Literal["system", "user", "assistant"]

Part = str | Recording
"""A stretch of text, or one sound, image or video."""

START, END = "<|im_start|>", "<|im_end|>"

MEDIA_TOKENS = {
    "audio_bos": "<|audio_bos|>",
    "audio": "<|AUDIO|>",
    "audio_eos": "<|audio_eos|>",
    "vision_bos": "<|vision_bos|>",
    "image": "<|IMAGE|>",
    "video": "<|VIDEO|>",
    "vision_eos": "<|vision_eos|>",
}
"""How the tokenizer spells what stands for media; a text that spells the same is read letter by letter."""

_TOWERS = ["lm_head", "audio_tower", "visual"]
"""What 4-bit loading leaves as it is: a small part of the weights, and the most easily spoilt."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Part, ...]


Conversation = Sequence[Message]


@dataclass
class _Inputs:
    """One conversation as the thinker takes it."""

    tokens: list[int] = field(default_factory=list)
    sounds: list[Sound] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


class Thinker:
    """A thinker with its tokenizer and processors, ready to read conversations."""

    def __init__(self, model: Any, tokenizer: Any, media: MediaReader, folder: Path, name: str) -> None:
        """Put together what ``load_thinker`` loaded.

        Raises:
            ModelError: if the tokenizer lacks a token of the chat format, or spells media by other tokens
                than the model does.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.folder = folder
        self.name = name
        self._media = media
        self._busy = threading.Lock()  # a tokenizer can't be used by two threads at once
        ids = {word: tokenizer.convert_tokens_to_ids(word) for word in (START, END, *MEDIA_TOKENS.values())}
        lacking = [word for word, number in ids.items() if number in (None, tokenizer.unk_token_id)]
        if lacking:
            raise ModelError(
                f"{folder}: expected a tokenizer of Qwen2.5-Omni, its token {lacking[0]} isn't there: "
                "copy the checkpoint whole"
            )
        self._ids = {name: int(ids[word]) for name, word in MEDIA_TOKENS.items()}
        self._start, self._end = int(ids[START]), int(ids[END])
        config = model.config
        configured = {
            "audio": config.audio_token_id,
            "image": config.image_token_id,
            "video": config.video_token_id,
            "audio_bos": config.audio_start_token_id,
            "vision_bos": getattr(config, "vision_start_token_id", None),
        }
        if any(self._ids[name] != number for name, number in configured.items()):
            raise ModelError(
                f"{folder}: expected the tokenizer's media tokens in the configuration, got others: "
                "copy both from the same checkpoint"
            )

    @property
    def vocabulary_size(self) -> int:
        """Logits the model gives for each token; some may be no token of the tokenizer's."""
        return int(self.model.config.text_config.vocab_size)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return cast(torch.device, self.model.get_input_embeddings().weight.device)

    @property
    def end_token(self) -> int:
        """Ends a message."""
        return self._end

    @property
    def media_tokens(self) -> tuple[int, ...]:
        """Tokens that stand for media, and can't be read again as text."""
        return tuple(self._ids.values())

    def encode(self, text: str) -> list[int]:
        """The tokens of a text; whatever it holds, none of them is one of the chat format's own."""
        with self._busy:
            return list(self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        with self._busy:
            return str(self.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))

    def inputs(self, conversations: Sequence[Conversation], *, answer: bool = True) -> dict[str, Tensor]:
        """Conversations as one batch for the model's forward pass, on its device.

        Rows are padded on the left. Position ids are among the inputs, so that the model has none to keep.

        Args:
            conversations: Of each sample its messages.
            answer: Whether the assistant's turn is opened behind them.

        Returns:
            ``input_ids`` and ``attention_mask`` (conversations, tokens), ``position_ids`` (3, conversations,
            tokens), and of sounds, images and videos, where there are any, their features.

        Raises:
            DataError: if a recording can't be read.
        """
        rows = [self._of_conversation(conversation, answer) for conversation in conversations]
        longest = max((len(row.tokens) for row in rows), default=0)
        tokens = torch.full((len(rows), longest), self._end)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for number, row in enumerate(rows):
            tokens[number, longest - len(row.tokens) :] = torch.tensor(row.tokens)
            mask[number, longest - len(row.tokens) :] = 1
        media = stacked_sounds([sound for row in rows for sound in row.sounds])
        media |= stacked_pictures([picture for row in rows for picture in row.pictures])
        heard = media.get("feature_attention_mask")
        positions, _ = self.model.get_rope_index(
            tokens,
            media.get("image_grid_thw"),
            media.get("video_grid_thw"),
            mask,
            False,
            None if heard is None else heard.sum(dim=1),
            media.get("video_second_per_grid"),
        )
        batch = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions, **media}
        return {name: value.to(self.device) for name, value in batch.items()}

    def _of_conversation(self, conversation: Conversation, answer: bool) -> _Inputs:
        row = _Inputs()
        newline = self.encode("\n")
        for message in conversation:
            row.tokens += [self._start, *self.encode(message.role), *newline]
            text = ""
            for part in message.parts:
                if isinstance(part, str):
                    text += part
                    continue
                row.tokens += self.encode(text)
                text = ""
                self._add(row, part)
            row.tokens += [*self.encode(text), self._end, *newline]
        if answer:
            row.tokens += [self._start, *self.encode("assistant"), *newline]
        return row

    def _add(self, row: _Inputs, recording: Recording) -> None:
        ids = self._ids
        if recording.kind == "audio":
            sound = self._media.sound(recording)
            row.sounds.append(sound)
            row.tokens += [ids["audio_bos"], *[ids["audio"]] * sound.tokens, ids["audio_eos"]]
        else:
            picture = self._media.picture(recording)
            row.pictures.append(picture)
            row.tokens += [ids["vision_bos"], *[ids[recording.kind]] * picture.tokens, ids["vision_eos"]]


_LOADED: WeakValueDictionary[tuple[Path, str, str, bool], Thinker] = WeakValueDictionary()
"""A planner and an encoder of the same weights share them."""

_LOADING = threading.Lock()
"""Two threads that ask for the same weights at once get them once."""


def load_thinker(name: str, *, device: str = "auto", dtype: str = "auto", four_bit: bool = False) -> Thinker:
    """A thinker from a local folder or, by its name, from the Hugging Face hub.

    Both a thinker by itself and a whole Qwen2.5-Omni checkpoint will do; of the latter the talker isn't read.
    Weights are safetensors, and no code of a checkpoint is run.

    Args:
        name: A folder, or a name such as ``Qwen/Qwen2.5-Omni-3B``.
        device: ``cpu``, ``cuda``, ``cuda:1`` and so on; ``auto`` spreads the weights over the CUDA devices
            there are, and over the CPU's memory if they are too small.
        dtype: ``bfloat16``, ``float16`` or ``float32``; ``auto`` is bfloat16 on a GPU, float32 on the CPU.
        four_bit: Load the language model's weights in four bits, by bitsandbytes.

    Raises:
        ConfigError: if a setting is unknown, or a package isn't installed.
        DeviceError: if the device isn't there.
        ModelError: if the checkpoint isn't there, is damaged, or of another kind.
    """
    placed = _device(device)
    kind = _dtype(dtype, placed)
    if four_bit and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("loading in 4 bits needs bitsandbytes, which isn't there: pip install bitsandbytes")
    folder = locate_checkpoint(name).resolve()
    key = (folder, str(placed), str(kind), four_bit)
    with _LOADING:
        known = _LOADED.get(key)
        if known is None:
            known = _load(folder, name, placed, kind, four_bit)
            _LOADED[key] = known
    return known


def _device(device: str) -> str:
    available = torch.cuda.is_available()
    if device == "auto":
        return "auto" if available else "cpu"
    if device == "cpu":
        return "cpu"
    name, _, number = device.partition(":")
    if name != "cuda" or (number and not number.isdecimal()):
        raise DeviceError(f"Qwen2.5-Omni's device: expected auto, cpu, cuda or cuda:NUMBER, got {device!r}")
    if not available or int(number or 0) >= torch.cuda.device_count():
        raise DeviceError(f"{device} was asked for, and torch doesn't see it: use cpu or auto")
    return device


def _dtype(dtype: str, device: str) -> torch.dtype:
    known = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    if dtype == "auto":
        return torch.float32 if device == "cpu" else torch.bfloat16
    if dtype not in known:
        raise ConfigError(f"Qwen2.5-Omni's dtype: expected auto, {', '.join(known)}, got {dtype!r}")
    return known[dtype]


def _load(folder: Path, name: str, device: str, dtype: torch.dtype, four_bit: bool) -> Thinker:
    from transformers import (
        AutoTokenizer,
        BitsAndBytesConfig,
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()
    quantised = {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=_TOWERS,
        )
    }
    try:
        config = Qwen2_5OmniThinkerConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        media = MediaReader(folder, config)
        model, loading = Qwen2_5OmniThinkerForConditionalGeneration.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype,
            device_map="auto" if device == "auto" else {"": device},
            output_loading_info=True,
            **(quantised if four_bit else {}),
        )
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ModelError(
            f"{folder}: expected a checkpoint of Qwen2.5-Omni, can't load it ({reason[:200]}): copy it whole"
        ) from error
    amiss = [*loading["missing_keys"], *loading["mismatched_keys"]]
    if amiss:
        raise ModelError(
            f"{folder}: {len(amiss)} of the thinker's weights aren't there or have another shape (such as "
            f"{amiss[0]}): copy the checkpoint whole"
        )
    return Thinker(model.eval(), tokenizer, media, folder, name)
