"""Recordings as a thinker takes them: features, and how many placeholder tokens stand for them.

Everything is worked out here rather than by the model's official processor, which needs torchvision for its
video part: sound by Whisper's log-mel features, images by the PIL image processor, and videos as pairs of
frames in the same patches. Wherever torchvision is, the numbers are thus the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from omg_graph.data.recordings import Recording
from omg_graph.errors import DataError

MOST_FRAMES = 16
"""Of one video, evenly spaced; two of them make one step in time."""

MOST_IMAGE_PIXELS = 1280 * 28 * 28
"""A larger image is scaled down: about 1,280 tokens."""

MOST_FRAME_PIXELS = 256 * 28 * 28
"""The same for each frame of a video."""

LEAST_PIXELS = 4 * 28 * 28
"""A smaller image is scaled up."""

MOST_SECONDS = 300
"""Of sound; what comes after isn't heard."""

SECONDS_A_STEP = 1.0
"""Between two steps of a video whose rate nobody knows: two frames a second, the model's usual rate."""

PREPROCESSOR_FILE = "preprocessor_config.json"


@dataclass(frozen=True)
class Sound:
    """Log-mel features of one sound, and the tokens that stand for it."""

    features: Tensor
    """(mels, frames)."""
    tokens: int


@dataclass(frozen=True)
class Picture:
    """Patches of one image or video, and the tokens that stand for it."""

    patches: Tensor
    """(patches, channels x 2 x patch x patch)."""
    grid: tuple[int, int, int]
    """Steps in time, patches down, patches across."""
    tokens: int
    seconds_a_step: float | None = None
    """For a video; None for an image."""


class MediaReader:
    """Turns recordings into what one thinker's towers take."""

    def __init__(self, folder: Path, config: Any) -> None:
        """Set up the processors as a checkpoint's folder has them.

        Args:
            folder: The checkpoint.
            config: Of the thinker.

        Raises:
            OSError: if the folder's settings of processors can't be read.
        """
        from transformers import Qwen2VLImageProcessorPil, WhisperFeatureExtractor

        mels, vision = config.audio_config.num_mel_bins, config.vision_config
        sizes = {
            "patch_size": vision.patch_size,
            "temporal_patch_size": vision.temporal_patch_size,
            "merge_size": vision.spatial_merge_size,
        }
        stored = (folder / PREPROCESSOR_FILE).is_file()
        self._sound = (
            WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
            if stored
            else WhisperFeatureExtractor(feature_size=mels)
        )
        self._image = (
            Qwen2VLImageProcessorPil.from_pretrained(folder, local_files_only=True, **sizes)
            if stored
            else Qwen2VLImageProcessorPil(**sizes)
        )
        self._merge = int(vision.spatial_merge_size) ** 2
        self._step = int(vision.temporal_patch_size)

    def sound(self, recording: Recording) -> Sound:
        """Features of a sound, its first five minutes.

        Raises:
            DataError: if it can't be read.
        """
        rate, hop = int(self._sound.sampling_rate), int(self._sound.hop_length)
        waveform = recording.waveform(rate)[: MOST_SECONDS * rate]
        # silence behind the end, as in the padding that the model was trained with; three frames make a token
        frames = max(-(-len(waveform) // hop), 3)
        padded = np.zeros(frames * hop + int(self._sound.n_fft), dtype=np.float32)
        padded[: len(waveform)] = waveform
        features = self._sound(padded, sampling_rate=rate, padding="longest", return_tensors="pt")
        return Sound(features["input_features"][0, :, :frames], ((frames - 1) // 2 + 1 - 2) // 2 + 1)

    def picture(self, recording: Recording) -> Picture:
        """Patches of an image or a video.

        Raises:
            DataError: if it can't be read, or is more than 200 times as long as it is wide.
        """
        if recording.kind == "image":
            patches, (_, down, across) = self._patches(recording.frames(), MOST_IMAGE_PIXELS)
            return Picture(patches[0], (1, down, across), down * across // self._merge)
        frames = recording.frames(MOST_FRAMES)
        frames += frames[-1:] * (-len(frames) % self._step)
        patches, (_, down, across) = self._patches(frames, MOST_FRAME_PIXELS)
        steps = len(frames) // self._step
        seconds = recording.extent.seconds
        return Picture(
            self._joined(patches).reshape(steps * down * across, -1),
            (steps, down, across),
            steps * down * across // self._merge,
            SECONDS_A_STEP if seconds is None else seconds / steps,
        )

    def _patches(self, frames: Sequence[Any], most_pixels: int) -> tuple[Tensor, tuple[int, int, int]]:
        """(frames, patches, values), and the grid that all of them share."""
        if len({frame.shape for frame in frames}) > 1:
            raise DataError(
                "the frames of a video were expected to be of one size, and aren't: scale them to one"
            )
        try:
            made = self._image(
                list(frames),
                return_tensors="pt",
                input_data_format="channels_last",
                size={"shortest_edge": LEAST_PIXELS, "longest_edge": most_pixels},
            )
        except ValueError as error:
            raise DataError(f"an image can't be read by Qwen2.5-Omni: {error}") from error
        _, down, across = (int(side) for side in made["image_grid_thw"][0])
        return made["pixel_values"].reshape(len(frames), down * across, -1), (1, down, across)

    def _joined(self, patches: Tensor) -> Tensor:
        """Each step's frames in one patch: the image processor repeats a single frame in its place."""
        frames, count, values = patches.shape
        channels = int(self._image_channels(values))
        single = patches.reshape(frames, count, channels, self._step, -1)[:, :, :, 0]
        steps = single.reshape(frames // self._step, self._step, count, channels, -1)
        return steps.permute(0, 2, 3, 1, 4)

    def _image_channels(self, values: int) -> int:
        return values // (self._step * int(self._image.patch_size) ** 2)


def stacked_sounds(sounds: Sequence[Sound]) -> dict[str, Tensor]:
    """Sounds side by side, as the thinker's forward pass takes them."""
    if not sounds:
        return {}
    longest = max(sound.features.shape[1] for sound in sounds)
    mels = sounds[0].features.shape[0]
    features = torch.zeros(len(sounds), mels, longest)
    mask = torch.zeros(len(sounds), longest, dtype=torch.long)
    for row, sound in enumerate(sounds):
        frames = sound.features.shape[1]
        features[row, :, :frames] = sound.features
        mask[row, :frames] = 1
    return {"input_features": features, "feature_attention_mask": mask}


def stacked_pictures(pictures: Sequence[Picture]) -> dict[str, Tensor]:
    """Images and videos one behind the other, as the thinker's forward pass takes them."""
    stacked: dict[str, Tensor] = {}
    for values, grids, of_video in (
        ("pixel_values", "image_grid_thw", False),
        ("pixel_values_videos", "video_grid_thw", True),
    ):
        some = [picture for picture in pictures if (picture.seconds_a_step is not None) == of_video]
        if some:
            stacked[values] = torch.cat([picture.patches for picture in some])
            stacked[grids] = torch.tensor([picture.grid for picture in some])
        if some and of_video:
            stacked["video_second_per_grid"] = torch.tensor([picture.seconds_a_step for picture in some])
    return stacked
