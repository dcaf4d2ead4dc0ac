"""Recordings as a chat model is sent them: standard LangChain content blocks, bounded in length and size."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel

from omg_graph.data.media import Pixels, image_bytes, wav_bytes
from omg_graph.data.recordings import Recording, shortened
from omg_graph.planner.interface import PlannerInput
from omg_graph.planner.prompting import MediaSetting
from omg_graph.record.trajectory import SeenRecording

MediaKind = Literal["audio", "image"]
"""What a model must take; a video is sent as images."""

KINDS: tuple[MediaKind, ...] = ("audio", "image")

SOUND_RATE = 16_000
"""Hz, of one channel."""

MOST_SECONDS = 60
"""Of one sound: 2 MB."""

MOST_FRAMES = 8
"""Of one video."""

LONGEST_SIDE = 1024
"""Pixels, of one image."""

MOST_IMAGE_BYTES = 500_000
"""Of one image: one that takes more is scaled down further."""

BOUNDS = (SOUND_RATE, MOST_SECONDS, MOST_FRAMES, LONGEST_SIDE, MOST_IMAGE_BYTES)


@dataclass(frozen=True)
class Attachment:
    """One recording of a sample; two with the same content are equal."""

    modality: str
    sha256: str
    recording: Recording = field(compare=False)

    @property
    def kind(self) -> MediaKind:
        """What a model must take."""
        return sent_as(self.recording)

    @property
    def identity(self) -> tuple[str, str]:
        """What an answer to it depends on."""
        return self.modality, self.sha256

    @cached_property
    def blocks(self) -> tuple[dict[str, Any], ...]:
        """The modality's name, and what follows it.

        Raises:
            DataError: if it can't be read.
            ConfigError: if its sound must be converted and SciPy isn't installed.
        """
        if self.kind == "audio":
            sound = self.recording.waveform(SOUND_RATE)[: MOST_SECONDS * SOUND_RATE]
            parts = [_block("audio", wav_bytes(sound, SOUND_RATE), "audio/wav")]
        else:
            frames = self.recording.frames(MOST_FRAMES)
            parts = [_block("image", small_image(frame), "image/jpeg") for frame in frames]
        return ({"type": "text", "text": f"{self.modality}:"}, *parts)

    @property
    def shortened(self) -> str | None:
        """What is told of a recording that isn't sent whole."""
        return shortened(self.modality, self.recording, most_seconds=MOST_SECONDS, most_frames=MOST_FRAMES)


def recordings_of(observations: PlannerInput, row: int) -> dict[str, Recording]:
    """The recordings of one sample by modality, in order."""
    found = {name: recordings[row] for name, recordings in observations.recordings.items()}
    return {name: one for name, one in found.items() if one is not None}


def sent_as(recording: Recording) -> MediaKind:
    """What a model must take to be sent a recording."""
    return "audio" if recording.kind == "audio" else "image"


def seen(modality: str, recording: Recording) -> SeenRecording:
    """What a trajectory says of a recording that a planner was given.

    Raises:
        DataError: if it can't be read.
    """
    extent = recording.extent
    return SeenRecording(
        modality=modality,
        kind=recording.kind,
        sha256=recording.sha256,
        seconds=None if extent.seconds is None else round(extent.seconds, 3),
        frames=extent.frames,
        width=extent.width,
        height=extent.height,
    )


def taken_kinds(model: BaseChatModel, setting: MediaSetting) -> frozenset[MediaKind]:
    """What a model is sent: by ``auto`` what its profile, LangChain's data about known models, says of it."""
    if setting != "auto":
        return frozenset(KINDS if setting == "on" else ())
    profile: Mapping[str, Any] = getattr(model, "profile", None) or {}
    return frozenset(kind for kind in KINDS if profile.get(f"{kind}_inputs"))


def small_image(pixels: Pixels) -> bytes:
    """A JPEG file of an image, as large as is sent at most."""
    side = LONGEST_SIDE
    while len(content := image_bytes(pixels, "JPEG", longest_side=side)) > MOST_IMAGE_BYTES:
        side = side * 3 // 4
    return content


def _block(kind: MediaKind, content: bytes, mime_type: str) -> dict[str, Any]:
    return {"type": kind, "base64": base64.b64encode(content).decode(), "mime_type": mime_type}
