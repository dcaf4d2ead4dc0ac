"""What a thinker is told: messages made of text and recordings, in its own chat format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from omg_graph.data.recordings import Recording

Role = Literal["system", "user", "assistant"]

Part = str | Recording
"""A stretch of text, or one sound, image or video."""

START, END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Part, ...]


Conversation = Sequence[Message]
